"""Flags that several commands share, and the options that they make.

A command declares a parameter of type LoadOptions or Sampling; `expanded` puts the flags in its place.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import typer

from lacewing.assistant.options import ChatOptions
from lacewing.cli.grammars import grammar_of
from lacewing.cli.server_flags import server_options
from lacewing.console.output import NORMAL, QUIET, VERBOSE, set_level
from lacewing.errors import OptionError
from lacewing.options import LoadOptions, Sampling, parse_bytes, parse_layers
from lacewing.server.options import ServerOptions
from lacewing.text.reasoning import EFFORTS

GIVEN = "lacewing.given"  # in the `meta` of a context: the names of options that the words of the command line have
MODEL_HELP = "A GGUF or safetensors file, a directory, a model's name, or a URL."


def complete(incomplete: str) -> list[str]:
    """Names of models that begin so."""
    from lacewing.cli.models import complete_model

    return complete_model(incomplete)


ModelName = Annotated[str, typer.Argument(metavar="MODEL", autocompletion=complete, help=MODEL_HELP)]
Backend = Annotated[
    str,
    typer.Option(
        help="auto (a GPU with room for the model, else the CPU), cpu, cuda (NVIDIA), webgpu (any GPU) or reference.",
        metavar="NAME",
    ),
]
Adapter = Annotated[str | None, typer.Option(help="Which GPU, as `lacewing backends` lists them.", metavar="NAME|INDEX")]
Residency = Annotated[
    str,
    typer.Option(
        help="Where weights are: auto, lazy (paged in from the file), eager (read into RAM) or streamed (all in RAM except the "
        "experts, which are read from disk as the router selects them).",
        metavar="WHERE",
    ),
]
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
    typer.Option(
        help="Precision of the KV cache: f16, f32 or q8_0; by default f32 where the weights are as precise, else f16.",
        metavar="TYPE",
    ),
]
FollowLinks = Annotated[bool, typer.Option("--follow-links", help="Follow links of a directory that lead out of it.")]
IgnoreKey = Annotated[
    list[str] | None,
    typer.Option(help="A key of the metadata, or of config.json, to load the model without; several times.", metavar="NAME"),
]
ColdStart = Annotated[
    bool,
    typer.Option(
        "--cold-start",
        help="Streamed experts: begin with none, and keep no usage history; else those that were used most come first.",
    ),
]
WarmStart = Annotated[
    bool,
    typer.Option("--warm-start", help="Streamed experts: begin with those that were used most, and keep the usage history."),
]
LookAhead = Annotated[
    bool,
    typer.Option("--look-ahead", help="Streamed experts: also read what the next layer is likely to choose, while that pays."),
]
MaxTokens = Annotated[int | None, typer.Option(help="Stop after this many tokens; -1: no limit.", metavar="N")]
Temperature = Annotated[float, typer.Option(help="0 always takes the likeliest token.", metavar="T")]
TopK = Annotated[int, typer.Option(help="Only the K likeliest tokens; 0 or -1 is off.", metavar="K")]
TopP = Annotated[float, typer.Option(help="Only the likeliest tokens that together reach this probability; 1 is off.", metavar="P")]
MinP = Annotated[float, typer.Option(help="Only tokens at least P times as likely as the most likely one; 0 is off.", metavar="P")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same answer; -1: another one each time.", metavar="S")]
RepeatGuard = Annotated[
    int, typer.Option(help="End an answer after N tokens that only repeat what came before; 0 is off.", metavar="N")
]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", help="End the answer at this text; may be given several times.", metavar="TEXT")
]
ReasoningEffort = Annotated[
    str | None, typer.Option(help=f"How hard to think before the answer: {', '.join(EFFORTS)}.", metavar="EFFORT")
]
JsonSchema = Annotated[
    str | None,
    typer.Option("--json-schema", help="Answer with JSON by this schema, a file or its text.", metavar="FILE"),
]
GrammarFile = Annotated[
    str | None,
    typer.Option("--grammar", help="Answer by this grammar (GBNF or Lark), a file or its text.", metavar="FILE"),
]
Regex = Annotated[str | None, typer.Option("--regex", help="Answer with what this regex matches as a whole.", metavar="TEXT")]
ReasoningBudget = Annotated[int | None, typer.Option(help="End thoughts after N tokens, and begin the answer.", metavar="N")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and errors only: no progress, no notices.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also show what is opened, where it goes and why, times, and causes of errors.")
]
Color = Annotated[str, typer.Option(help="Colours: auto (on a terminal), always or never.", metavar="WHEN")]
Files = Annotated[
    list[str] | None,
    typer.Option(
        "--file", "-f", help="Text file, or lines of it (notes.txt:10-50), in front of the prompt; several times.", metavar="FILE"
    ),
]
System = Annotated[str | None, typer.Option("--system", help="The system message: how the model is to answer.", metavar="TEXT")]
Template = Annotated[
    str | None,
    typer.Option("--template", help="Chat template: a built-in name, a .jinja file, or auto (the checkpoint's).", metavar="NAME"),
]
Chosen = Annotated[
    str | None,
    typer.Option("--model", "-m", help="The model; then all other words are the prompt.", metavar="MODEL", autocompletion=complete),
]
DefaultModel = Annotated[str, typer.Option("--default-model", help="The model where none is named.", metavar="MODEL", hidden=True)]
Server = Annotated[
    str | None,
    typer.Option(
        "--server", help="Ask a server with OpenAI's API, such as `lacewing serve`, instead of loading a model.", metavar="URL"
    ),
]
ServerKey = Annotated[str | None, typer.Option("--server-key", help="The API key of the server.", metavar="KEY")]
Special = Annotated[bool, typer.Option("--special", help="Control tokens spelt in the text count; of run, with --raw only.")]
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
    cold_start: ColdStart = False,
    look_ahead: LookAhead = False,
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
        cold_start=cold_start,
        look_ahead=look_ahead,
    )


def sampling_options(
    *,
    max_tokens: MaxTokens = None,
    temperature: Temperature = _DEFAULT.temperature,
    top_k: TopK = _DEFAULT.top_k,
    top_p: TopP = _DEFAULT.top_p,
    min_p: MinP = _DEFAULT.min_p,
    seed: Seed = None,
    stop: Stop = None,
    repeat_guard: RepeatGuard = _DEFAULT.repeat_guard,
) -> Sampling:
    """Raises OptionError for values out of range."""
    stops = tuple(text.replace("\\n", "\n") for text in stop or ())
    return Sampling(max_tokens, temperature, top_k, top_p, min_p, seed=seed, stop=stops, repeat_guard=repeat_guard)


def chat_options(
    *,
    reasoning_effort: ReasoningEffort = None,
    reasoning_budget: ReasoningBudget = None,
    json_schema: JsonSchema = None,
    grammar: GrammarFile = None,
    regex: Regex = None,
) -> ChatOptions:
    """Raises OptionError for values out of range, GrammarError."""
    constraint = grammar_of(json_schema, grammar, regex)
    return ChatOptions(constraint=constraint, reasoning_effort=reasoning_effort, reasoning_budget=reasoning_budget)


def show(*, quiet: Quiet = False, verbose: Verbose = False, color: Color = "auto") -> None:
    """What stands beside the results from now on. Raises OptionError."""
    if color not in ("auto", "always", "never"):
        raise OptionError(f"color is {color!r}; it must be auto, always or never")
    if color != "auto":  # rich and prompt-toolkit go by these
        os.environ.pop("NO_COLOR" if color == "always" else "FORCE_COLOR", None)
        os.environ["FORCE_COLOR" if color == "always" else "NO_COLOR"] = "1"
    set_level(VERBOSE if verbose else QUIET if quiet else NORMAL)


_MAKERS: dict[Any, Callable[..., Any]] = {
    LoadOptions: load_options,
    Sampling: sampling_options,
    ChatOptions: chat_options,
    ServerOptions: server_options,
}


def check(name: str, value: Any) -> None:
    """Raise OptionError if the option of that name cannot have this value."""
    for maker in _MAKERS.values():
        if name in inspect.signature(maker).parameters:
            maker(**{name: value})


def _of_line(options: LoadOptions, context: typer.Context) -> LoadOptions:
    """A residency that the line does not have is one of the environment or the file, and those are for all models."""
    general = options.residency != "auto" and "residency" not in context.meta.get(GIVEN, ())
    return replace(options, residency_is_default=True) if general else options


def expanded(*, without: tuple[str, ...] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Of a command, each keyword parameter of a type that flags make becomes these flags, but for those in `without`.

    Every command gets the flags of `show`.
    """

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

        named = next((each.name for each in parameters if each.annotation is typer.Context), None)
        if named is None:
            parameters.append(inspect.Parameter("context_", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        shown = list(inspect.signature(show, eval_str=True).parameters.values())

        @functools.wraps(command)
        def run(**given: Any) -> None:
            show(**{flag.name: given.pop(flag.name) for flag in shown})
            context = given[named] if named else given.pop("context_")
            for name, (maker, flags) in makers.items():
                made = maker(**{flag: given.pop(flag) for flag in flags})
                given[name] = _of_line(made, context) if isinstance(made, LoadOptions) else made
            command(**given)

        run.__signature__ = inspect.Signature([*parameters, *shown])  # type: ignore[attr-defined]  # typer reads it
        return run

    return decorate
