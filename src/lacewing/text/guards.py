"""What a stranger's `tokenizer.json` could do to the tokenizers library: hang it, fill the memory, or make it panic."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lacewing.errors import LacewingError, TokenizerError

MAX_REGEX = 1 << 16
MAX_GROWTH = 64  # characters that the steps together may make of one; models use 1
_STEPS = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Strip", "StripAccents", "Nmt", "BertNormalizer", "ByteLevel"))
# The name as it stands in the file, or letters written as numbers, which could spell it; no known writer does that.
_SUSPICIOUS = re.compile(rb'"Precompiled"|(?<!\\)(?:\\\\)*\\u00[4-7][0-9a-fA-F]')
_TOKEN = re.compile(r"\\.|\[(?:\^?\]|\\.|\[[^\]]*\]|[^\]\\])*\]|\((?:\?[^)(]*?[:=!>])?|\)|[*+][+?]?|\{\d*,?\d*\}[+?]?|.", re.DOTALL)


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Around a call of the library. Its failures become a TokenizerError that names `what`."""
    try:
        yield
    except (LacewingError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{what}: {str(error)[:300]}") from error


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
    for step in flat(stage):
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


def flat(stage: Any) -> list[dict[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, sequences unrolled."""
    if not isinstance(stage, dict):
        return []
    inner = next((stage[key] for key in ("normalizers", "pretokenizers", "decoders") if isinstance(stage.get(key), list)), None)
    if inner is None or stage.get("type", "Sequence") != "Sequence":  # the library ignores keys that a step does not have
        return [stage]
    return [step for each in inner for step in flat(each)]


def check_regexes(stages: Any) -> None:
    """Looks through the JSON of a tokenizer's stages for `{"Regex": ...}`. TokenizerError for one that is refused."""
    for regex in _found(stages):
        if len(regex) > MAX_REGEX:
            raise TokenizerError(f"tokenizer.json has a regular expression of {len(regex)} characters")
        if repeats_a_repeat(regex):
            raise TokenizerError(f"tokenizer.json has a regular expression that can take exponential time: {regex[:80]!r}")


def repeats_a_repeat(regex: str) -> bool:
    """Whether an unbounded repetition is applied to a group that holds one, as in `(a+)+`, possessive ones left aside."""
    unbounded = [False]  # one entry an open group: whether it holds an unbounded repetition
    closed = False  # whether the item just read is a group that holds one
    for token in _TOKEN.findall(regex):
        if token.startswith("("):
            unbounded.append(False)
            closed = False
        elif token == ")":
            closed = unbounded.pop() if len(unbounded) > 1 else False
            unbounded[-1] |= closed
        elif _is_unbounded(token):
            if closed:
                return True
            unbounded[-1] |= not (len(token) > 1 and token.endswith("+"))
            closed = False
        else:
            closed = False
    return False


def _is_unbounded(token: str) -> bool:
    return token[0] in "*+" or (token[0] == "{" and token.rstrip("+?").endswith(",}"))


def _found(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "Regex" and isinstance(inner, str):
                yield inner
            else:
                yield from _found(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _found(inner)
