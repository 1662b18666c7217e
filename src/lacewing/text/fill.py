"""The marks with which a model fills in the middle of a text: prefix, suffix, and where the middle begins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lacewing.text.tokenizer import Tokenizer

# By the end of GGUF's key, the older name of it, and the spellings that models have.
_MARKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fim_pre": (
        "prefix",
        ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>"),
    ),
    "fim_suf": (
        "suffix",
        ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>"),
    ),
    "fim_mid": (
        "middle",
        ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>"),
    ),
    "fim_rep": ("", ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")),
    "fim_sep": ("", ("<|file_sep|>",)),
}


@dataclass(frozen=True)
class FillMarks:
    """Ids of tokens. `repository` and `file`: of models that read other files of a project as well."""

    prefix: int
    suffix: int
    middle: int
    repository: int | None = None
    file: int | None = None


def fill_marks(metadata: Mapping[str, Any], tokenizer: Tokenizer) -> FillMarks | None:
    """Of a checkpoint, by its metadata or its vocabulary; None: it was not trained for this."""
    found = {key: _token(metadata, tokenizer, key) for key in _MARKS}
    prefix, suffix, middle = (found[key] for key in ("fim_pre", "fim_suf", "fim_mid"))
    if prefix is None or suffix is None or middle is None:
        return None
    return FillMarks(prefix, suffix, middle, found["fim_rep"], found["fim_sep"])


def _token(metadata: Mapping[str, Any], tokenizer: Tokenizer, key: str) -> int | None:
    older, spellings = _MARKS[key]
    for name in (key, older):
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if name and isinstance(value, int) and 0 <= value < tokenizer.vocab_size:
            return value
    control = tokenizer.control_tokens
    return next((control[text] for text in spellings if text in control), None)
