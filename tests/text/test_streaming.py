"""Ids to text one by one, and stop strings wherever a text is cut."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing import load_tokenizer
from lacewing.errors import OptionError, TokenizerError
from lacewing.options import Sampling
from lacewing.text.streaming import RepeatGuard, StopStrings
from lacewing.text.tokenizer import Tokenizer
from tests.text import vocabularies as v
from tests.timing import in_time, timely

BPE, SPM = v.tokenizer(v.byte_level()), v.tokenizer(v.sentencepiece())


def deltas(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    stream = tokenizer.stream(**options)
    return [*map(stream.push, ids), stream.flush()]


@given(st.data(), st.booleans(), st.booleans())
@settings(max_examples=300, deadline=None)
def test_deltas_are_the_whole_text_and_never_half_a_character(data: st.DataObject, special: bool, continuation: bool):
    for tokenizer in (BPE, SPM):
        ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
        parts = deltas(tokenizer, ids, special=special, continuation=continuation)
        assert "".join(parts) == tokenizer.decode(ids, special=special, continuation=continuation)
        "".join(parts).encode()  # no surrogates


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_a_character_comes_in_one_delta(text: str):
    """Every delta ends where a character of the text ends."""
    for tokenizer in (BPE, SPM):
        text = text.replace("▁", "").replace("  ", "")
        parts = deltas(tokenizer, tokenizer.encode(text))
        assert "\ufffd" in text or "\ufffd" not in "".join(parts)
        assert "".join(parts) == text


def test_incomplete_characters_are_held_back():
    ids = SPM.encode("😀")[1:]
    assert deltas(SPM, ids) == ["", "", "", "😀", ""]
    assert deltas(SPM, ids[:3]) == ["", "", "", "\ufffd"]
    assert deltas(SPM, [*ids[:2], *SPM.encode("hello")], continuation=True) == ["", "", "\ufffd hello", ""]


def test_stray_bytes_become_replacement_characters():
    stray = v.spelt(v.sentencepiece(), "<0xFF>")
    assert SPM.decode(stray * 3, continuation=True) == "\ufffd" * 3


def test_control_tokens_are_silent_unless_asked_for():
    assert deltas(BPE, [1, *BPE.encode("hello"), 2]) == ["", "hello", "", ""]
    assert "".join(deltas(BPE, [1, *BPE.encode("hello"), 2], special=True)) == "<|im_start|>hello<|im_end|>"


def test_the_space_of_the_encoder_goes_only_at_the_start():
    assert "".join(deltas(SPM, [1, *SPM.encode("hello"), *SPM.encode("world")])) == "hello world"
    assert SPM.decode(SPM.encode("  ")) == "  "


@pytest.mark.parametrize("token", [-1, 10**6])
def test_ids_outside_the_vocabulary_are_refused(token: int):
    with pytest.raises(TokenizerError, match="outside the vocabulary"):
        BPE.decode([token])


TEXT = st.text("abc", max_size=40)


def shown(stops: list[str], deltas: list[str]) -> tuple[str, str | None]:
    guard = StopStrings(stops)
    text = "".join(map(guard.push, deltas)) + guard.flush()
    return text, guard.hit


@given(st.lists(st.text("abc", min_size=1, max_size=5), max_size=4), TEXT, st.lists(st.integers(0, 40), max_size=8))
@settings(max_examples=500, deadline=None)
def test_however_the_text_is_cut(stops: list[str], text: str, cuts: list[int]):
    first = min((text.find(stop) for stop in stops if stop in text), default=-1)
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    deltas = [text[a:b] for a, b in pairwise(edges)]
    result, hit = shown(stops, deltas)
    assert result == (text if first < 0 else text[:first])
    assert (hit is None) == (first < 0)
    assert hit is None or text.startswith(hit, first)


@given(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4), TEXT)
@settings(max_examples=200, deadline=None)
def test_no_more_is_held_back_than_could_begin_a_stop(stops: list[str], text: str):
    guard = StopStrings(stops)
    so_far = "".join(map(guard.push, text))
    if guard.hit is None:
        held = text[len(so_far) :]
        assert held == "" or any(stop.startswith(held) for stop in stops) or any(stop in held for stop in stops)


def test_nothing_comes_after_a_stop():
    guard = StopStrings(["END"])
    assert [guard.push(part) for part in ("text E", "N", "D more", "and more")] == ["text ", "", "", ""]
    assert (guard.flush(), guard.hit) == ("", "END")


def test_a_start_that_does_not_become_a_stop_is_shown():
    guard = StopStrings(["END"])
    assert guard.push("EN") == ""
    assert guard.push("X") == "ENX"
    assert guard.push("E") + guard.flush() == "E"


@pytest.mark.parametrize("stops", [[""], ["x"] * 33, ["x" * 257], [3]])
def test_bounds(stops: list[str]):
    with pytest.raises(OptionError, match="stop"):
        StopStrings(stops)


def test_one_string_stands_for_itself():
    assert shown("END", ["aEND"]) == ("a", "END")  # type: ignore[arg-type]


def guard(limit=640, decode=lambda ids: "words"):
    return RepeatGuard(limit, decode)


def fired(ids, limit=640, decode=lambda ids: "words"):
    """After how many tokens; None: never."""
    watch = guard(limit, decode)
    return next((count for count, token in enumerate(ids, 1) if watch.push(token)), None)


@pytest.mark.parametrize("period", [1, 2, 3, 7, 16, 17, 100, 256])
def test_what_repeats_itself_is_noticed(period):
    """Within 16 tokens of its due, whatever came before."""
    before = random.Random(period).choices(range(1000), k=333)
    count = fired([*before, *list(range(period)) * 2000])
    assert 640 + period <= count - len(before) <= 640 + period + 16


@pytest.mark.parametrize(
    "ids",
    [
        [*range(257)] * 20,  # too long a passage
        [number for line in range(400) for number in (1, 2, 3, 1000 + line)],  # numbered lines
        [5] * 640,  # not long enough: the first one repeats nothing
        [*([7] * 600), 8] * 10,  # broken again and again, and never the same for long
        [number for turn in range(200) for number in [3] * turn + [4]],  # growing
    ],
)
def test_what_does_not_repeat_itself(ids):
    assert fired(ids) is None


def test_the_guard_can_be_switched_off():
    assert fired([5] * 9000, limit=0) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 60))
def test_periods_are_those_of_the_definition(before, passage, count):
    """Few different ids, so that passages have repetitions of their own; compared with every period tried."""
    ids, limit = [*before, *(passage * 99)[: 40 + count]], 48
    due = next(
        (
            end
            for end in range(16, len(ids) + 1, 16)
            if any(end >= limit + p and ids[end - limit : end] == ids[end - limit - p : end - p] for p in range(1, 257))
        ),
        None,
    )
    assert fired(ids, limit) == due


@pytest.mark.parametrize(("text", "times"), [("0, ", 4), ("0x00FF, ", 4), ("| - | - |\n", 4), ("x x ", 4), ("the ", 1), ("好", 1)])
def test_what_has_no_words_may_go_on_for_longer(text, times):
    count = fired([1] * 5000, decode=lambda ids: text * len(ids))
    assert 640 * times < count <= 640 * times + 17


LEGITIMATE = {
    "a table of zeros": "int table[256] = {\n" + ("    " + ", ".join(["0"] * 16) + ",\n") * 16 + "};\n",
    "a table of bytes": "uint8_t t[256] = {\n" + ("    " + ", ".join(["0x00"] * 16) + ",\n") * 16 + "};\n",
    "an identity matrix": "".join("[" + ", ".join("1" if i == j else "0" for j in range(16)) + "],\n" for i in range(16)),
    "null pointers": "void *p[256] = {" + ", ".join(["NULL"] * 256) + "};",
    "spaces": "if x:\n" + " " * 3000 + "pass\n",
    "a numbered list": "".join(f"{i}. Step {i} of the list\n" for i in range(1, 300)),
    "a Markdown table": "| name | a | b |\n|---|---|---|\n" + "| row | 0 | 0 |\n" * 60,
    "unticked boxes": "- [ ] TODO\n" * 60,
    "lines": ("-" * 100 + "\n") * 60,
    "a sentence as homework": "All work and no play makes Jack a dull boy.\n" * 40,
    "base64 of zeros": "A" * 2000,
    "a refrain": "".join(f"Verse {i} tells of {i * 7} things.\n" + "La la la, we sing along tonight.\n" * 4 for i in range(60)),
}
LOOPS = {
    "a word": "the " * 3000,
    "a sentence": "I am sorry, but I cannot help with that.\n" * 200,
    "a paragraph": "The quick brown fox jumps over the lazy dog, and then it rests. " * 8 * 20,
    "a function": "def add(a, b):\n    return a + b\n\n\n" * 200,
    "Arabic": "مرحبا بالعالم " * 600,
    "Chinese": "你好世界" * 1000,
    "zeros without end": "0, " * 4000,
}


@pytest.fixture(scope="module")
def real(smollm2_path, gemma3_path):
    """Tokenizers of two models, which take a second."""
    return [load_tokenizer(path) for path in (smollm2_path, gemma3_path)]


@pytest.mark.parametrize("name", LEGITIMATE)
def test_real_text_that_may_repeat_itself(name, real):
    for tokenizer in real:
        assert fired(tokenizer.encode(LEGITIMATE[name]), Sampling().repeat_guard, tokenizer.decode) is None


@pytest.mark.parametrize("name", LOOPS)
def test_real_text_that_has_no_end(name, real):
    for tokenizer in real:
        count = fired(tokenizer.encode(LOOPS[name]), Sampling().repeat_guard, tokenizer.decode)
        assert count is not None and count < (3000 if "zeros" in name else 640 + 256 + 32)


@timely
def test_the_guard_costs_microseconds():
    watch = guard()
    ids = [token for turn in range(3000) for token in [3] * 7 + [turn]] + [1, 2] * 300
    began = time.perf_counter()
    for token in ids:
        watch.push(token)
    in_time((time.perf_counter() - began) / len(ids), 20e-6)
