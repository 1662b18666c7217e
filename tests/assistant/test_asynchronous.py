"""Answers in event loops, by a small model on the CPU. No plugin: each test runs a loop of its own."""

import asyncio
import gc
import threading
import time

import pytest

import lacewing
from lacewing.errors import LacewingError, OptionError, TemplateError
from tests.timing import in_time, timely

HELLO = [{"role": "user", "content": "Hello"}]
LONG = {"temperature": 0, "max_tokens": 400, "repeat_guard": 0, "ignore_eos": True}
SHORT = LONG | {"max_tokens": 12}


@pytest.fixture(scope="module")
def model(tiny_path):
    with lacewing.load(tiny_path, backend="cpu", context=2048, threads=1, sequences=8) as model:
        yield model


def run(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 60))


def running(model):
    return len(model.engine.scheduler.running) + len(model.engine.scheduler.waiting)


async def ended(model, seconds=0.2):
    """Nothing runs any more, within that time."""
    began = time.monotonic()
    while running(model) or model._asynchronous.driver.count:
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.002)
    in_time(time.monotonic() - began, seconds)


async def text_of(answer):
    return "".join([delta async for delta in answer])


def test_the_same_answer(model):
    async def talk():
        answer = model.achat(HELLO, **SHORT)
        assert answer.message["content"] == "" and answer.stats.generated_tokens == 0
        text = await text_of(answer)
        assert answer.finish_reason == "length" and answer.message["content"] == text
        assert answer.stats.generated_tokens == len(answer.tokens) == 12
        assert [delta async for delta in answer] == []
        return text

    assert run(talk()) == "".join(model.chat(HELLO, **SHORT))


def test_many_share_the_runs_of_one_thread(model):
    words = [f"Number {number}" for number in range(24)]
    expected = [model.generate(word, **SHORT) for word in words]
    threads, runs, step = set(), [], model.step
    inner = step._run

    def counted(batch):
        runs.append(len(batch.outputs))
        threads.update(thread.name for thread in threading.enumerate() if "asyncio" not in thread.name)
        return inner(batch)

    before = {thread.name for thread in threading.enumerate()}
    step._run = counted
    try:
        assert run(model.agenerate(words, **SHORT)) == expected
    finally:
        del step._run
    assert threads - before <= {"lacewing-driver"} and max(runs) == 8 and len(runs) < 24 * 12 / 4


def test_one_text_is_one_text(model):
    assert run(model.agenerate("Hello", **SHORT)) == model.generate("Hello", **SHORT)
    assert run(model.agenerate(("Hello",), **SHORT)) == [model.generate("Hello", **SHORT)]
    assert run(model.agenerate([], **SHORT)) == []


@pytest.mark.parametrize("how", ["task", "timeout", "break", "dropped", "close", "with"])
@timely
def test_whoever_goes_away_ends_the_request(model, how):
    async def leave():
        answer = model.astream("Hello", **LONG)
        await anext(answer)
        assert running(model) == 1
        if how == "task":
            task = asyncio.create_task(text_of(answer))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif how == "timeout":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(text_of(answer), 0.01)
        elif how == "break":
            async for _ in answer:
                break
        elif how == "close":
            await answer.aclose()
            assert [delta async for delta in answer] == []
        elif how == "with":
            async with answer:
                pass
        if how not in ("break", "dropped"):
            assert answer.finish_reason == "cancelled"
        del answer
        gc.collect()
        await ended(model)

    run(leave())


@timely
def test_a_prompt_that_is_being_read_is_given_up(model):
    model.engine.forget()

    async def leave():
        task = asyncio.create_task(text_of(model.astream("word " * 600, **LONG)))
        while not running(model) and not task.done():
            await asyncio.sleep(0.001)
        task.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        seconds = time.monotonic() - began
        await ended(model)
        in_time(seconds, 0.05)

    run(leave())


@timely
def test_the_loop_is_never_kept_waiting(model):
    """Submitting, cancelling and delivering take turns with everything else that the loop does."""

    async def watch():
        gaps, stop = [], asyncio.Event()

        async def tick():
            last = time.perf_counter()
            while not stop.is_set():
                await asyncio.sleep(0.001)
                now = time.perf_counter()
                gaps.append(now - last)
                last = now

        ticking = asyncio.create_task(tick())
        answers = [asyncio.create_task(text_of(model.astream("word " * 300, **SHORT))) for _ in range(8)]
        await asyncio.sleep(0.05)
        for answer in answers[::2]:
            answer.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        stop.set()
        await ticking
        return sorted(gaps)

    gaps = run(watch())
    in_time(gaps[len(gaps) * 9 // 10], 0.1)


@timely
def test_errors_come_with_the_first_piece(model):
    async def fail():
        with pytest.raises(TemplateError):
            await anext(model.achat([]))
        with pytest.raises(LacewingError, match="context"):
            await anext(model.astream("word " * 5000))
        with pytest.raises(OptionError, match="colour"):
            model.achat(HELLO, colour=1)
        with pytest.raises(LacewingError, match="context"):
            await model.agenerate(["Hello", "word " * 5000], **LONG)
        await ended(model)

    run(fail())


def test_one_piece_at_a_time(model):
    async def twice():
        answer = model.astream("word " * 600, **SHORT)
        first = asyncio.create_task(anext(answer))
        while not running(model):
            await asyncio.sleep(0.001)
        with pytest.raises(OptionError, match="already"):
            await anext(answer)
        assert isinstance(await first, str)

    run(twice())


@timely
def test_stop_strings_end_the_request(model):
    whole = model.generate("Hello", **LONG)

    async def stop():
        answer = model.astream("Hello", **LONG | {"stop": whole[20:24]})
        assert await text_of(answer) == whole[: whole.index(whole[20:24])]
        assert answer.finish_reason == "stop" and len(answer.tokens) < 100
        await ended(model)

    run(stop())


def test_loops_of_several_threads(model):
    expected, found = model.generate("Hello", **SHORT), []
    threads = [threading.Thread(target=lambda: found.append(run(model.agenerate(["Hello"] * 3, **SHORT)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert model.generate("Hello", **SHORT) == expected  # and one that waits for itself
    for thread in threads:
        thread.join()
    assert found == [[expected] * 3] * 3


def test_a_loop_that_ends_ends_its_requests(model):
    async def begin():
        answer = model.astream("Hello", **LONG)
        await anext(answer)
        return answer

    kept = asyncio.run(begin())
    deadline = time.monotonic() + 10
    while model._asynchronous.driver.count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not running(model) and kept.finish_reason in (None, "cancelled")


def test_closing_the_model_tells_those_who_wait(tiny_path):
    async def close():
        model = lacewing.load(tiny_path, backend="cpu", context=512, threads=1)
        answers = [model.astream("Hello", **LONG) for _ in range(3)]
        tasks = [asyncio.create_task(text_of(answer)) for answer in answers]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(model.close)
        await asyncio.gather(*tasks)
        assert {answer.finish_reason for answer in answers} <= {"cancelled", "length"}
        with pytest.raises(OptionError, match="closed"):
            model.achat(HELLO)

    run(close())
