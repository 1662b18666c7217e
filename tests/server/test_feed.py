"""What piles up for a client that is slow."""

from __future__ import annotations

import asyncio

import pytest

from lacewing.assistant.deltas import CallDelta, Delta
from lacewing.engine.sampling import Token
from lacewing.server.events import Observers, Record
from lacewing.server.feed import Choice, Feed, merged
from lacewing.server.worker import End


def told(deltas: list[Delta]) -> list[tuple]:
    return [(str(each), each.reasoning, each.calls, tuple(token.id for token in each.tokens)) for each in deltas]


def test_neighbours_of_one_kind_become_one():
    call = (CallDelta(0, "a", "f", ""),)
    deltas = [
        Delta(reasoning="Hm", tokens=(Token(1),)),
        Delta(reasoning=", yes", tokens=(Token(2),)),
        Delta(tokens=(Token(3),)),
        Delta("He", tokens=(Token(4), Token(5))),
        Delta("llo", tokens=(Token(6),)),
        Delta(calls=call),
        Delta(calls=call),
        Delta("!"),
    ]
    assert told(merged(deltas)) == [
        ("", "Hm, yes", (), (1, 2)),
        ("", "", (), (3,)),
        ("Hello", "", (), (4, 5, 6)),
        ("", "", call, ()),
        ("", "", call, ()),
        ("!", "", (), ()),
    ]


def test_many_pieces_are_kept_as_few():
    feed = Feed(Observers(), Record("id", "/"), whole=False)
    choice = Choice(feed, 0, 0, None)
    for place in range(10_000):
        choice.push([Delta("x", tokens=(Token(place),))], None)
    assert len(choice._deltas) <= 257
    (delta,) = choice.take()
    assert delta == "x" * 10_000 and len(delta.tokens) == 10_000 and choice.take() == []


def test_what_can_be_done_at_once_wakes_nobody():
    done: list[str] = []
    ready = [True]

    def at_once(choice: Choice) -> bool:
        if ready[0]:
            done.append("".join(choice.take()))
        return ready[0]

    async def run() -> list[Choice]:
        feed = Feed(Observers(), Record("id", "/"), whole=False)
        choice = Choice(feed, 0, 0, None)
        waiting = asyncio.ensure_future(feed.next(at_once))
        await asyncio.sleep(0)
        choice.push([Delta("a")], None)
        choice.push([Delta("b")], None)
        await asyncio.sleep(0.01)
        assert not waiting.done() and done == ["a", "b"]
        ready[0] = False  # such as of a client that does not read
        choice.push([Delta("c")], None)
        ready[0] = True
        choice.push([Delta("d")], None)  # whoever was woken has not come yet: not before "c"
        assert await waiting == [choice] and done == ["a", "b"]
        assert "".join(choice.take()) == "cd"
        ending = asyncio.ensure_future(feed.next(at_once))
        await asyncio.sleep(0)
        choice.push([Delta("e")], End("stop", None))
        assert await ending == [choice] and choice.take() == ["e"] and done == ["a", "b"]
        return [choice]

    asyncio.run(run())


def test_a_fault_of_what_is_done_at_once_is_of_whoever_waits():
    def at_once(choice: Choice) -> bool:
        raise ZeroDivisionError

    async def run() -> None:
        feed = Feed(Observers(), Record("id", "/"), whole=False)
        choice = Choice(feed, 0, 0, None)
        waiting = asyncio.ensure_future(feed.next(at_once))
        await asyncio.sleep(0)
        choice.push([Delta("a")], None)  # does not raise: others are delivered in the same turn
        with pytest.raises(ZeroDivisionError):
            await waiting

    asyncio.run(run())
