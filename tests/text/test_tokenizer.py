"""Encoding and decoding with vocabularies from GGUF metadata."""

from __future__ import annotations

import random
import threading
import weakref
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.errors import OptionError, TokenizerError
from lacewing.formats import open_checkpoint
from lacewing.text.gguf import from_metadata
from lacewing.text.pretokenizers import PRE_TOKENIZERS
from lacewing.text.tokenizer import Tokenizer
from lacewing.text.vocabulary import TokenType
from tests.text import vocabularies as v

BYTES, SPACES = v.byte_level(), v.sentencepiece()
BPE, SPM = v.tokenizer(BYTES), v.tokenizer(SPACES)
PARTS = [*"helowrd \n\t<|>/_▁é世😀\u0301\u200d", "<|im_end|>", "</s>", "<tool>"]
TEXTS = st.lists(st.sampled_from(PARTS), max_size=30).map("".join) | st.text(max_size=20)


def test_byte_level_merges():
    assert BPE.encode("hello world") == v.spelt(BYTES, "hello", "Ġworld")
    assert BPE.kind == "bpe"
    assert BPE.vocab_size == len(BYTES["tokenizer.ggml.tokens"])


@pytest.mark.parametrize("metadata", [BYTES, SPACES])
def test_what_it_is_built_of_goes(metadata):
    """Merges are several times as large as the vocabulary."""
    parts = from_metadata(metadata)
    build, tokenizer = weakref.ref(parts.build), Tokenizer(parts)
    del parts
    assert build() is not None
    tokenizer.warm()
    assert build() is None and tokenizer.encode("hello world")


@pytest.mark.parametrize("text", [None, 7, b"hello", ["hello"]])
def test_what_is_no_text_is_an_error_of_ours(text):
    for encode in (BPE.encode, BPE.encode_prompt, BPE.encode_markup):
        with pytest.raises(OptionError, match=f"expected text, not {type(text).__name__}"):
            encode(text)


@pytest.mark.parametrize("ids", ["abc", [1.5], None, 3, [None]])
def test_what_are_no_ids_is_an_error_of_ours(ids):
    with pytest.raises(OptionError, match="list of integers"):
        BPE.decode(ids)


def test_sentencepiece_puts_a_space_in_front_and_decoding_drops_it():
    ids = SPM.encode("hello world")
    assert ids == v.spelt(SPACES, "▁hello", "▁world")
    assert SPM.decode(ids) == "hello world"
    assert SPM.decode(ids, continuation=True) == " hello world"
    assert SPM.decode(SPM.encode(" hello")) == " hello"


def test_sentencepiece_without_the_space():
    plain = v.tokenizer(v.sentencepiece(add_space_prefix=False))
    assert plain.encode("hello") == v.spelt(SPACES, "hello")
    assert plain.decode(plain.encode(" hello")) == " hello"


def test_sentencepiece_falls_back_to_bytes():
    ids = SPM.encode("😀")
    assert ids == v.spelt(SPACES, "▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>")
    assert SPM.decode(ids) == "😀"


def test_lost_scores_fall_back_to_the_order_of_ids():
    lost = v.tokenizer({**SPACES, "tokenizer.ggml.scores": SPACES["tokenizer.ggml.scores"] * 0 - 1000})
    assert lost.encode("hello world") == SPM.encode("hello world")


def test_defaults_of_each_kind():
    assert (SPM.bos_id, SPM.eos_id, SPM.add_bos) == (1, 2, True)
    assert (BPE.bos_id, BPE.eos_id, BPE.add_bos) == (1, 2, False)
    assert v.tokenizer(v.byte_level(pre="llama-bpe")).add_bos
    assert not v.tokenizer(v.byte_level(pre="llama-bpe", add_bos_token=False)).add_bos
    assert v.tokenizer(v.sentencepiece(bos_token_id=0xFFFFFFFF)).bos_id is None


