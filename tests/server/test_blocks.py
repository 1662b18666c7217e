"""Whatever an answer is made of, the streams of both newer APIs tell it whole, in order, and as the object that is not streamed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response
from pydantic import TypeAdapter

from lacewing.assistant.deltas import CallDelta, Delta
from lacewing.engine.stats import Stats
from lacewing.server.anthropic.format import MessageWriter
from lacewing.server.blocks import sealed, unsealed
from lacewing.server.responses import resource
from lacewing.server.responses.format import ResponseWriter
from lacewing.server.responses.types import ResponseBody
from lacewing.server.worker import End
from tests.server.responses.conftest import parsed

EVENT = TypeAdapter(RawMessageStreamEvent)
TEXT = st.text(min_size=1, max_size=6)


@st.composite
def answers(draw) -> list[Delta]:
    """Deltas of thoughts, texts and calls in any order; the arguments of calls come in pieces."""
    found, calls = [], 0
    for kind in draw(st.lists(st.sampled_from(["thoughts", "text", "call", "mark"]), max_size=8)):
        if kind == "thoughts":
            found.append(Delta(reasoning=draw(TEXT)))
        elif kind == "text":
            found.append(Delta(draw(TEXT)))
        elif kind == "mark":
            found.append(Delta())
        else:
            arguments = json.dumps(draw(st.dictionaries(TEXT, TEXT, max_size=2)))
            cut = draw(st.integers(0, len(arguments)))
            found.append(Delta(calls=(CallDelta(calls, f"call_{calls}", "f", ""),)))
            found += [Delta(calls=(CallDelta(calls, None, None, piece),)) for piece in (arguments[:cut], arguments[cut:]) if piece]
            calls += 1
    return found


def ended(deltas: list[Delta], reason: str) -> Any:
    """A choice that has ended so."""
    stats = Stats(prompt_tokens=9, reused_tokens=4, generated_tokens=5)
    decoder = SimpleNamespace(stop_string=None)
    return SimpleNamespace(
        written=False, end=None, stats=stats, reasoning_tokens=1, decoder=decoder, final=End(reason, stats), take=lambda: deltas
    )


def streamed(writer, choice, deltas: list[Delta], cuts: list[int]) -> str:
    """All events, the deltas coming in several pieces."""
    data, at = writer.first_event(), 0
    for cut in [*sorted(cuts), len(deltas)]:
        if cut == len(deltas):
            choice.end = choice.final
        data += writer.events(choice, deltas[at:cut])
        at = max(at, cut)
    return (data + writer.last_event([choice])).decode()


def kinds(deltas: list[Delta]) -> list[tuple[str, str]]:
    """What an answer says: its kinds and texts."""
    found: list[tuple[str, str]] = []
    for delta in deltas:
        for call in delta.calls:
            if call.id is not None:
                found.append(("call", ""))
            found[-1] = ("call", found[-1][1] + call.arguments)
        for kind, text in (("thoughts", delta.reasoning), ("text", str(delta))):
            if text and found and found[-1][0] == kind:
                found[-1] = (kind, found[-1][1] + text)
            elif text:
                found.append((kind, text))
    return found


@given(answers(), st.lists(st.integers(0, 7), max_size=3), st.sampled_from(["stop", "length", "tool_calls", "repetition"]))
@settings(deadline=None)
def test_messages(deltas, cuts, reason):
    cuts = [cut for cut in cuts if cut < len(deltas)]
    choice = ended(deltas, reason)
    told = [
        json.loads(line[6:])
        for line in streamed(MessageWriter("m", 5), choice, deltas, cuts).split("\n")
        if line.startswith("data: ")
    ]
    for event in told:
        EVENT.validate_python(event, strict=True)
    assert [event["index"] for event in told if event["type"] == "content_block_start"] == list(range(len(kinds(deltas))))
    texts = [""] * len(kinds(deltas))
    for event in told:
        if event["type"] == "content_block_delta" and event["delta"]["type"] != "signature_delta":
            texts[event["index"]] += next(value for name, value in event["delta"].items() if name != "type")
    assert texts == [text for _, text in kinds(deltas)]
    whole = json.loads(MessageWriter("m", 5).whole([choice]))
    Message.model_validate(whole, strict=True)
    names = {"thoughts": "thinking", "text": "text", "call": "tool_use"}
    assert [block["type"] for block in whole["content"]] == [names[kind] for kind, _ in kinds(deltas)]
    assert whole["stop_reason"] == told[-2]["delta"]["stop_reason"] and whole["usage"] == told[-2]["usage"]


@given(answers(), st.lists(st.integers(0, 7), max_size=3), st.sampled_from(["stop", "length", "tool_calls"]), st.booleans())
@settings(deadline=None)  # the client builds its types when they are first used
def test_responses(deltas, cuts, reason, summarised):
    cuts = [cut for cut in cuts if cut < len(deltas)]
    body = ResponseBody(model="m", input="x", reasoning={"summary": "auto"} if summarised else None)

    def writer() -> ResponseWriter:
        return ResponseWriter(resource.begun(body, True), summarised=summarised, seals=True, top=None)

    choice = ended(deltas, reason)
    told = parsed(streamed(writer(), choice, deltas, cuts))
    last = told[-1]["response"]
    done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
    assert last["output"] == done and last["status"] == ("incomplete" if reason == "length" else "completed")
    names = {"thoughts": "reasoning", "text": "message", "call": "function_call"}
    assert [item["type"] for item in done] == [names[kind] for kind, _ in kinds(deltas)]
    for at, (_, text) in enumerate(kinds(deltas)):
        pieces = [event["delta"] for event in told if event["type"].endswith(".delta") and event["output_index"] == at]
        assert "".join(pieces) == text and _text(done[at]) == (text or "{}")
        assert done[at]["type"] != "reasoning" or unsealed(done[at]["encrypted_content"]) == text
    other = writer()
    choice.end = choice.final
    other.events(choice, deltas)
    whole = json.loads(other.whole([choice]))
    Response.model_validate(whole)
    assert [_text(item) for item in whole["output"]] == [_text(item) for item in done]


def cut_call(name: str, arguments: str) -> list[Delta]:
    """A call whose arguments a limit has cut: the parser leaves them as they are then."""
    return [Delta(calls=(CallDelta(0, "call_0", name, ""),)), Delta(calls=(CallDelta(0, None, None, arguments),))]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [('{"city": "Par', {"city": "Par"}), ('{"a": 1, "b', {"a": 1, "b": None}), ("{", {}), ('{"a": [1, tr', {"a": [1, None]})],
)
def test_a_call_that_was_cut_in_a_message(arguments, expected):
    choice = ended(cut_call("f", arguments), "length")
    choice.end = choice.final
    whole = json.loads(MessageWriter("m", 5).whole([choice]))
    Message.model_validate(whole, strict=True)
    assert whole["content"][0]["input"] == expected and whole["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(("arguments", "expected"), [('{"input": "ls -', "ls -"), ('{"inp', ""), ("", ""), ('{"input"', "")])
def test_a_call_of_a_custom_tool_that_was_cut(arguments, expected):
    def writer() -> ResponseWriter:
        body = ResponseBody(model="m", input="x")
        return ResponseWriter(resource.begun(body, True), summarised=False, seals=False, top=None, custom={"f"})

    deltas = cut_call("f", arguments)
    item = parsed(streamed(writer(), ended(deltas, "length"), deltas, []))[-1]["response"]["output"][0]
    assert (item["type"], item["input"], item["status"]) == ("custom_tool_call", expected, "incomplete")
    cancelled = writer()
    cancelled.first_event()
    cancelled.events(ended(deltas, "stop"), deltas)
    cancelled.cancel()
    assert (cancelled.response["status"], cancelled.response["output"][0]["input"]) == ("cancelled", expected)


def _text(item: dict) -> str:
    return item["arguments"] if item["type"] == "function_call" else (item.get("content") or item["summary"])[0]["text"]


@given(st.text())
def test_what_is_sealed_is_read_again(text):
    assert unsealed(sealed(text)) == text


@pytest.mark.parametrize("text", ["", "lacewing.", "lacewing.%", "lacewing.\N{BUG}", "lacewing./w==", "gAAAAABo"])
def test_what_others_sealed_is_nothing(text):
    assert unsealed(text) == ""
