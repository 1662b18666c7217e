"""Metrics: what requests cost, how engines are, and that what they show is what happened."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from lacewing.backends.step import RoutedLayer
from lacewing.engine.loads import ExpertLoads
from lacewing.engine.request import Request
from lacewing.models.sizes import ModelSizes
from lacewing.options import LoadOptions, Sampling
from lacewing.server import metrics as metrics_module
from lacewing.server.events import Observers, Record
from lacewing.server.metrics import HELP, Metrics, MetricsEndpoint, bytes_read, read_bytes
from tests.checkpoints import tiny
from tests.server.asking import ask, echo
from tests.server.models.test_registry import registry_of


class Empty:
    """A registry without models."""

    served, loading, counts = (), {}, None

    def __init__(self):
        from lacewing.server.models.served import Counts

        self.counts = Counts()

    def names(self):
        return []


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """By name and the values of labels, in the order of their names."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_what_a_request_costs():
    metrics = Metrics(Empty())
    observers = Observers((metrics,))
    for _ in range(2):
        record = Record("id", "/v1/completions", "m", prompt_tokens=10, cached_tokens=4)
        observers.received(record)
        observers.started(record)
        for _ in range(3):
            observers.tokens(record, 1)
        record.generated_tokens, record.finish_reasons = 3, ["stop", "length"]
        observers.finished(record)
    failed = Record("id", "/v1/completions", status=429)
    observers.finished(failed)
    metrics.responded(421)
    found = values(metrics)
    assert found["lacewing_requests_total", "/v1/completions", "m", "200"] == 2
    assert found["lacewing_requests_total", "/v1/completions", "", "429"] == 1
    assert found["lacewing_answers_total", "m", "stop"] == found["lacewing_answers_total", "m", "length"] == 2
    assert found["lacewing_prompt_tokens_total", "m"] == 20 and found["lacewing_cached_prompt_tokens_total", "m"] == 8
    assert found["lacewing_generated_tokens_total", "m"] == 6
    assert found["lacewing_time_to_first_token_seconds_count", "m"] == found["lacewing_queue_seconds_count", "m"] == 2
    assert found["lacewing_inter_token_seconds_count", "m"] == 4 and found["lacewing_request_seconds_count", "m"] == 2
    assert found["lacewing_responses_total", "421"] == 1


def test_a_token_costs_little():
    """Of the 60 us that a token may cost in all."""
    observers = Observers((Metrics(Empty()),))
    record = Record("id", "/", "m")
    observers.tokens(record, 1)
    best = min(_timed(lambda: observers.tokens(record, 1), 2000) for _ in range(5))
    assert best < 20e-6


def _timed(work, count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - began) / count


def test_engines_and_models(tiny_path):
    async def run():
        options = LoadOptions(backend="reference", context=512, sequences=2, kv_tokens=1024)
        async with registry_of(tiny_path, load=options) as registry:
            metrics = Metrics(registry)
            registry.on_loaded(metrics.watch)
            name = tiny_path.stem
            before = values(metrics)
            assert before["lacewing_model_state", name, "unloaded"] == 1 and before["lacewing_model_loads_total",] == 0
            async with registry.use(None) as served:
                served.worker.queue = type("Queue", (), {"waiting": 3, "running": 2})()
                engine = served.model.engine
                streams = [engine.submit(Request(list(range(5, 205)), Sampling(max_tokens=3, temperature=0))) for _ in range(2)]
                assert [len(list(stream)) for stream in streams] == [3, 3]
                found = values(metrics)
            assert found["lacewing_model_state", name, "loaded"] == 1 and found["lacewing_model_loads_total",] == 1
            assert found["lacewing_requests_waiting", name] == 3 and found["lacewing_requests_running", name] == 2
            assert found["lacewing_sequences_limit", name] == 2 and found["lacewing_kv_pages_limit", name] == 8
            assert found["lacewing_kv_pages_used", name] == engine.scheduler.pages.used(0) >= 2
            assert found["lacewing_run_tokens_total", name] == 400 + 4  # the last token of each is not run
            runs, nbytes = found["lacewing_runs_total", name], found["lacewing_weight_bytes_read_total", name]
            assert nbytes == runs * served.model.spec.active_bytes
            assert found["lacewing_model_memory_bytes", name] > 0
            return found

    found = asyncio.run(run())
    shown = {name.removesuffix("_count") for name, *_ in found}
    assert "lacewing_info" in shown


def test_loading_shows_its_progress(tiny_path):
    registry = Empty()
    registry.loading = {"m": ("reading weights", 3, 4), "n": ("waiting", 0, 0)}
    found = values(Metrics(registry))
    assert found["lacewing_model_load_progress", "m"] == 0.75 and found["lacewing_model_load_progress", "n"] == 0


