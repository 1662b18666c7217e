"""What piles up for a client that is slow."""

from __future__ import annotations

from lacewing.assistant.deltas import CallDelta, Delta
from lacewing.engine.sampling import Token
from lacewing.server.events import Observers, Record
from lacewing.server.feed import Choice, Feed, merged


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
