"""Refuses normalizers of a `tokenizer.json` that could make a short text so long that memory ends, and with it the process."""

from __future__ import annotations

import json
import re
from typing import Any

from lacewing.errors import TokenizerError

MAX_GROWTH = 64  # characters that the steps together may make of one; models use 1
_STEPS = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "BertNormalizer", "ByteLevel"))
# The name as it stands in the file, or letters written as numbers, which could spell it; no known writer does that.
_SUSPICIOUS = re.compile(rb'"Precompiled"|(?<!\\)(?:\\\\)*\\u00[4-7][0-9a-fA-F]')


def check_file(text: bytes) -> None:
    """Before the library reads the file: it trusts lengths within the table of a Precompiled normalizer. TokenizerError."""
    if not _SUSPICIOUS.search(text):
        return
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return  # the library says what is wrong
    check_steps(document.get("normalizer") if isinstance(document, dict) else None)


def check_steps(stage: Any) -> None:
    """The JSON of a normalizer. TokenizerError for a step that is not known, and for steps that make texts far longer."""
    growth = 1
    for step in _flat(stage):
        kind = step.get("type")
        if kind == "Replace":
            growth *= _growth(step)
        elif kind == "Prepend":
            growth *= 1 + len(str(step.get("prepend", "")))
        elif kind not in _STEPS:
            raise TokenizerError(f"tokenizer.json has a normalizer {str(kind)[:40]!r}, which is not supported")
    if growth > MAX_GROWTH:
        raise TokenizerError(
            f"tokenizer.json has a normalizer that makes texts up to {growth} times as long; {MAX_GROWTH} is allowed"
        )


def _growth(step: dict[str, Any]) -> int:
    """How many times as long a text may become by a replacement."""
    pattern, size = step.get("pattern"), len(str(step.get("content", "")))
    if isinstance(pattern, dict) and isinstance(pattern.get("String"), str):
        if not pattern["String"]:
            raise TokenizerError("tokenizer.json has a normalizer that replaces the empty text")
        return max(1, -(-size // len(pattern["String"])))
    return 1 + size  # a regular expression may match between characters


def _flat(stage: Any) -> list[dict[str, Any]]:
    """The steps of a stage, sequences unrolled."""
    if not isinstance(stage, dict):
        return []
    if isinstance(stage.get("normalizers"), list):
        return [step for inner in stage["normalizers"] for step in _flat(inner)]
    return [stage]
