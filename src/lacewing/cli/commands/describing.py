"""Commands that tell about a model: what it is, how fast, what it makes of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lacewing.cli import flags
from lacewing.cli.application import app
from lacewing.cli.parsing import Command
from lacewing.options import LoadOptions


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