def test_preemptions_and_evictions_are_counted(tiny_path):
    async def run():
        options = LoadOptions(backend="reference", context=256, sequences=2, kv_tokens=256)
        async with registry_of(tiny_path, load=options) as registry, registry.use(None) as served:
            engine = served.model.engine
            for seed in range(2):
                ids = np.random.default_rng(seed).integers(0, 200, 200).tolist()
                list(engine.submit(Request(ids, Sampling(max_tokens=1, temperature=0))))
            assert engine.scheduler.counters.evictions > 0
            for seed in range(40):  # short answers, so that two that become long are let in together
                list(engine.submit(Request([seed, 1], Sampling(max_tokens=1, temperature=0))))
            both = [
                engine.submit(Request(np.random.default_rng(seed).integers(0, 200, 120).tolist(), Sampling(max_tokens=30)))
                for seed in (3, 4)
            ]
            assert [len(list(each)) for each in both] == [30, 30]
            assert engine.scheduler.counters.preemptions > 0

    asyncio.run(run())


def test_experts(tmp_path):
    """Off by default; on, each layer's experts got as many tokens as were run, times the active experts."""
    path = tiny("qwen3moe", "gguf", tmp_path)

    async def run(on: bool):
        async with registry_of(path, load=LoadOptions(backend="reference", context=256)) as registry:
            metrics = Metrics(registry, expert_load=on)
            registry.on_loaded(metrics.watch)
            async with registry.use(None) as served:
                served.worker.queue = type("Queue", (), {"waiting": 0, "running": 0})()
                list(served.model.engine.generate(list(range(5, 55)), Sampling(max_tokens=4, temperature=0)))
                return {key: value for key, value in values(metrics).items() if key[0] == "lacewing_expert_tokens_total"}, served

    assert not asyncio.run(run(False))[0]
    found, served = asyncio.run(run(True))
    layers = {key[2] for key in found}
    sizes = served.model.spec.sizes
    for layer in layers:
        total = sum(value for key, value in found.items() if key[2] == layer)
        experts = sum(key[2] == layer for key in found)
        assert total == 53 * round(experts * sizes.active_expert_bytes / sizes.expert_bytes)
    assert layers


def test_counts_of_experts():
    loads = ExpertLoads()
    for _ in range(2):
        loads(np.arange(2), [RoutedLayer(3, np.array([[0, 2], [2, 3]], np.int32), np.zeros((2, 5), np.float32))])
    assert loads.layers() == {3: [2, 0, 4, 2, 0]} and loads.reads() == {3: 6}


def test_bytes_that_a_run_reads():
    dense, mixture = ModelSizes(1, 1, 100, 90), ModelSizes(1, 1, 1000, 150, 800, 100)
    assert read_bytes(dense, 1) == read_bytes(dense, 7) == 90
    assert read_bytes(mixture, 1) == pytest.approx(150)  # of 8 experts one, and 50 that all share
    assert read_bytes(mixture, 2) == pytest.approx(50 + 800 * (1 - (7 / 8) ** 2))
    assert read_bytes(mixture, 10_000) == pytest.approx(850)


def test_bytes_of_experts_that_routers_really_chose():
    """Not those of an even router, where tokens agree about a few."""
    sizes, loads = ModelSizes(1, 1, 1000, 150, 800, 100, {0: 40, 1: 60}), ExpertLoads()
    routed = [
        RoutedLayer(0, np.array([[0], [0]], np.int32), np.zeros((2, 8))),
        RoutedLayer(1, np.array([[0], [5]]), np.zeros((2, 8))),
    ]
    for _ in range(3):
        loads(np.arange(2), routed)
    assert bytes_read(sizes, {2: 3}, loads) == 3 * (50 + 40 + 2 * 60)
    assert bytes_read(sizes, {2: 3}, None) == 3 * read_bytes(sizes, 2)


@pytest.mark.parametrize("kind", ["qwen3moe", "gpt-oss", "deepseek3"])
def test_bytes_of_a_token_of_a_real_mixture_are_those_that_it_uses(kind, tmp_path):
    async def run():
        async with registry_of(tiny(kind, "gguf", tmp_path), load=LoadOptions(backend="reference", context=256)) as registry:
            metrics = Metrics(registry, expert_load=True)
            registry.on_loaded(metrics.watch)
            async with registry.use(None) as served:
                served.worker.queue = type("Queue", (), {"waiting": 0, "running": 0})()
                list(served.model.engine.generate([5], Sampling(max_tokens=3, temperature=0)))
                return values(metrics), served.model.spec.sizes

    found, sizes = asyncio.run(run())
    ((_, read),) = [each for each in found.items() if each[0][0] == "lacewing_weight_bytes_read_total"]
    assert read == 3 * sizes.active_bytes


def test_all_metrics_are_described():
    """`HELP` is the list that the documentation is made of."""
    source = Path(metrics_module.__file__).read_text(encoding="utf-8")
    made = set(re.findall(r'families\.add\("(\w+)"', source))
    made |= {f"lacewing_{key}" for key in re.findall(r'^        "(\w+)": ', source, re.M)}
    metrics = Metrics(Empty())
    own = {name for name in metrics.collected._names_to_collectors if name.startswith("lacewing_")}
    named = made | {name for name in own if name in HELP}
    assert named == set(HELP)


def test_the_endpoint():
    app = MetricsEndpoint(echo, Metrics(Empty()))
    answer = ask(app, path="/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "lacewing_info" in answer.text and "_created" not in answer.text
    assert ask(app, path="/metrics/x").text == "" and ask(app, "POST", path="/metrics", content=b"x").text == "x"
