"""Flags that several commands share, and the options that they make.

A command declares a parameter of type LoadOptions or Sampling; `expanded` puts the flags in its place.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from lacewing.options import LoadOptions, Sampling, parse_bytes, parse_layers

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A GGUF or safetensors file, a directory, a model's name, or a URL.")
]
Backend = Annotated[
    str,
    typer.Option(help="auto (a GPU with room for the model, else the CPU), cpu, webgpu (a GPU) or reference.", metavar="NAME"),
]
Adapter = Annotated[str | None, typer.Option(help="Which GPU, as `lacewing backends` lists them.", metavar="NAME|INDEX")]
Residency = Annotated[str, typer.Option(help="Where weights are: auto, lazy (paged in from the file) or eager (read into RAM).")]
Memory = Annotated[str | None, typer.Option(help="RAM that may be used, for example 4GiB.", metavar="SIZE")]
Context = Annotated[int | None, typer.Option(help="Context size in tokens.", metavar="N")]
Threads = Annotated[int | None, typer.Option(help="Threads; by default one per core.", metavar="N")]
GpuLayers = Annotated[
    str | None,
    typer.Option(help="Whole layers on the GPU; auto: as many as fit. The CPU runs the others.", metavar="N"),
]
GpuMemory = Annotated[str | None, typer.Option(help="GPU memory that may be used, for example 6GiB.", metavar="SIZE")]
KvType = Annotated[
    str | None,
    typer.Option(help="Precision of the KV cache: f16, f32 or q8_0; by default f32 where the weights are as precise, else f16."),
]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Follow links of a directory that lead out of it.")]
IgnoreKey = Annotated[
    list[str] | None,
    typer.Option(help="A key of the metadata, or of config.json, to load the model without; several times.", metavar="NAME"),
]
MaxTokens = Annotated[int | None, typer.Option(help="Stop after this many tokens.", metavar="N")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.", metavar="T")]
TopK = Annotated[int, typer.Option(help="Only the K likeliest tokens; 0 is off.", metavar="K")]
TopP = Annotated[float, typer.Option(help="Only the likeliest tokens that together reach this probability; 1 is off.", metavar="P")]
MinP = Annotated[float, typer.Option(help="Only tokens this fraction as likely as the likeliest; 0 is off.", metavar="P")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer.", metavar="S")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

_DEFAULT = Sampling()


def load_options(
    *,
    backend: Backend = "auto",
    adapter: Adapter = None,
    residency: Residency = "auto",
    memory: Memory = None,
    context: Context = None,
    threads: Threads = None,
    gpu_layers: GpuLayers = None,
    gpu_memory: GpuMemory = None,
    kv_type: KvType = None,
    follow_links: FollowLinks = False,
    ignore_key: IgnoreKey = None,
) -> LoadOptions:
    """Raises OptionError for values out of range."""
    shared = parse_layers(gpu_layers), parse_bytes(gpu_memory, "gpu_memory")
    return LoadOptions(
        backend,
        residency,
        parse_bytes(memory),
        context,
        threads,
        adapter,
        *shared,
        kv_type,
        follow_links=follow_links,
        ignore_keys=tuple(ignore_key or ()),
    )


def sampling_options(
    *,
    max_tokens: MaxTokens = None,
    temperature: Temperature = _DEFAULT.temperature,
    top_k: TopK = _DEFAULT.top_k,
    top_p: TopP = _DEFAULT.top_p,
    min_p: MinP = _DEFAULT.min_p,
    seed: Seed = None,
) -> Sampling:
    """Raises OptionError for values out of range."""
    return Sampling(max_tokens, temperature, top_k, top_p, min_p, seed=seed)


_MAKERS: dict[Any, Callable[..., Any]] = {LoadOptions: load_options, Sampling: sampling_options}


def expanded(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of a command, each keyword parameter of a type that flags make becomes these flags, but for those in `without`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        makers: dict[str, tuple[Callable[..., Any], list[str]]] = {}
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            maker = _MAKERS.get(parameter.annotation)
            if maker is None:
                parameters.append(parameter)
                continue
            flags = [each for name, each in inspect.signature(maker, eval_str=True).parameters.items() if name not in without]
            makers[parameter.name] = maker, [flag.name for flag in flags]
            parameters += flags

        @functools.wraps(command)
        def run(**given: Any) -> None:
            for name, (maker, flags) in makers.items():
                given[name] = maker(**{flag: given.pop(flag) for flag in flags})
            command(**given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        return run

    return decorate
