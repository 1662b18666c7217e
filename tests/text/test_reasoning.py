import pytest
from hypothesis import given
from hypothesis import strategies as st

from lacewing.text.reasoning import ChannelSplitter, ReasoningSplitter, opened

CASES = [
    (None, "Hello", [("text", "Hello")]),
    (None, "<think>\nhm\n</think>\n\nYes", [("reasoning", "hm"), ("text", "Yes")]),
    (None, "\n <think>a</think>b <think>c</think>", [("reasoning", "a"), ("text", "b <think>c</think>")]),
    (None, "[THINK]a[/THINK]b", [("reasoning", "a"), ("text", "b")]),
    (None, "<think>never ended ", [("reasoning", "never ended")]),
    (None, "<think></think>ok", [("text", "ok")]),
    (None, "<thin", [("text", "<thin")]),
    (None, "  indented", [("text", "  indented")]),
    (None, "", []),
    ("<think>", "hm</think>Yes", [("reasoning", "hm"), ("text", "Yes")]),
    ("<think>", "\nhm </thin k</think>\nYes", [("reasoning", "hm </thin k"), ("text", "Yes")]),
]
HARMONY = [
    (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes",
        [("reasoning", "hm"), ("text", "Yes")],
    ),
    (" to=functions.f<|channel|>commentary json<|message|>{}<|call|>", [("reasoning", "{}")]),
    ("<|channel|>final<|message|>a < b<|return|>", [("text", "a < b")]),
    ("Plain words", [("text", "Plain words")]),
    ("<|channel|>final", []),
]


def joined(pieces):
    out = []
    for kind, text in pieces:
        if out and out[-1][0] == kind:
            text = out.pop()[1] + text
        out.append((kind, text))
    return out


def split(splitter, text, sizes):
    pieces, at = [], 0
    while at < len(text):
        size = sizes[at % len(sizes)]
        pieces += splitter.push(text[at : at + size])
        at += size
    return joined(pieces + splitter.flush())


@pytest.mark.parametrize(("tag", "text", "expected"), CASES)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_thoughts(tag, text, expected, sizes):
    assert split(ReasoningSplitter(tag), text, sizes) == expected


@pytest.mark.parametrize(("text", "expected"), HARMONY)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_channels(text, expected, sizes):
    assert split(ChannelSplitter(), text, sizes) == expected


@given(st.text("<>/think \nab[|]", max_size=40), st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_however_it_is_cut(text, sizes):
    for make in (ReasoningSplitter, lambda: ReasoningSplitter("<think>"), ChannelSplitter):
        assert split(make(), text, sizes) == split(make(), text, [len(text) or 1])


def test_a_tag_that_the_prompt_opened():
    assert opened("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened("<think>\n\n</think>\n\n") is None and opened("") is None