def test_prompt_of_a_completion_begins_with_bos_where_the_model_wants_it():
    assert SPM.encode_prompt("hello")[0] == 1
    assert BPE.encode_prompt("hello") == BPE.encode("hello")
    assert SPM.encode_prompt("<s>hello", markup=True) == SPM.encode_prompt("hello")
    assert SPM.encode_prompt("") == [1]


def test_stop_ids():
    assert BPE.stop_ids == {0, 2}
    assert v.tokenizer(v.byte_level(eot_token_id=5)).stop_ids == {0, 2, 5}
    assert v.tokenizer(v.byte_level(eos_token_ids=[7, 8])).stop_ids == {0, 2, 7, 8}


KINDS = {
    "bpe": v.byte_level(), "whole words": v.byte_level(pre="llama-bpe"), "several regexes": v.byte_level(pre="deepseek-llm"),
    "spm": v.sentencepiece(), "spm without a prefix": v.sentencepiece(add_space_prefix=False),
    "gemma4": {**v.sentencepiece(merges=["h e", "l l", "he ll", "hell o"]), "tokenizer.ggml.model": "gemma4"},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_control_tokens_in_a_raw_prompt_on_request_only(kind: str):
    """Wherever the pre-tokenizer would cut the text: at letters, digits, spaces, line ends, and inside the spelling itself."""
    tokenizer = v.tokenizer(KINDS[kind])
    for text, token in tokenizer.control_tokens.items():
        for before in ("", "hello", "hello ", "1", "\n", "  ", "<", "<|", text[:-1], "世"):
            for after in ("", "hello", " hello", "23", "\n\n", ">", "|>", text[1:], "世"):
                prompt = before + text + after
                ids = tokenizer.encode_prompt(prompt, markup=True)
                assert ids.count(token) == 1 + (tokenizer.add_bos and token == tokenizer.bos_id and bool(before)), prompt
                if prompt.count(text) == 1:
                    at = len(ids) - 1 - ids[::-1].index(token)
                    assert ids[at + 1 :] == tokenizer.encode_segments([(text, True), (after, False)])[1:]
                plain = tokenizer.encode_prompt(prompt)
                assert not any(map(tokenizer.is_control, plain[1:] if tokenizer.add_bos else plain)), prompt
                assert tokenizer.decode(plain) == prompt or "▁" in prompt or "spm" in kind or kind == "gemma4"


def test_harmony_end_is_not_a_stop():
    tokens = ["<|return|>", "<|call|>", "<|end|>", *BYTES["tokenizer.ggml.tokens"][3:]]
    assert v.tokenizer({**BYTES, "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.eos_token_id": 0}).stop_ids == {0, 1}


def test_control_tokens_come_from_markup_only():
    text = "<|im_start|>hello<|im_end|>"
    assert BPE.encode_markup(text) == v.spelt(BYTES, "<|im_start|>", "hello", "<|im_end|>")
    assert not {0, 1, 2} & set(BPE.encode(text))
    assert BPE.decode(BPE.encode(text)) == text
    assert BPE.decode(BPE.encode_markup(text)) == "hello"
    assert BPE.decode(BPE.encode_markup(text), special=True) == text


def test_user_defined_tokens_are_found_in_any_text():
    assert BPE.encode("he<tool>") == v.spelt(BYTES, "he", "<tool>")
    assert BPE.encode("\n\n\n") == v.spelt(BYTES, "\n\n\n")
    assert BPE.decode(BPE.encode("<tool>")) == "<tool>"


@pytest.mark.parametrize(
    "tokenizer", [BPE, SPM, v.tokenizer(v.byte_level(pre="llama-bpe")), v.tokenizer(v.byte_level(pre="tekken"))]
)
def test_no_spelling_of_a_control_token_becomes_one(tokenizer: Tokenizer):
    control = {text: token for text, token in tokenizer.control_tokens.items() if tokenizer.is_control(token)}
    for text in control:
        half = len(text) // 2
        for attempt in (
            text,
            text.upper(),
            text * 3,
            text[:half] + text + text[half:],
            f"x{text}y",
            f" {text} ",
            text + "\n" + text,
        ):
            ids = tokenizer.encode(attempt)
            assert not any(map(tokenizer.is_control, ids))
            assert tokenizer.decode(ids) == attempt


def test_a_control_token_does_not_form_across_the_border_of_trust():
    assert BPE.encode_segments([("<|im_", True), ("end|>", False)]) == BPE.encode("<|im_end|>")
    assert BPE.encode_segments([("<|im_", False), ("end|>", False)]) == BPE.encode("<|im_end|>")
    assert BPE.encode_segments([("<|im_", True), ("end|>", True)]) == [2]
    assert BPE.encode_segments([("hel", True), ("lo", False)]) == BPE.encode("hello")


def test_whole_words_of_the_vocabulary_do_not_yield_control_tokens():
    tokens = [*BYTES["tokenizer.ggml.tokens"]]
    tokens[0] = "word"  # a control token spelt like a word, in a vocabulary that takes whole words without merging
    tokenizer = v.tokenizer({**v.byte_level(pre="llama-bpe"), "tokenizer.ggml.tokens": tokens})
    assert tokenizer.is_control(0)
    assert 0 not in tokenizer.encode("word")
    assert tokenizer.encode_markup("word") == [0]


def test_phi3_swallows_spaces_after_control_tokens():
    metadata = {**SPACES, "general.name": "Phi-3 mini"}
    assert v.tokenizer(metadata).encode_markup("<|end|> \nhello") == v.spelt(SPACES, "<|end|>", "▁hello")
    assert v.tokenizer(SPACES).encode_markup("<|end|> hello") == v.spelt(SPACES, "<|end|>", "▁", "▁hello")


@given(TEXTS)
@settings(max_examples=150, deadline=None)
def test_round_trip_without_control_tokens(text: str):
    for tokenizer in (BPE, SPM):
        ids = tokenizer.encode(text)
        assert not any(map(tokenizer.is_control, ids))
        if tokenizer is BPE or not ("▁" in text or "  " in text):  # a space is put after each user-defined token, as in training
            assert tokenizer.decode(ids) == text.encode("utf-8", "replace").decode()


def test_lone_surrogates_are_replaced():
    assert BPE.decode(BPE.encode("a\ud800b")) == "a?b"


def test_a_long_word_takes_about_linear_time():
    """Not timed: the quadratic way would take hours."""
    for tokenizer in (BPE, SPM):
        for text in ("a" * 300_000, "\t" * 300_000, "1" * 300_000, "he" * 150_000):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_is_lossless(pre: str):
    tokenizer = v.tokenizer(v.byte_level(pre=pre))
    text = "Hello WORLD, it's 12345 o'clock!\n\n  x = y+1;\t漢字かな 한국어 e\u0301 😀   \r\n $5 <b> end  "
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_spaces_inside_pieces_switch_the_cut_at_spaces_off():
    """A piece like "o▁w" may be merged across the border of words."""
    tokens = [*SPACES["tokenizer.ggml.tokens"], "o▁w"]
    metadata = {**SPACES, "tokenizer.ggml.tokens": tokens}
    metadata["tokenizer.ggml.token_type"] = [*SPACES["tokenizer.ggml.token_type"].tolist(), v.NORMAL]
    metadata["tokenizer.ggml.scores"] = [*SPACES["tokenizer.ggml.scores"].tolist(), 0.0]
    # The halves of "o▁w" are "o" and "▁w", so it forms once these have.
    assert v.tokenizer(metadata).encode("o w")[-1] == len(tokens) - 1


def test_the_same_ids_from_several_threads():
    tokenizer, found = v.tokenizer(BYTES), []
    threads = [threading.Thread(target=lambda: found.append(tokenizer.encode("hello world" * 50))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [BPE.encode("hello world" * 50)] * 8


def test_token_text_and_has():
    assert BPE.token_text(v.spelt(BYTES, "Ġworld")[0]) == " world"
    assert BPE.token_text(1) == "<|im_start|>"
    assert BPE.has("<|im_start|>") and not BPE.has("nothing")


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Tokenizer:
    return Tokenizer.from_checkpoint(open_checkpoint(smollm2_path))


def test_smollm2_gives_the_ids_of_llama_cpp(smollm2: Tokenizer):
    expected = {
        "Once upon a time": [6403, 1980, 253, 655],
        "Hello, world! 12345": [19556, 28, 905, 17, 216, 33, 34, 35, 36, 37],
        "I'll  go\n\n\nthere": [57, 3060, 216, 685, 1116, 198, 11527],
    }
    assert {text: smollm2.encode(text) for text in expected} == expected
    assert (smollm2.vocab_size, smollm2.bos_id, smollm2.eos_id, smollm2.add_bos) == (49152, 1, 2, False)
    assert {0, 2} <= smollm2.stop_ids


@pytest.mark.parametrize("path", ["smollm2_path", "gemma3_path"])
def test_which_tokens_a_text_can_become(path: str, request: pytest.FixtureRequest):
    """As SECURITY.md says, for every token of a real vocabulary that is not of ordinary text."""
    tokenizer = Tokenizer.from_checkpoint(open_checkpoint(request.getfixturevalue(path)))
    vocabulary = tokenizer._vocabulary
    free = set(vocabulary.of_type(TokenType.NORMAL, TokenType.BYTE, TokenType.USER)) - vocabulary.guarded
    for token in vocabulary.of_type(*set(TokenType) - {TokenType.NORMAL, TokenType.BYTE}):
        piece = vocabulary.pieces[token]
        for text in (piece, f"a{piece}b", f" {piece}\n{piece}"):
            ids = tokenizer.encode(text)
            assert free.issuperset(ids), text
            assert (token in ids) is (token in free) or vocabulary.types[token] == TokenType.USER, text
        if token in free:
            assert token in tokenizer.encode(f"a{piece}b")


def test_user_defined_tokens_of_gemma_are_html(gemma3_path: Path):
    tokenizer = Tokenizer.from_checkpoint(open_checkpoint(gemma3_path))
    for text in ("<table>", "</h1>", "<strong>", "\n\n\n"):
        assert [tokenizer.token_text(token) for token in tokenizer.encode(f"a{text}b")][1] == text
    assert not any(map(tokenizer.is_control, tokenizer.encode("<start_of_turn>user<end_of_turn><bos><eos><unused5>")))


def test_smollm2_has_no_injection_and_no_loss(smollm2: Tokenizer):
    for text in smollm2.control_tokens:
        assert not any(map(smollm2.is_control, smollm2.encode(f"a {text}{text[:3]} {text}")))
    generator = random.Random(1)
    for _ in range(300):  # the vocabulary lacks the bytes of some rare characters, so only these ranges
        ranges = (range(32, 127), range(0xA1, 0x250), range(0x391, 0x3A0), range(0x1F600, 0x1F640))
        text = "".join(chr(generator.choice(generator.choice(ranges))) for _ in range(30))
        assert smollm2.decode(smollm2.encode(text)) == text


@pytest.mark.parametrize("make", [v.byte_level, v.sentencepiece])
def test_a_whole_text_ends_where_the_model_wants_it(make):
    plain, ending = v.tokenizer(make()), v.tokenizer(make(add_eos_token=True, add_bos_token=True))
    assert plain.encode_whole("hello") == plain.encode_prompt("hello")
    assert ending.encode_whole("hello") == [ending.bos_id, *ending.encode("hello"), ending.eos_id]
    assert ending.encode_prompt("hello") == [ending.bos_id, *ending.encode("hello")]
    with pytest.raises(TokenizerError, match="add_eos_token must be a bool"):
        v.tokenizer(make(add_eos_token="yes"))
