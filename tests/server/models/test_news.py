"""Events of models: to all who watch, in their order, until one does not read any more."""

from __future__ import annotations

import asyncio

from lacewing.server.models import news
from lacewing.server.models.news import Event, News


def drained(queue) -> list:
    return [queue.get_nowait() for _ in range(queue.qsize())]


def test_all_who_watch_are_told_in_order():
    async def run():
        events = News()
        events.tell("early", "lost")
        with events.watch() as one, events.watch() as other:
            events.tell("a", "first", {"x": 1})
            events.tell("b", "second")
            assert drained(one) == drained(other) == [Event("a", "first", {"x": 1}), Event("b", "second")]
        events.tell("a", "after")
        assert not one.qsize()

    asyncio.run(run())


def test_one_who_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr(news, "_MOST", 3)

    async def run():
        events = News()
        with events.watch() as slow, events.watch() as quick:
            for place in range(5):
                events.tell(str(place), "moved")
                assert drained(quick) == [Event(str(place), "moved")]
            assert [event and event.model for event in drained(slow)] == ["0", "1", "2", None]

    asyncio.run(run())


def test_the_end_is_told_to_those_who_come_later_as_well():
    async def run():
        events = News()
        with events.watch() as one:
            events.end()
            events.tell("a", "moved")
            assert drained(one) == [None]
        with events.watch() as late:
            assert drained(late) == [None]

    asyncio.run(run())
