import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lacewing.assistant.following import ChannelFollower, TaggedFollower
from lacewing.assistant.thinking import ThinkingConstraint
from lacewing.text.reasoning import ReasoningSplitter
from tests.assistant.speaking import HARMONY, TAGS, Spelling, say, tokenizer_with

TAGGED, CHANNELS = tokenizer_with(*TAGS), tokenizer_with(*HARMONY)


def tagged(budget=None, inner=None, tag=None, over=False, calls=(), whole=False):
    follower = TaggedFollower(TAGGED, tag, over, {TAGGED.control_tokens[mark]: mark for mark in TAGS}, calls)
    grammar = None if inner is None else Spelling(TAGGED, inner)
    return ThinkingConstraint(TAGGED, TAGGED.vocab_size, follower, budget, grammar, whole, TAGGED.stop_ids)


def channels(budget=None, inner=None, tools=False, answering=False):
    follower = ChannelFollower(CHANNELS, answering, tools)
    grammar = None if inner is None else Spelling(CHANNELS, inner)
    return ThinkingConstraint(CHANNELS, CHANNELS.vocab_size, follower, budget, grammar, stop_ids=CHANNELS.stop_ids)


@pytest.mark.parametrize(
    ("budget", "tag", "text", "expected"),
    [
        (3, None, "<think>abcdef</think>Yes", "<think>abc\n</think>\n\ndef</think>Yes"),
        (3, "<think>", "abcdef", "abc\n</think>\n\ndef"),
        (0, "<think>", "abc", "\n</think>\n\nabc"),
        (0, None, "<think>abc", "<think>\n</think>\n\nabc"),
        (9, None, "<think>ab</think>A long answer, which is not counted.", None),
        (3, None, "An answer without thoughts <think>is left alone</think>", None),
        (1, "<think>", "\N{SLICE OF PIZZA}b", "\N{SLICE OF PIZZA}\n</think>\n\nb"),  # whole characters
        (None, "<think>", "abcdefgh</think>i", None),
    ],
)
def test_the_budget_of_thoughts(budget, tag, text, expected):
    assert say(TAGGED, tagged(budget, tag=tag), text) == (expected or text)


def test_nothing_is_masked_that_need_not_be():
    """So that a device may choose by itself, and sampling is the same with a budget that is not used up as without one."""
    one = tagged(5)
    for token in TAGGED.encode_markup("<think>abc</think>Yes"):
        assert one.mask() is None and one.accept(token) and not one.stopped()


def test_calls_are_not_cut():
    """Neither in thoughts, where some models begin them, nor in the answer, nor in a channel of their own."""
    call = '<tool_call>{"name": "f", "arguments": {"x": "' + "y" * 40 + '"}}</tool_call>'
    assert say(TAGGED, tagged(14, tag="<think>", calls=("<tool_call>",)), f"ab{call}") == f"ab{call}"
    assert say(TAGGED, tagged(3, tag="<think>", calls=("<tool_call>",)), f"abcdef{call}").startswith("abc\n</think>\n\ndef")
    assert say(TAGGED, tagged(4, tag="<think>"), f"ab</think>{call}") == f"ab</think>{call}"
    channel = '<|channel|>commentary to=functions.f json<|message|>{"x": "' + "y" * 40 + '"}'
    text = f"<|channel|>analysis<|message|>abc<|end|><|start|>assistant{channel}"
    assert say(CHANNELS, channels(5, tools=True), text) == text


@pytest.mark.parametrize(
    ("budget", "tools", "text", "expected"),
    [
        (
            3,
            False,
            "<|channel|>analysis<|message|>abcdef",
            "<|channel|>analysis<|message|>abc<|end|><|start|>assistant<|channel|>f",
        ),
        (9, False, "<|channel|>analysis<|message|>abc<|end|><|start|>assistant<|channel|>final<|message|>Yes", None),
        (3, False, "<|channel|>final<|message|>A long answer", None),
        (0, False, "<|channel|>final<|message|>Yes", None),
        # none at all: another channel than the one that it wants
        (0, False, "<|channel|>analysis<|message|>abc", "<|channel|>f"),
        # used up: no second message of thoughts
        (
            3,
            True,
            "<|channel|>analysis<|message|>abc<|end|><|start|>assistant<|channel|>commentary to=functions.f<|message|>{}",
            None,
        ),
    ],
)
def test_the_budget_of_channels(budget, tools, text, expected):
    said = say(CHANNELS, channels(budget, tools=tools), text)
    assert said == text if expected is None else said.startswith(expected)


@pytest.mark.parametrize(
    ("budget", "tag", "over", "text", "expected"),
    [
        (None, None, False, "<think>so</think>\n\n12", "<think>so</think>\n\n12"),
        (None, None, False, "12 and more", "12"),
        (None, None, False, "Sure: 12", "12"),
        (2, None, False, "<think>so, so</think>12", "<think>so\n</think>\n\n12"),
        (None, None, True, "<think>12", "12"),  # the prompt says that there are no thoughts
        (0, None, False, "<think>12", "12"),
        (None, "<think>", False, "a<|im_end|>b</think>12", "ab</think>12"),  # it does not end before the answer
    ],
)
def test_a_grammar_is_for_the_answer(budget, tag, over, text, expected):
    assert say(TAGGED, tagged(budget, "12", tag, over), text) == expected


@pytest.mark.parametrize(
    ("budget", "text", "expected"),
    [
        (None, "Yes, finally", "<|channel|>final<|message|>12"),
        (None, "<|channel|>final<|message|>Well, 12", "<|channel|>final<|message|>12"),
        (
            None,
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>12",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>12",
        ),
        (
            2,
            "<|channel|>analysis<|message|>hm, final12",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>12",
        ),
    ],
)
def test_a_grammar_is_for_the_channel_of_the_answer(budget, text, expected):
    assert say(CHANNELS, channels(budget, "12"), text) == expected


def test_a_grammar_of_the_whole_answer():
    whole = "<think>ab\n</think>\n\n12"
    assert say(TAGGED, tagged(2, whole, whole=True), "<think>abcd</think>12") == whole


def test_a_grammar_that_refuses_what_is_forced_says_so():
    one = tagged(0, "x", tag="<think>", whole=True)
    (token,) = TAGGED.encode("\n")
    assert not one.accept(token)


@example(["<think>"] * 4 + ["<", "<"], 4, False)
@given(
    st.lists(st.sampled_from(["<think>", "</think>", "a", " b", "\n", "<", "/th", "\N{SLICE OF PIZZA}"]), max_size=30),
    st.integers(0, 6),
    st.booleans(),
)
def test_thoughts_are_never_longer_than_their_budget(pieces, budget, opened):
    """Whatever is said: but for what a character and the beginning of a mark need to become whole."""
    tag = "<think>" if opened else None
    said = say(TAGGED, tagged(budget, tag=tag), "".join(pieces))
    splitter = ReasoningSplitter(tag)
    found = [*splitter.push(said), *splitter.flush()]
    thoughts = TAGGED.encode_markup("".join(text for kind, text in found if kind == "reasoning"))
    assert len(thoughts) <= budget + 3 + len("</th/th")
    free = "".join(pieces)
    if opened or free.lstrip().startswith("<think>"):
        in_mark = "<" in said and "</think>".startswith(said[said.rindex("<") :])  # where nothing else can be forced
        assert "</think>" in said or len(thoughts) <= budget or in_mark
    else:
        assert said == free
