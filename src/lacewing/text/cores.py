"""Builds the `tokenizers` objects that cut and merge a user's text, from the parts that a GGUF file has.

Control tokens are given to the library under names that no text can spell, so that nothing a user writes becomes one;
markup is matched outside (`tokenizer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers as hf
from tokenizers import models, normalizers, pre_tokenizers

from lacewing.errors import TokenizerError
from lacewing.text.merges import derive_merges
from lacewing.text.pretokenizers import PreTokenizer
from lacewing.text.vocabulary import SPACE, TokenType, Vocabulary

_REACHABLE = (TokenType.NORMAL, TokenType.USER, TokenType.BYTE)


def byte_level(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], pre: PreTokenizer) -> hf.Tokenizer:
    """A GPT-2 style tokenizer: regexes, then bytes, then merges in the file's order."""
    core = hf.Tokenizer(_bpe(vocabulary, merges, ignore_merges=pre.whole_words))
    splits = [pre_tokenizers.Split(hf.Regex(regex), "isolated") for regex in pre.regexes]
    core.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return _with_user_tokens(core, vocabulary)


def sentencepiece(vocabulary: Vocabulary, scores: npt.NDArray[np.float64], *, unknown: int, prefix: bool) -> hf.Tokenizer:
    """A SentencePiece BPE tokenizer with byte fallback; its merges follow from the scores (V,).

    `prefix`: a space is put before every text, as the model was trained with.
    """
    ids = np.fromiter(vocabulary.ids.values(), np.int64, len(vocabulary.ids))  # unique pieces
    ids = ids[vocabulary.types[ids] == TokenType.NORMAL]
    if len(ids) and np.ptp(scores[ids]) == 0:
        scores = -np.arange(len(vocabulary), dtype=np.float64)  # the order was lost in conversion; ids are the best guess
    return raw_bpe(vocabulary, derive_merges(vocabulary.pieces, ids, scores[ids]), unknown=unknown, prefix=prefix)


def raw_bpe(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], *, unknown: int, prefix: bool) -> hf.Tokenizer:
    """BPE over characters with U+2581 for a space and byte fallback: SentencePiece, and Gemma 4 whose file has the merges."""
    core = hf.Tokenizer(_bpe(vocabulary, merges, unk_token=_name(vocabulary, unknown), fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", SPACE)
    core.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    if not _joins_words(vocabulary):
        # No piece holds a space after another character, so a cut there changes no id; it makes the library's word cache work.
        core.pre_tokenizer = pre_tokenizers.Split(hf.Regex(f"{SPACE}*[^{SPACE}]+|{SPACE}+"), "isolated")
    return _with_user_tokens(core, vocabulary)


def _joins_words(vocabulary: Vocabulary) -> bool:
    """Whether some piece that merges can build has a space after another character."""
    suspects = (piece for piece in vocabulary.pieces if SPACE in piece and SPACE in piece.lstrip(SPACE))
    return any(vocabulary.types[vocabulary.ids[piece]] in _REACHABLE for piece in suspects)


def _name(vocabulary: Vocabulary, token: int) -> str:
    """The name under which the library knows an id; of control tokens one that no text has, as it starts with NUL."""
    return (
        f"\0token {token}" if vocabulary.types[token] not in _REACHABLE or token in vocabulary.guarded else vocabulary.pieces[token]
    )


def _bpe(vocabulary: Vocabulary, merges: Sequence[tuple[str, str]], **options: Any) -> models.BPE:
    names = dict(vocabulary.ids)
    for token in [*np.flatnonzero(~np.isin(vocabulary.types, _REACHABLE)).tolist(), *vocabulary.guarded]:
        if names.pop(vocabulary.pieces[token], None) is not None:
            names[_name(vocabulary, token)] = token
    try:
        return models.BPE(names, merges, **options)
    except Exception:  # the library raises plain Exception for a merge of unknown pieces
        merges = [(a, b) for a, b in merges if a in names and b in names and a + b in names]
    try:
        return models.BPE(names, merges, **options)
    except Exception as error:
        raise TokenizerError(f"the vocabulary and merges do not make a tokenizer: {error}") from error


def _with_user_tokens(core: hf.Tokenizer, vocabulary: Vocabulary) -> hf.Tokenizer:
    """User-defined tokens (runs of spaces or newlines, tags) are found in raw text before anything else."""
    texts = [vocabulary.pieces[token] for token in vocabulary.of_type(TokenType.USER) if token not in vocabulary.guarded]
    core.add_tokens([hf.AddedToken(text, special=False, normalized=False) for text in texts if text])
    return core
