"""Damaged or hostile tokenizer metadata is refused with a TokenizerError that names the key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import TokenizerError
from tests.text import vocabularies as v

SIZE = len(v.byte_level()["tokenizer.ggml.tokens"])
DAMAGED: list[tuple[str, dict[str, Any], str]] = [
    ("no tokenizer", {"model": None}, "no tokenizer"),
    ("unknown kind", {"model": "rwkv"}, "rwkv"),
    ("kind of a wrong type", {"model": 3}, "model"),
    ("unknown pre-tokenizer", {"pre": "none-such"}, "none-such"),
    ("no tokens", {"tokens": None}, "tokens"),
    ("empty vocabulary", {"tokens": [], "token_type": None}, "empty"),
    ("tokens of a wrong type", {"tokens": [1, 2], "token_type": None}, "tokens"),
    ("tokens is text", {"tokens": "abc", "token_type": None}, "tokens"),
    ("a huge token", {"tokens": ["a" * 70_000], "token_type": None}, "longer"),
    ("too few types", {"token_type": np.ones(3, np.int32)}, "token_type has 3"),
    ("types of one byte", {"token_type": np.ones(SIZE, np.uint8)}, "token_type"),
    ("float types", {"token_type": np.ones(SIZE, np.float32)}, "token_type"),
    ("types out of range", {"token_type": np.full(SIZE, 9, np.int32)}, "token_type"),
    ("negative types", {"token_type": np.full(SIZE, -1, np.int32)}, "token_type"),
    ("nested types", {"token_type": [[1, 2], [3]]}, "token_type"),
    ("no merges", {"merges": None}, "merges"),
    ("a merge of one part", {"merges": ["h e", "ab"]}, r"merges\[1\]"),
    ("merges of numbers", {"merges": [1]}, "merges"),
    ("bos outside", {"bos_token_id": SIZE}, "bos_token_id"),
    ("eos outside", {"eos_token_id": 2**31}, "eos_token_id"),
    ("negative eos", {"eos_token_id": -2}, "eos_token_id"),
    ("eos as text", {"eos_token_id": "2"}, "eos_token_id"),
    ("eos as bool", {"eos_token_id": True}, "eos_token_id"),
    ("eot outside", {"eot_token_id": SIZE}, "eot_token_id"),
    ("stop ids outside", {"eos_token_ids": [1, SIZE]}, "eos_token_ids"),
    ("add_bos of a wrong type", {"add_bos_token": 1}, "add_bos_token"),
]


@pytest.mark.parametrize(("changes", "names"), [row[1:] for row in DAMAGED], ids=[row[0] for row in DAMAGED])
def test_damaged_byte_level(changes: dict[str, Any], names: str):
    with pytest.raises(TokenizerError, match=names):
        v.tokenizer(v.byte_level(**changes))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"scores": np.zeros(3, np.float32)}, "scores has 3"),
        ({"scores": np.full(len(v.sentencepiece()["tokenizer.ggml.tokens"]), np.nan, np.float32)}, "finite"),
        ({"scores": np.zeros(len(v.sentencepiece()["tokenizer.ggml.tokens"]), np.uint8)}, "scores"),
        ({"unknown_token_id": 10**6}, "unknown_token_id"),
        ({"add_space_prefix": "yes"}, "add_space_prefix"),
    ],
)
def test_damaged_sentencepiece(changes: dict[str, Any], names: str):
    with pytest.raises(TokenizerError, match=names):
        v.tokenizer(v.sentencepiece(**changes))


@pytest.mark.parametrize("piece", ["<0x-1>", "<0xfg>", "<0x1>", "<0x100>", "0x10", "<0X10>"])
def test_byte_tokens_are_read_strictly(piece: str):
    metadata = v.sentencepiece()
    metadata["tokenizer.ggml.tokens"][3] = piece
    with pytest.raises(TokenizerError, match="type byte"):
        v.tokenizer(metadata)


def test_what_may_be_missing():
    metadata = {key: value for key, value in v.sentencepiece().items() if not key.endswith(("scores", "token_type"))}
    assert v.tokenizer(metadata).encode("hello")
    assert v.tokenizer(v.byte_level(pre=None)).encode("hello")
    assert v.tokenizer(v.byte_level(bos_token_id=None)).bos_id is None


def test_types_and_scores_as_plain_lists():
    metadata = v.sentencepiece()
    lists = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in metadata.items()}
    assert v.tokenizer(lists).encode("hello world") == v.tokenizer(metadata).encode("hello world")


def test_merges_of_unknown_pieces_are_left_out():
    metadata = v.byte_level(merges=["h e", "zz zz", "Q Q"])
    assert v.tokenizer(metadata).encode("heQQ") == v.spelt(metadata, "he", "Q", "Q")


def test_repeated_and_empty_pieces():
    tokens = [*v.byte_level()["tokenizer.ggml.tokens"]]
    tokens[-1] = ""
    tokens[-3] = "he"
    tokenizer = v.tokenizer({**v.byte_level(), "tokenizer.ggml.tokens": tokens})
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"


VALUES: list[Any] = [
    *(None, True, -1, 0, 3, 2**31, 2**63, 1.5, float("nan"), "", "a", "gpt2", "llama", "gemma4", "default", {}, b"a"),
    *([], [1], ["a"], ["a", "a"], [""], ["a b", " "], [None], [[1]], ["<0x41>"] * SIZE),
    *(np.zeros(0), np.zeros(3), np.zeros((2, 2)), np.array(3), np.zeros(SIZE, np.int64), np.zeros(SIZE, np.float64)),
    *(np.full(SIZE, value, np.int32) for value in (3, 4, 6)),
    np.full(SIZE, np.inf, np.float32),
]
KEYS = [
    *v.byte_level(),
    *v.sentencepiece(),
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eos_token_ids",
    "tokenizer.ggml.unknown_token_id",
]


@given(st.booleans(), st.dictionaries(st.sampled_from(KEYS), st.sampled_from(range(len(VALUES))), min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_mixture_works_or_is_refused(bytes_kind: bool, changes: dict[str, int]):
    metadata = {**(v.byte_level() if bytes_kind else v.sentencepiece()), **{key: VALUES[i] for key, i in changes.items()}}
    try:
        tokenizer = v.tokenizer(metadata)
        ids = tokenizer.encode("hello <|im_end|> wörld")
        tokenizer.encode_markup("hello <|im_end|> wörld")
        tokenizer.decode(ids)
        tokenizer.decode(list(range(tokenizer.vocab_size)), special=True)
    except TokenizerError:
        pass
    else:
        assert all(0 <= token < tokenizer.vocab_size for token in ids)
        assert not any(map(tokenizer.is_control, ids))
