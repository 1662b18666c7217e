"""A step that fails while it serves: whose fault it is gets an error, the others their answers, and /health tells what stays."""

from __future__ import annotations

import asyncio
import contextlib

import httpx

from lacewing.errors import DeviceLostError
from lacewing.options import LoadOptions
from lacewing.server.app import create_app
from lacewing.server.models.names import Catalogue
from lacewing.server.models.registry import Registry
from lacewing.server.options import ServerOptions
from lacewing.server.worker import Worker
from tests.server.serving import Limits


@contextlib.asynccontextmanager
async def server_of(path):
    """A client of a server with one model on the CPU, and its registry."""
    load = LoadOptions(backend="cpu", context=256, sequences=4, threads=1)
    options = ServerOptions(models=(str(path),), load=load)
    registry = Registry(Catalogue(options), options, Worker)
    transport = httpx.ASGITransport(create_app(registry, Limits(), ()))
    try:
        await registry.preload()
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            client.model = registry.served[0].name
            yield client, registry
    finally:
        await registry.close()


def ask(client, prompt, count=24):
    body = {"model": client.model, "prompt": prompt, "max_tokens": count, "temperature": 0, "ignore_eos": True, "logprobs": 0}
    return client.post("/v1/completions", json=body)


def tokens_of(response):
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["logprobs"]


def breaking(step, error, when):
    """The step fails a run, after it, when its batch says so."""
    run = step._run

    def broken(batch):
        rows = run(batch)
        if when(batch):
            raise error
        return rows

    step._run = broken


PROMPTS = [[5, 6, 7], [9, 8], [3] * 40]


def test_one_request_breaks_runs_and_the_others_are_answered(tiny_path):
    async def run():
        async with server_of(tiny_path) as (client, registry):
            expected = [tokens_of(await ask(client, prompt)) for prompt in PROMPTS]
            engine = registry.served[0].model.engine
            engine.forget()

            def is_bad(batch):
                rows = set(batch.rows.tolist())
                return any(
                    task.sequence and task.sequence.row in rows and task.history[0] == 200 for task in engine.scheduler.running
                )

            breaking(engine.step, RuntimeError("a secret of the driver"), is_bad)
            for _ in range(2):  # more often than in a row would make the model unusable
                answers = await asyncio.gather(
                    ask(client, [200, 1]), *(ask(client, prompt) for prompt in PROMPTS), ask(client, [200])
                )
                assert answers[0].status_code == answers[-1].status_code == 500 and "secret" not in answers[0].text
                assert [tokens_of(answer) for answer in answers[1:-1]] == expected
            assert (await client.get("/health")).status_code == 200
            assert engine.scheduler.counters.faults >= 1

    asyncio.run(run())


def test_a_lost_device_ends_all_answers_and_shows_in_health_until_the_model_is_back(tiny_path):
    async def run():
        async with server_of(tiny_path) as (client, registry):
            served, lost = registry.served[0], [False]
            expected = tokens_of(await ask(client, PROMPTS[0]))
            breaking(served.model.engine.step, DeviceLostError("the GPU was lost (unplugged)"), lambda batch: lost[0])
            asking = asyncio.gather(*(ask(client, prompt, 200) for prompt in PROMPTS * 3))
            while not served.model.engine.scheduler.running:
                await asyncio.sleep(0.001)
            lost[0] = True
            answers = await asking
            assert {answer.status_code for answer in answers} <= {200, 503} and answers[-1].status_code == 503
            assert "the GPU was lost" in answers[-1].text
            health = await client.get("/health")  # at once
            assert health.status_code == 503 and "the GPU was lost (unplugged)" in health.json()["error"]["message"]
            assert tokens_of(await ask(client, PROMPTS[0])) == expected  # it has been loaded again
            assert (await client.get("/health")).status_code == 200 and registry.served[0] is not served

    asyncio.run(run())
