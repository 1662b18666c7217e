"""What a person chooses: how to load, how to sample. Frozen, checked when made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict

from lacewing.errors import OptionError

Progress = Callable[[str, int, int], None]  # what is being done, done so far, in all
RESIDENCIES = ("auto", "lazy", "eager", "streamed")
CPU, GPU, NVIDIA, REFERENCE = "cpu", "webgpu", "cuda", "reference"  # backends that others name in messages and choices
KV_TYPES = ("f16", "f32", "q8_0")  # of the KV cache
_OPTION = re.compile(r"`(\w+)(?:=\[?'([^'`]*)'\]?)?`")
_THINKING = {"reasoning_effort": "thinking", "reasoning_budget": "thinking-budget"}  # options of answers, commands of the chat
# What -1 means, in words and as a value, as for llama.cpp, Ollama and those who speak OpenAI's protocol.
_MINUS_ONE: dict[str, tuple[str, int | None]] = {"max_tokens": ("no limit", None), "seed": ("random", None),
                                                 "top_k": ("off", 0), "repeat_window": ("the whole context", 2**31)}  # fmt: skip
_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12,
          "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip


def parse_bytes(text: str | int | None, what: str = "memory") -> int | None:
    """`"4GiB"`, `"800MB"`, `"1.5g"` or a number of bytes; None stays None. Raises OptionError, which names `what` it is."""
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text > 0):
        return text
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", str(text))
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None or float(match.group(1)) * unit < 1:
        raise OptionError(f"`{what}` is {shown_value(text)}; it must be a size, for example 4GiB or 800MB")
    return int(float(match.group(1)) * unit)


def parse_layers(text: str | int | None) -> int | None:
    """A number of layers; "auto" or None: None. Raises OptionError."""
    if text is None or text == "auto":
        return None
    if isinstance(text, bool) or not re.fullmatch(r"\d{1,5}", str(text)):
        raise OptionError(f"`gpu_layers` is {shown_value(text)}; it must be a number of layers, or auto")
    return int(text)


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """`1 file`, `2 files`; `plural` where an s does not make it."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


_ENDINGS = (("ise", "ize"), ("ising", "izing"), ("isation", "ization"), ("yse", "yze"), ("our", "or"), ("tre", "ter"),
            ("ence", "ense"), ("ogue", "og"), ("ll", "l"), ("grey", "gray"))  # fmt: skip


def known_spelling(word: str, names: Iterable[str]) -> str | None:
    """The one of the names that a word is, in British or American spelling; None if it is none of them."""

    def american(text: str) -> str:
        for british, other in _ENDINGS:
            text = text.replace(british, other)
        return text

    found = {american(name): name for name in names} | {name: name for name in names}
    return found.get(word) or found.get(american(word))


