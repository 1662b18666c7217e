"""What a person chooses: how to load, how to sample, where the cache is. Frozen, checked when made."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from lacewing.errors import OptionError

Progress = Callable[[str, int, int], None]  # what is being done, done so far, in all

_SHOWN_PATH = 80  # characters of a path in an error about its form
RESIDENCIES = ("auto", "lazy", "eager")
CPU, GPU, REFERENCE = "cpu", "webgpu", "reference"  # backends that others name in messages and choices
KV_TYPES = ("f16", "f32", "q8_0")  # of the KV cache
_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "m": 10**6, "mb": 10**6, "g": 10**9, "gb": 10**9, "t": 10**12,
          "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip


def cache_dir() -> Path:
    """LACEWING_CACHE, or `lacewing` where this system keeps a user's caches. Not made here."""
    own = os.environ.get("LACEWING_CACHE")
    if own:
        return user_path(own, "LACEWING_CACHE: ").absolute()
    return user_folder("cache")


def user_folder(kind: str) -> Path:
    """Ours among a user's folders for "cache", "data", "state" or "config". Not made here. Raises OptionError without a home."""
    import platformdirs

    try:
        return Path(getattr(platformdirs, f"user_{kind}_dir")("lacewing", appauthor=False))
    except RuntimeError:
        raise OptionError("this user has no home folder; set HOME, or LACEWING_CACHE and LACEWING_SESSIONS") from None


def user_path(name: str | Path, what: str = "") -> Path:
    """The path that a person names, `~` being their home folder; it need not exist. `what` stands in front of an error.

    Raises OptionError for what no file can be called, and for what this system does not let be looked at.
    """
    try:
        path = Path(name) if os.path.lexists(name) else Path(name).expanduser()  # a file may be called ~draft.gguf
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
        return path
    except OSError as error:  # too long, links in a circle, a folder that may not be entered
        reason = error.strerror or str(error)
    except RuntimeError:  # ~nobody
        reason = "its home folder is not known"
    except ValueError:  # a null character, or half of one
        reason = "it has a character that no path has"
    shown = str(name)
    shown = shown if len(shown) <= _SHOWN_PATH else f"{shown[:_SHOWN_PATH]}..."
    raise OptionError(f"{what}{shown!r} cannot be used as a path: {reason}")


def mistral_magnitude() -> bool | None:
    """LACEWING_MISTRAL_MAGNITUDE: whether attention of Mistral Large 3 and Small 4 is scaled by the square of YaRN's magnitude.

    "apply", "skip", or nothing: as the makers say, or as transformers does. It is disputed: the makers' configuration of
    Large 3 says no, llama.cpp applies it to both, transformers to Small 4. Raises OptionError for another value.
    """
    value = os.environ.get("LACEWING_MISTRAL_MAGNITUDE", "")
    if value not in ("", "apply", "skip"):
        raise OptionError(f"LACEWING_MISTRAL_MAGNITUDE is {value!r}; it must be apply or skip")
    return None if not value else value == "apply"


def parse_bytes(text: str | int | None, what: str = "memory") -> int | None:
    """`"4GiB"`, `"800MB"`, `"1.5g"` or a number of bytes; None stays None. Raises OptionError, which names `what` it is."""
    if text is None or (isinstance(text, int) and not isinstance(text, bool) and text > 0):
        return text
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([a-zA-Z]*)\s*", str(text))
    unit = _UNITS.get(match.group(2).lower()) if match else None
    if match is None or unit is None or float(match.group(1)) * unit < 1:
        raise OptionError(f"{what} {text!r} is not a size; write for example 4GiB or 800MB")
    return int(float(match.group(1)) * unit)


def parse_layers(text: str | int | None) -> int | None:
    """A number of layers; "auto" or None: None. Raises OptionError."""
    if text is None or text == "auto":
        return None
    if isinstance(text, bool) or not re.fullmatch(r"\d{1,5}", str(text)):
        raise OptionError(f"gpu_layers is {text!r}; it must be a number of layers, or auto")
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


def _plain(bound: float) -> str:
    """A bound for people, whole numbers without an exponent."""
    return str(int(bound)) if bound == int(bound) else f"{bound:g}"


def _check(name: str, value: object, low: float, high: float, kind: type = float) -> None:
    numbers = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, numbers) or not low <= value <= high:  # NaN is in no range
        what = "a number" if kind is float else "an integer"
        raise OptionError(f"{name} is {_shown(value)}; it must be {what} from {_plain(low)} to {_plain(high)}")


