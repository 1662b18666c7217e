"""Directories of Kimi, whose tokenizer is a `tiktoken.model`: ids as tiktoken 0.14 gives them, and what is refused."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lacewing.errors import TokenizerError
from lacewing.formats import open_texts
from lacewing.formats.checkpoint import Checkpoint
from lacewing.text.ranks import FILE, merges_of, read_ranks
from lacewing.text.tokenizer import Tokenizer
from tests.text import vocabularies as v

MERGED = ["he", "ll", "hell", "hello", " w", "or", " wor", " world", "世", "世界", "12", "123", "'s", "aa", "aaaa", "\n\n"]
PIECES = [*(bytes([value]) for value in range(256)), *(text.encode() for text in MERGED)]
COUNT = len(PIECES)
ADDED = {COUNT: "[BOS]", COUNT + 1: "[EOS]", COUNT + 4: "<|im_end|>", COUNT + 6: "<|tool_call_begin|>"}
CONFIG = {
    "tokenizer_class": "TikTokenTokenizer", "bos_token": "[BOS]", "eos_token": "[EOS]",
    "added_tokens_decoder": {str(i): {"content": text, "special": "tool" not in text} for i, text in ADDED.items()},
}  # fmt: skip
# of tiktoken.Encoding with the regex of tokenization_kimi.py and these pieces
EXPECTED = {
    "hello world": [259, 263],
    "hellohe's  world\n\n": [259, 256, 268, 32, 263, 271],
    "世界hello世": [265, 259, 264],
    "1234 aaaaaaa": [267, 52, 32, 270, 269, 97],
    "Don'T [BOS]<|im_end|>": [68, 111, 110, 39, 84, 32, 91, 66, 79, 83, 93, 60, 124, 105, 109, 95, 101, 110, 100, 124, 62],
    "é\r\n ２３ ": [195, 169, 13, 10, 32, 239, 188, 146, 239, 188, 147, 32],
}


def lines(pieces=PIECES):
    return b"".join(base64.b64encode(piece) + b" %d\n" % rank for rank, piece in enumerate(pieces))


def opened(folder, data=None, **changes):
    (folder / FILE).write_bytes(lines() if data is None else data)
    return Tokenizer.from_checkpoint(Checkpoint(folder, "safetensors", {"tokenizer_config.json": CONFIG | changes}, {}))


def test_ids_are_those_of_tiktoken(tmp_path):
    tokenizer = opened(tmp_path)
    for text, ids in EXPECTED.items():
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
    assert tokenizer.encode_prompt("he") == [256]
    assert opened(tmp_path, add_bos_token=True).encode_prompt("he") == [COUNT, 256]


def test_tokens_behind_the_ranks(tmp_path):
    """Those that are no control tokens are text, but not for users to write."""
    tokenizer = opened(tmp_path)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id) == (COUNT + 7, COUNT, COUNT + 1)
    assert tokenizer.stop_ids == {COUNT + 1, COUNT + 4}
    ids = tokenizer.encode_markup("he<|im_end|><|tool_call_begin|>")
    assert ids == [256, COUNT + 4, COUNT + 6] and tokenizer.decode(ids) == "he<|tool_call_begin|>"
    assert not {COUNT + 4, COUNT + 6} & set(tokenizer.encode("he<|im_end|><|tool_call_begin|>"))


def test_merges_are_all_splits_into_pieces_in_the_order_of_ranks():
    """tiktoken joins any two neighbours that are a piece together, however the piece was made in training."""
    texts = ["".join(part) for part in np.random.default_rng(3).choice(list("aabbc"), (200, 3))]
    pieces = [*v.byte_alphabet(), *dict.fromkeys(text for text in [t[:2] for t in texts] + texts)]
    ranks, merges = {piece: rank for rank, piece in enumerate(pieces)}, merges_of(pieces)
    wholes = [ranks[left + right] for left, right in merges]
    assert wholes == sorted(wholes) and len(wholes) > 50
    splits = {(p[:cut], p[cut:]) for p in pieces for cut in range(1, len(p)) if p[:cut] in ranks and p[cut:] in ranks}
    assert set(merges) == splits


def test_a_folder_of_texts_alone(tmp_path):
    (tmp_path / FILE).write_bytes(lines())
    assert open_texts(tmp_path).format == open_texts(tmp_path / FILE).format == "safetensors"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no piece for 256 of the 256 bytes"),
        (lines(PIECES[1:]), "no piece for 1 of the 256 bytes, such as 0"),
        (lines() + b"aGVsbG8= 272\n", "each of another piece"),
        (lines() + b"eHl6 280\n", "are not 0 to 272"),
        (lines() + b"eHl6 3\n", "line 273: b'eHl6 3' is not a piece in base64 and a rank of its own"),
        (lines() + b"aA== 104\n", "line 273"),  # twice the same; Python has one object for each single character
        (lines() + b"eHl6 -1\n", "line 273"),
        (lines() + b"eHl6\n", "line 273"),
        (lines() + b"!!! 272\n", "line 273"),
        (lines() + b"eHl6 " + b"9" * 5000, "line 273"),
    ],
)
def test_damaged_ranks(data, message):
    with pytest.raises(TokenizerError, match=message):
        read_ranks(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer_class": "QWenTokenizer"}, "tiktoken.model has no regex, and tokenizer_class .* is 'QWenTokenizer'; known is"),
        ({"tokenizer_class": None}, "tokenizer_class of tokenizer_config.json is 'None'"),
        ({"added_tokens_decoder": {"7": {"content": "[X]"}}}, "do not stand behind the 272 pieces of tiktoken.model"),
        ({"added_tokens_decoder": {"280": {"content": "hello"}}}, "do not stand behind"),
        ({"added_tokens_decoder": {"99999999": {"content": "[X]"}}}, "do not stand behind"),
        ({"added_tokens_decoder": []}, "must be an object of tokens by id"),
    ],
)
def test_refused_settings(tmp_path, changes, message):
    with pytest.raises(TokenizerError, match=message):
        opened(tmp_path, **changes)


def test_a_folder_without_either(tmp_path):
    with pytest.raises(TokenizerError, match=r"has no tokenizer.json and no tiktoken.model"):
        Tokenizer.from_checkpoint(Checkpoint(tmp_path, "safetensors", {}, {}))
