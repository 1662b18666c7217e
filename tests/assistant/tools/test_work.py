"""However hostile a text is, what a parser reads of it is bounded by its length: counted, not timed."""

from __future__ import annotations

import pytest

from lacewing.assistant.tools import parsing
from lacewing.assistant.tools.formats import harmony
from lacewing.text.marks import first_of
from lacewing.text.reasoning import ChannelSplitter, ReasoningSplitter
from tests.assistant.tools.formats import CASES, TOOLS
from tests.assistant.tools.test_formats import PIECES, calls_of, parsed

LENGTH = 3000  # characters; what is looked at within a header, again and again, is bounded by 400
MOST = 600  # characters that are read for each one that comes
CALL = ("get_weather", {"city": "Rome", "days": 3, "deep": {"a": [1, "x"]}, "list": [1], "flag": True})


class Read(str):
    """A text that counts the characters that are read of it and of its parts; copies, which are cheap, aside."""

    count = most = 0

    def read(self, count: int) -> None:
        Read.count += 1 + count
        assert Read.count < Read.most, "too much is read"

    def part(self, found: str) -> Read:
        self.read(len(self) - len(found))
        return Read(found)

    def find(self, wanted, start=0, *end):
        at = super().find(wanted, start, *end)
        self.read((len(self) if at < 0 else at) - start)
        return at

    def startswith(self, *given):
        self.read(0)
        return super().startswith(*given)

    def __getitem__(self, place):
        self.read(0)
        return Read(super().__getitem__(place))

    def __add__(self, more):
        return Read(super().__add__(more))

    def lstrip(self, *signs):
        return self.part(super().lstrip(*signs))

    def rstrip(self, *signs):
        return self.part(super().rstrip(*signs))


def counted_first(text, marks):
    at, mark = first_of(text, marks)
    Read.read(text, len(text) if at < 0 else at)
    return at, mark


def hostile(case):
    """Beginnings of calls, each at another place, and what goes on for long behind them; and marks without end."""
    _, write, _ = CASES[case]
    whole = write([CALL])
    number = list(CASES).index(case)
    for piece in (" ", *PIECES[number % 12 :: 12]):
        number += 1
        yield whole[: number * 7919 % len(whole)] + piece * (LENGTH // len(piece))
    for mark in parsed_marks(case):
        yield f'{mark}"' * (LENGTH // (len(mark) + 1))


def parsed_marks(case):
    parser = CASES[case][0].parser(TOOLS, ())
    return [*parser.marks, *parser.openings][:2]


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_bounded(case, monkeypatch):
    row = CASES[case][0]
    monkeypatch.setattr(parsing, "first_of", counted_first)
    monkeypatch.setattr(harmony, "first_of", counted_first)
    for text in hostile(case):
        for pieces in ([text], [text[at : at + 5] for at in range(0, len(text), 5)]):
            Read.count, Read.most = 0, MOST * len(text)
            parser = row.parser(TOOLS, ())
            parser.source.text = Read()
            events = [event for piece in pieces for event in parser.push(piece)] + parser.flush()
            assert "".join(event.raw for event in events) == text


@pytest.mark.parametrize("make", [ChannelSplitter, ReasoningSplitter])
@pytest.mark.parametrize("header", ["<|channel|>", "  <|channel|>analysis ", "<|start|>assistant<|channel|>", "to=", "<think>"])
def test_a_header_without_an_end_is_text_at_last(make, header):
    """A splitter of thoughts alone, without tools."""
    for size in (1, 1000):
        splitter, text = make(), header + "x " * 200 + "<|channel|>final<|message|>Yes"
        pieces = [piece for at in range(0, len(text), size) for piece in splitter.push(text[at : at + size])]
        found = "".join(text for _, text in [*pieces, *splitter.flush()])
        assert found.count("x") == 200 and found.endswith("Yes") and splitter.held == 0


@pytest.mark.parametrize("size", [1, 1000])
def test_a_header_without_an_end_before_a_call(size):
    """With tools: it ends nothing but itself."""
    row, write, _ = CASES["harmony"]
    text = f"<|channel|>{'analysis ' * 40}<|start|>assistant{write([CALL])}"
    events = parsed(row, [text[at : at + size] for at in range(0, len(text), size)])
    assert calls_of(events) == [CALL] and "".join(event.raw for event in events) == text
