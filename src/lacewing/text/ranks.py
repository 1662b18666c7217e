"""Vocabularies as tiktoken stores them: a piece in base64 and its rank, which is its id, on each line. Kimi's `tiktoken.model`."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lacewing.errors import TokenizerError
from lacewing.text.merges import Merges, derive_merges
from lacewing.text.pretokenizers import PreTokenizer, pre_tokenizer
from lacewing.text.vocabulary import MAX_PIECES, byte_alphabet

FILE = "tiktoken.model"
# The regex is not in the file, but in the makers' code, which the class names: in tokenizer_config.json, and the name by GGUF.
_CLASSES = {"TikTokenTokenizer": "kimi-k2"}
_SPELT = {value: letter for letter, value in byte_alphabet().items()}


def pre_tokenizer_of(config: Mapping[str, Any]) -> PreTokenizer:
    """By tokenizer_config.json. TokenizerError for a class that is not known, as a guess would give wrong ids."""
    name = config.get("tokenizer_class")
    if not isinstance(name, str) or name not in _CLASSES:
        raise TokenizerError(
            f"{FILE} has no regex, and tokenizer_class of tokenizer_config.json is {str(name)[:40]!r}; known is "
            f"{', '.join(_CLASSES)}. Use a directory with tokenizer.json, or a GGUF file"
        )
    return replace(pre_tokenizer(_CLASSES[name]), whole_words=True)


def read_ranks(data: bytes) -> list[str]:
    """Pieces by rank, spelt in the alphabet of byte-level vocabularies. TokenizerError for what is damaged or lacks a byte."""
    lines = data.split(b"\n")
    if len(lines) > MAX_PIECES:
        raise TokenizerError(f"{FILE} has {len(lines)} lines; at most {MAX_PIECES} are accepted")
    pieces: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            encoded, rank = line.split()
            piece = binascii.a2b_base64(encoded, strict_mode=True).decode("latin-1").translate(_SPELT)
            if not rank.isdigit() or int(rank) in pieces:
                raise ValueError
            pieces[int(rank)] = piece
        except ValueError:  # binascii's own, too
            raise TokenizerError(f"{FILE}, line {number}: {line[:40]!r} is not a piece in base64 and a rank of its own") from None
    known = set(pieces.values())
    if len(known) < len(pieces) or max(pieces, default=-1) != len(pieces) - 1:
        raise TokenizerError(f"the ranks of {FILE} are not 0 to {len(pieces) - 1}, each of another piece")
    missing = [value for value, letter in _SPELT.items() if letter not in known]
    if missing:
        raise TokenizerError(f"{FILE} has no piece for {len(missing)} of the 256 bytes, such as {missing[0]}")
    return [pieces[rank] for rank in range(len(pieces))]


def merges_of(pieces: list[str]) -> Merges:
    """Every split of a piece into two others; that of the lowest rank applies first."""
    ranks = np.arange(len(pieces))
    return derive_merges(pieces, ranks, -ranks.astype(np.float64))
