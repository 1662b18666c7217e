"""Tokens as bytes, exactly as they are decoded; grammars see the same text as whoever reads the answer."""

from __future__ import annotations

import gc
import re
import sys
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.assistant.grammar.compiled import compile_grammar
from lacewing.assistant.grammar.source import Grammar
from lacewing.assistant.grammar.vocabulary import GrammarVocabulary
from lacewing.errors import GrammarError
from lacewing.formats import open_checkpoint
from lacewing.text.tokenizer import Tokenizer
from tests.assistant.grammar.walking import follows, kinds, walk

KINDS = kinds()


def text_of(tokenizer: Tokenizer, ids: list[int], start: bool = True) -> bytes:
    """By the bytes that grammars are told of."""
    later, first = tokenizer.text_bytes(), tokenizer.text_bytes(start=True)
    found = b""
    for token in ids:
        begins = start and tokenizer.strips_start and later[token]
        found += first[token] if begins else later[token]
        start = start and not later[token]
    return found


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_bytes_of_tokens_are_what_is_decoded(name, data):
    tokenizer = KINDS[name].tokenizer
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=12))
    for continuation in (False, True):
        found = text_of(tokenizer, ids, start=not continuation)
        assert found.decode("utf-8", "replace") == tokenizer.decode(ids, continuation=continuation)


@pytest.mark.parametrize("path", ["smollm2_path", "gemma3_path"])
def test_bytes_of_tokens_of_real_vocabularies(path, request):
    tokenizer = Tokenizer.from_checkpoint(open_checkpoint(request.getfixturevalue(path)))
    later = tokenizer.text_bytes()
    for token in range(0, tokenizer.vocab_size, 7):
        assert later[token].decode("utf-8", "replace") == tokenizer.decode([token], continuation=True)
    text = 'Grüße, 世界! {"a": [1, 2.5e3]}\n\n\tif x:  # 👩‍🚀'
    assert text_of(tokenizer, tokenizer.encode(text)).decode() == text


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_a_grammar_binds_the_text_that_is_read(name, start, seed):
    """Also one that begins with spaces, of which decoding drops one where encoding put one."""
    kind = KINDS[name]
    pattern = r"( ?|  )(h|he|hello|é|世|wor)( [a-z]{1,3}|\n\n\n| world){0,4} "
    compiled = compile_grammar(Grammar.regex(pattern), kind.tokenizer, kind.size)
    ids, ended = walk(compiled, kind, seed, start=start)
    text = kind.tokenizer.decode(ids, continuation=not start)
    assert ended and re.fullmatch(pattern, text)
    assert follows(compiled, kind, ids, start)


def test_the_space_that_encoding_puts_in_front_is_none_of_the_answer():
    kind = KINDS["spm"]
    vocabulary = kind.tokenizer
    spaced, plain = (vocabulary.encode_segments([(text, False)]) for text in ("hello", "xhello"))
    assert vocabulary.text_bytes()[spaced[0]] == b" hello" and vocabulary.text_bytes(start=True)[spaced[0]] == b"hello"
    compiled = compile_grammar(Grammar.regex("hello( hello)?"), kind.tokenizer, kind.size)
    assert follows(compiled, kind, spaced) and follows(compiled, kind, plain[-1:]) and follows(compiled, kind, spaced * 2)
    assert not follows(compiled, kind, spaced, start=False) and follows(compiled, kind, plain[-1:], start=False)
    exact = compile_grammar(Grammar.regex(" hello"), kind.tokenizer, kind.size)
    assert not follows(exact, kind, spaced) and follows(exact, kind, spaced, start=False)


@pytest.mark.parametrize("name", KINDS)
def test_control_tokens_are_no_text_but_can_be_named(name):
    kind = KINDS[name]
    control = kind.tokenizer.control_tokens
    begin = control["<|im_start|>" if "<|im_start|>" in control else "<s>"]
    compiled = compile_grammar(Grammar.lark(f"start: <[{begin}]> /(?s:.)*/"), kind.tokenizer, kind.size)
    mask = compiled.follow(kind.tokenizer.stop_ids).mask()
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
    assert np.flatnonzero(bits).tolist() == [begin]
    constraint = compiled.follow(kind.tokenizer.stop_ids)
    assert constraint.accept(begin)
    bits = np.unpackbits(constraint.mask().view(np.uint8), bitorder="little")
    added = kind.tokenizer.text_bytes()
    for token in range(len(bits)):  # any text, but no control token, padding, or byte that is in no text
        text = token < len(added) and added[token] and not added[token].startswith(b"\xff")
        assert not bits[token] or text or token in kind.tokenizer.stop_ids, token
    ids = kind.tokenizer.encode("hello wé")
    assert follows(compiled, kind, [begin, *ids])


def test_a_stop_id_that_the_grammar_names_comes_where_it_stands():
    kind = KINDS["bytes"]
    (end, *_) = sorted(kind.tokenizer.stop_ids)
    compiled = compile_grammar(Grammar.lark(f'start: "a" <[{end}]> "b"'), kind.tokenizer, kind.size)
    (a,), (b,) = kind.tokenizer.encode("a"), kind.tokenizer.encode("b")
    assert follows(compiled, kind, [a, end, b]) and not follows(compiled, kind, [a, b])
    assert not follows(compiled, kind, [a])


def test_of_a_request_that_ignores_its_end_the_grammar_ends_it():
    kind = KINDS["bytes"]
    compiled = compile_grammar(Grammar.regex("a*"), kind.tokenizer, kind.size)
    constraint = compiled.follow(kind.tokenizer.stop_ids)
    assert not constraint.stopped() and constraint.accept(min(kind.tokenizer.stop_ids)) and constraint.stopped()


def test_vocabularies_go_with_their_tokenizer():
    kind = kinds()["spm"]
    compiled = compile_grammar(Grammar.regex("a+"), kind.tokenizer, kind.size)
    compiled.follow(frozenset({1}))
    held = [weakref.ref(each) for each in (kind.tokenizer, compiled.vocabulary, compiled)]
    del kind, compiled
    gc.collect()
    assert [each() for each in held] == [None] * 3


def test_vocabularies_are_made_once():
    kind = kinds()["bytes"]
    first = GrammarVocabulary.of(kind.tokenizer, kind.size)
    assert GrammarVocabulary.of(kind.tokenizer, kind.size) is first and first.view(True) is first.view(False)
    grammar = Grammar.regex("a+")
    compiled = compile_grammar(grammar, kind.tokenizer, kind.size)
    assert compile_grammar(Grammar.regex("a+"), kind.tokenizer, kind.size) is compiled
    for number in range(70):
        compile_grammar(Grammar.regex(f"a{{{number}}}b"), kind.tokenizer, kind.size)
    assert compile_grammar(grammar, kind.tokenizer, kind.size) is not compiled


def test_the_library_that_is_missing_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    kind = kinds()["bytes"]
    with pytest.raises(
        GrammarError, match=r"needs? llguidance.* pip install 'lacewing\[grammar\]' \(in a clone: .*\.\[grammar\]'\)"
    ):
        compile_grammar(Grammar.regex("a"), kind.tokenizer, kind.size)