def _shown(value: object) -> str:
    """A value for people; Python refuses to write integers of thousands of digits."""
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


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
    follow_links: bool = False  # of a directory, also those that leave it
    ignore_keys: tuple[str, ...] = ()  # of the metadata, or of config.json, taken for absent

    @property
    def names_gpu(self) -> bool:
        """Whether a person asked for something that only a GPU can give."""
        return self.adapter is not None or self.gpu_layers is not None or self.gpu_memory_bytes is not None

    def __post_init__(self) -> None:
        if self.residency not in RESIDENCIES:
            raise OptionError(f"residency is {self.residency!r}; it must be one of {', '.join(RESIDENCIES)}")
        if self.kv_type not in (None, *KV_TYPES):
            raise OptionError(f"kv_type is {self.kv_type!r}; it must be one of {', '.join(KV_TYPES)}")
        if self.context is not None:
            _check("context", self.context, 1, 2**27, int)
        if self.threads is not None:
            _check("threads", self.threads, 1, 1024, int)
        if self.memory_bytes is not None:
            _check("memory", self.memory_bytes, 1, 2**60, int)
        _check("sequences", self.sequences, 1, 1024, int)
        if not isinstance(self.ignore_keys, tuple) or not all(isinstance(key, str) for key in self.ignore_keys):
            raise OptionError(f"ignore_keys is {_shown(self.ignore_keys)}; it must be a list of names of keys")
        if self.gpu_layers is not None:
            _check("gpu_layers", self.gpu_layers, 0, 2**16, int)
        if self.gpu_memory_bytes is not None:
            _check("gpu_memory", self.gpu_memory_bytes, 1, 2**60, int)


class LoadArguments(TypedDict, total=False):
    """The keyword arguments of `lacewing.load`, all optional."""

    backend: str
    """"auto" takes a GPU that the model fits, else the CPU; or a backend's name, as `lacewing backends` shows them."""
    adapter: str | int | None
    """Which GPU, by index or name, as `lacewing backends` shows them."""
    residency: str
    """"lazy" pages weights in from the file, "eager" reads them into RAM, "auto" decides by `memory`."""
    memory: str | int | None
    """Of RAM, bytes or "4GiB"; by default what is free."""
    context: int | None
    """Context size in tokens."""
    kv_type: str | None
    """Precision of the KV cache: "f16", "f32" or "q8_0"; by default f32 if the weights are as precise, else f16."""
    sequences: int
    """How many sequences run at a time, 1 by default; together they have the context's tokens."""
    follow_links: bool
    """Follow links of a directory that lead out of it, for example to another disk; False by default."""
    ignore_keys: Sequence[str]
    """Keys of the metadata, or of config.json, that are taken for absent, such as those that this version does not know."""
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
    return LoadOptions(
        adapter=None if adapter is None else str(adapter),
        memory_bytes=parse_bytes(memory),
        gpu_layers=parse_layers(found.pop("gpu_layers", None)),
        gpu_memory_bytes=parse_bytes(gpu_memory, "gpu_memory"),
        **found,
    )


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. temperature 0 takes the likeliest token, ties to the lowest id."""

    max_tokens: int | None = None  # None: until a stop or the end of the context
    temperature: float = 0.8
    top_k: int = 40  # 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.05  # 0: off
    repeat_penalty: float = 1.0  # 1: off; divides positive logits of tokens seen in the last repeat_window
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repeat_window: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None  # None: from the operating system
    stop: tuple[str, ...] = ()
    logprobs: int = 0  # that many likeliest alternatives are reported with each token; 0: off

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            _check("max_tokens", self.max_tokens, 0, 2**31, int)
        for name, low, high in (("temperature", 0, 100), ("top_p", 0, 1), ("min_p", 0, 1), ("repeat_penalty", 0.01, 100),
                                ("presence_penalty", -100, 100), ("frequency_penalty", -100, 100)):  # fmt: skip
            _check(name, getattr(self, name), low, high)
        for name, high in (("top_k", 2**31), ("repeat_window", 2**31), ("logprobs", 100)):
            _check(name, getattr(self, name), 0, high, int)
        if self.seed is not None:
            _check("seed", self.seed, 0, 2**63 - 1, int)
        if not isinstance(self.logit_bias, Mapping):
            raise OptionError(f"logit_bias is {self.logit_bias!r}; it must be a dict of token ids and numbers")
        if len(self.logit_bias) > 1024:
            raise OptionError(f"logit_bias has {len(self.logit_bias)} entries; at most 1024 are accepted")
        for token, bias in self.logit_bias.items():
            _check("logit_bias token", token, 0, 2**31, int)
            _check(f"logit_bias of token {token}", bias, -1e9, 1e9)
        if not isinstance(self.stop, tuple | list) or len(self.stop) > 16:
            raise OptionError("stop must be a list of at most 16 strings")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= 256:
                raise OptionError(f"stop string {text!r} must be text of 1 to 256 characters")


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
        raise OptionError("stop must be a string or a list of strings")
    options["stop"] = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if isinstance(options.get("logit_bias"), Mapping):
        options["logit_bias"] = {native(token): native(bias) for token, bias in options["logit_bias"].items()}
    return Sampling(**options)