ON_OFF = {"on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False}


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """`did you mean X?` for a word that is none of the names; nothing if none is like it."""
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {near[0]}?" if near else ""


def format_bytes(count: float) -> str:
    """Bytes for people: `"1.4 GiB"`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def bytes_at_least(count: int) -> str:
    """A size for an option that allows so many bytes, rounded up: `"1.5GiB"`."""
    unit = next((unit for unit in ("TiB", "GiB", "MiB", "KiB") if count >= _UNITS[unit.lower()]), "")
    if not unit:
        return f"{count}B"
    tenths = -(-10 * count // _UNITS[unit.lower()])
    while int(tenths / 10 * _UNITS[unit.lower()]) < count:  # as `parse_bytes` reads it
        tenths += 1
    return f"{tenths / 10:.1f}{unit}"


def _plain(bound: float) -> str:
    """A bound for people, whole numbers without an exponent."""
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def spelled(message: str, *, chat: bool = False) -> str:
    """A message of ours in the spelling of the command line: `max_tokens` is `max_tokens` there, and /max-tokens in a chat.

    Messages name an option as the API does, between backticks and perhaps with a value, as in `backend='cpu'`.
    """

    def named(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        sampling = name in SamplingArguments.__annotations__
        if chat and name in _THINKING:
            return f"/{_THINKING[name]} {value or ''}".rstrip()
        if not sampling and name not in LoadArguments.__annotations__ and name not in _THINKING:
            return found[0]
        flag = "--ignore-key" if name == "ignore_keys" else f"{'/' if chat and sampling else '--'}{name.replace('_', '-')}"
        return f"{flag} {value or ''}".rstrip()

    return _OPTION.sub(named, message)


def _one_of(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise OptionError(f"`{name}` is {shown_value(value)}; it must be one of {', '.join(choices)}")


def _check(name: str, value: object, low: float, high: float, kind: type = float, what: str = "") -> None:
    numbers = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, numbers) or not low <= value <= high:  # NaN is in no range
        number = "a number" if kind is float else "an integer"
        also = f", or -1 ({_MINUS_ONE[name][0]})" if name in _MINUS_ONE else ""
        raise OptionError(f"{what}`{name}` is {shown_value(value)}; it must be {number} from {_plain(low)} to {_plain(high)}{also}")


def _check_switch(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"`{name}` is {shown_value(value)}; it must be true or false")


def shown_value(value: object, most: int = 200) -> str:
    """A value for people, in `most` characters; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


@dataclass(frozen=True)
class LoadOptions:
    """How to open a checkpoint. None means: decide from the checkpoint and the machine."""

    backend: str = "auto"
    residency: str = "auto"
    memory_bytes: int | None = None
    context: int | None = None  # tokens
    threads: int | None = None
    adapter: str | None = None  # index or name of a GPU
    gpu_layers: int | None = None  # on the GPU, if it and the CPU share the model; None: as many as fit
    gpu_memory_bytes: int | None = None  # of a GPU's memory that may be filled; None: most of what is free
    kv_type: str | None = None  # one of KV_TYPES; None: f32 where the weights are as precise, else f16
    sequences: int = 1  # that run at a time; all others wait
    kv_tokens: int | None = None  # that all of them have together in the KV cache, one context at least; None: just that
    follow_links: bool = False  # of a directory, also those that leave it
    ignore_keys: tuple[str, ...] = ()  # of the metadata, or of config.json, treated as absent
    cold_start: bool = False  # streamed experts: neither keep how often each is used, nor begin with those that were used most
    look_ahead: bool = False  # streamed experts: read what the next layer is likely to choose, while that pays
    residency_is_default: bool = False  # nobody named it for this model: "streamed" is for such as can be, others are "auto"

    @property
    def names_gpu(self) -> bool:
        """Whether a person asked for something that only a GPU can give."""
        return self.adapter is not None or self.gpu_layers is not None or self.gpu_memory_bytes is not None

    def __post_init__(self) -> None:
        _one_of("residency", self.residency, RESIDENCIES)
        if self.kv_type is not None:
            _one_of("kv_type", self.kv_type, KV_TYPES)
        _check("sequences", self.sequences, 1, 1024, int)
        for name, value, low, high in (("context", self.context, 1, 2**27), ("threads", self.threads, 1, 1024),
                ("memory", self.memory_bytes, 1, 2**60), ("kv_tokens", self.kv_tokens, 1, 2**31),
                ("gpu_layers", self.gpu_layers, 0, 2**16), ("gpu_memory", self.gpu_memory_bytes, 1, 2**60)):  # fmt: skip
            if value is not None:
                _check(name, value, low, high, int)
        if not isinstance(self.ignore_keys, tuple) or not all(isinstance(key, str) for key in self.ignore_keys):
            raise OptionError(f"`ignore_keys` is {shown_value(self.ignore_keys)}; it must be a list of names of keys")
        for name in ("cold_start", "look_ahead", "residency_is_default"):
            _check_switch(name, getattr(self, name))


class LoadArguments(TypedDict, total=False):
    """The keyword arguments of `lacewing.load`, all optional."""

    backend: str
    """"auto" takes a GPU that the model fits, else the CPU; or a backend's name, as `lacewing backends` shows them."""
    adapter: str | int | None
    """Which GPU, by index or name, as `lacewing backends` shows them."""
    residency: str
    """"lazy" pages weights in from the file, "eager" reads them into RAM, "streamed" keeps all in RAM except the experts, which are
    read from disk as the router selects them; "auto" decides by `memory`."""
    memory: str | int | None
    """Of RAM, bytes or "4GiB"; by default what is free."""
    context: int | None
    """Context size in tokens."""
    kv_type: str | None
    """Precision of the KV cache: "f16", "f32" or "q8_0"; by default f32 if the weights are as precise, else f16."""
    sequences: int
    """How many sequences run at a time, 1 by default."""
    kv_tokens: int | None
    """How many tokens all sequences have together in the KV cache; by default, and at least, one context's."""
    follow_links: bool
    """Follow links of a directory that lead out of it, for example to another disk; False by default."""
    ignore_keys: Sequence[str]
    """Keys of the metadata, or of config.json, that are treated as absent, such as those that this version does not know."""
    cold_start: bool
    """Streamed experts: keep no usage history and begin with empty slots; False by default: the most used ones come first."""
    look_ahead: bool
    """Streamed experts: also read what the next layer is likely to choose, while that is measured to pay; False by default."""
    threads: int | None
    gpu_layers: int | str | None
    """How many layers of a model that is shared out are on the GPU as a whole; "auto": as many as fit."""
    gpu_memory: str | int | None
    """As `memory`, of the GPU: bounds the part of the model that is there."""
    progress: Progress | None
    """Told `(what, done, total)` of long work."""


def make_load_options(options: dict[str, Any]) -> LoadOptions:
    """LoadOptions from the keyword arguments of `load`. Raises OptionError."""
    known = LoadArguments.__annotations__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(f"{unknown[0]!r} is not an option of load; there are {', '.join(known)}")
    found = {name: native(value) for name, value in options.items() if name != "progress"}
    ignored = found.get("ignore_keys")
    if isinstance(ignored, list):
        found["ignore_keys"] = tuple(ignored)
    adapter, memory, gpu_memory = (found.pop(name, None) for name in ("adapter", "memory", "gpu_memory"))
    found |= {"adapter": None if adapter is None else str(adapter), "gpu_layers": parse_layers(found.pop("gpu_layers", None))}
    return LoadOptions(memory_bytes=parse_bytes(memory), gpu_memory_bytes=parse_bytes(gpu_memory, "gpu_memory"), **found)


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0 takes the likeliest token, ties to the lowest id."""

    max_tokens: int | None = None  # None or -1: until a stop or the end of the context
    temperature: float = 0.8
    top_k: int = 40  # 0 or -1: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    repeat_penalty: float = 1.0  # 1: off; divides positive logits of tokens seen in the last repeat_window
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_window: int = 64  # tokens; -1: the whole context
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None or -1: from the operating system
    stop: tuple[str, ...] = ()
    logprobs: int = 0  # that many likeliest alternatives are reported with each token; 0: off
    ignore_eos: bool = False  # go on behind the tokens that end an answer
    repeat_guard: int = 640  # tokens that an answer may repeat itself for before it is ended (`text.streaming.RepeatGuard`); 0: off

    def __post_init__(self) -> None:
        for name, (_, meaning) in _MINUS_ONE.items():
            value = getattr(self, name)
            if isinstance(value, int) and value == -1:
                object.__setattr__(self, name, meaning)
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 0, 2**31, int)
        for name, low, high in (("temperature", 0, 100), ("top_p", 0, 1), ("min_p", 0, 1), ("repeat_penalty", 0.01, 100),
                                ("presence_penalty", -100, 100), ("frequency_penalty", -100, 100)):  # fmt: skip
            _check(name, getattr(self, name), low, high)
        for name, high in (("top_k", 2**31), ("repeat_window", 2**31), ("logprobs", 100), ("repeat_guard", 2**31)):
            _check(name, getattr(self, name), 0, high, int)
        _check_switch("ignore_eos", self.ignore_eos)
        if self.seed is not None:
            _check("seed", self.seed, 0, 2**63 - 1, int)
        self._check_collections()

    def _check_collections(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise OptionError(f"`logit_bias` is {shown_value(self.logit_bias)}; it must be a dict of token ids and numbers")
        if len(self.logit_bias) > 1024:
            raise OptionError(f"`logit_bias` has {len(self.logit_bias)} entries; at most 1024 are accepted")
        for token, bias in self.logit_bias.items():
            _check("logit_bias", token, 0, 2**31, int, "a token of ")
            _check("logit_bias", bias, -1e9, 1e9, what=f"the bias of token {token} in ")
        if not isinstance(self.stop, tuple | list) or len(self.stop) > 16:
            raise OptionError("`stop` must be a list of at most 16 strings")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= 256:
                raise OptionError(f"a string of `stop` is {shown_value(text)}; it must be text of 1 to 256 characters")


class SamplingArguments(TypedDict, total=False):
    """The keyword arguments of `generate`, `stream` and `chat`: the fields of `Sampling`, all optional."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    repeat_window: int
    logit_bias: Mapping[int, float]
    seed: int | None
    stop: str | Sequence[str]
    logprobs: int
    ignore_eos: bool
    repeat_guard: int


def native(value: Any) -> Any:
    """A number of NumPy as Python's own; anything else as it is."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () else value


def make_sampling(options: dict[str, Any]) -> Sampling:
    """A Sampling from keyword options; `stop` may be one string or a list. Raises OptionError."""
    options = {name: native(value) for name, value in options.items()}
    known = [field.name for field in fields(Sampling)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise OptionError(f"{unknown[0]!r} is not a sampling option; known ones are {', '.join(known)}")
    stop = options.get("stop", ())
    if not isinstance(stop, (str, list, tuple, type(None))):
        raise OptionError("`stop` must be a string or a list of strings")
    options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if isinstance(options.get("logit_bias"), Mapping):
        options["logit_bias"] = {native(token): native(bias) for token, bias in options["logit_bias"].items()}
    return Sampling(**options)
