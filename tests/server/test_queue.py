"""Who runs next, who waits, and who is sent away."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from lacewing.server.queue import Queue, QueueFullError, QueueTimeoutError, WaitingRoom
from tests.server.serving import OneModel, running
from tests.server.test_disconnects import Watch, send, until

COUNT = [{"role": "user", "content": "Count."}]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def order_of(queue: Queue, askers: list[str]) -> list[str]:
    """The order in which they get the one place, which is held by somebody while they ask."""
    first, order = await queue.enter("holder"), []

    async def ask(who: str) -> None:
        place = await queue.enter(who)
        order.append(who)
        await asyncio.sleep(0)
        place.leave()

    tasks = [asyncio.create_task(ask(who)) for who in askers]
    await settle()
    assert queue.waiting == len(askers) and queue.running == 1 and not queue.free
    first.leave()
    await asyncio.gather(*tasks)
    assert (queue.waiting, queue.running, queue.free) == (0, 0, 1)
    return order


def test_those_who_ask_take_turns():
    """However many requests one has sent, the others do not wait for all of them."""
    assert asyncio.run(order_of(Queue(1), list("aaaaabbc"))) == list("abcabaaa")


def test_who_gives_up_leaves_his_place_in_the_line_and_the_one_that_he_just_got():
    async def run() -> None:
        queue = Queue(1)
        place = await queue.enter("a")
        tasks = [asyncio.create_task(queue.enter(who)) for who in "bcd"]
        await settle()
        tasks[0].cancel()
        await settle()
        assert queue.waiting == 2
        place.leave()
        tasks[1].cancel()  # it has the place by now, and has not noticed yet
        (await tasks[2]).leave()
        assert (queue.waiting, queue.running) == (0, 0)
        place.leave()
        assert queue.running == 0

    asyncio.run(run())


def test_waiting_has_an_end():
    async def run() -> None:
        queue = Queue(1)
        place = await queue.enter("a")
        with pytest.raises(QueueTimeoutError, match=r"0\.01 s"):
            await queue.enter("b", 0.01)
        place.leave()
        assert (queue.waiting, queue.running) == (0, 0)

    asyncio.run(run())


def test_a_room_has_a_limit_besides_the_places_that_are_free():
    queue, room = Queue(2), WaitingRoom(3)
    room.know(queue)
    visits = [room.enter() for _ in range(5)]
    with pytest.raises(QueueFullError, match="3 requests") as found:
        room.enter()
    assert found.value.retry_after >= 1 and found.value.status == 429
    visits[0].leave()
    visits[0].leave()
    assert room.waiting == 4 and room.enter()


def test_further_answers_to_a_request_that_runs_do_not_wait_behind_later_requests():
    """Else a request for several waits as often as it has answers, while those that came after it are done."""

    async def run() -> list[str]:
        queue, served = Queue(1), []

        async def ask(name: str, who: str, ahead: bool = False) -> None:
            place = await queue.enter(who, ahead=ahead)
            served.append(name)
            place.leave()

        held = await queue.enter("a")
        others = [asyncio.create_task(ask(name, who)) for name, who in (("later", "a"), ("other's", "b"), ("last", "a"))]
        await settle()
        others.append(asyncio.create_task(ask("further", "a", ahead=True)))
        await settle()
        held.leave()
        await asyncio.gather(*others)
        return served

    assert asyncio.run(run()) == ["further", "other's", "later", "last"]


def test_too_many_requests_are_told_when_to_come_again(model):
    watch, registry = Watch(), OneModel(model)
    places = model.engine.step.limits.rows
    with running(registry, [watch], queue=2, queue_seconds=0.3) as url:
        held = [send(url, f"Count to {each}.", stream=True) for each in range(places)]
        until(lambda: watch.running == places)
        waiting = [send(url, "And I.", stream=False) for _ in range(2)]
        until(lambda: registry.served.worker.queue.waiting == 2)
        answer = httpx.post(f"{url}/v1/chat/completions", json={"model": "tiny", "messages": [{"role": "user", "content": "x"}]})
        assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["type"] == "rate_limit_error" and answer.json()["error"]["code"] == "queue_full"
        late = b""
        while not late.endswith(b"}}"):
            late += waiting[0].recv(1 << 16)
        assert late.startswith(b"HTTP/1.1 503") and b"retry-after" in late and b"queue_timeout" in late
        for connection in (*held, *waiting):
            connection.close()
        until(lambda: not registry.served.worker.active)


def test_a_request_may_take_so_long_and_no_longer(model):
    registry = OneModel(model)
    body = {"model": "tiny", "messages": COUNT, "max_tokens": 4000, "ignore_eos": True, "repeat_guard": 0}
    with running(registry, request_seconds=0.5) as url:
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=20)
        assert answer.status_code == 504 and answer.json()["error"]["code"] == "request_timeout"
        streamed = httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=20)
        assert streamed.status_code == 200 and '"code": "request_timeout"' in streamed.text.split("\n\n")[-2]
        until(lambda: not registry.served.worker.active)


def test_an_answer_ends_when_its_client_has_waited_long_enough(model):
    body = {"model": "tiny", "messages": COUNT, "max_tokens": 4000, "ignore_eos": True, "repeat_guard": 0}
    with running(OneModel(model)) as url:
        found = httpx.post(f"{url}/v1/chat/completions", json={**body, "t_max_predict_ms": 200}, timeout=20).json()
    assert found["choices"][0]["finish_reason"] == "length" and 0 < found["usage"]["completion_tokens"] < 4000
