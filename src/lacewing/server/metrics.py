"""Metrics for Prometheus: what requests cost as they end, and how models and their engines are when somebody asks.

Names that others show as well are alike in meaning to vLLM's and llama-server's; expert load, bytes of weights read and the
progress of loading are ours. The table `HELP` is the list of them all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.types import ASGIApp, Receive, Scope, Send

from lacewing import __version__
from lacewing.engine.loads import ExpertLoads
from lacewing.server.events import Observer, Record

if TYPE_CHECKING:
    from lacewing.models.sizes import ModelSizes
    from lacewing.server.models.registry import Registry
    from lacewing.server.models.served import Served

PATH = "/metrics"
_KIND = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300)
_GAPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5)

HELP = {
    "lacewing_info": "1, with the version as a label",
    "lacewing_requests_total": "requests for answers that are over, by status",
    "lacewing_responses_total": "HTTP responses, by status, refusals among them",
    "lacewing_answers_total": "answers that are over, by the reason why they ended",
    "lacewing_prompt_tokens_total": "tokens of prompts, those found in the prefix cache among them",
    "lacewing_cached_prompt_tokens_total": "tokens of prompts that were found in the prefix cache",
    "lacewing_generated_tokens_total": "tokens of answers",
    "lacewing_queue_seconds": "from the arrival of a request to its place among those that run, loading its model included",
    "lacewing_time_to_first_token_seconds": "from the arrival of a request to the first token of its answer",
    "lacewing_inter_token_seconds": "between two deliveries of tokens of one answer",
    "lacewing_request_seconds": "from the arrival of a request to its end",
    "lacewing_requests_waiting": "requests that wait for a place of a model",
    "lacewing_requests_running": "requests that have a place of a model",
    "lacewing_sequences_running": "sequences in the rows of the engine",
    "lacewing_sequences_limit": "rows of the engine",
    "lacewing_kv_pages_used": "pages of 128 positions, and units, that are held by sequences or the prefix cache",
    "lacewing_kv_pages_limit": "pages and units that there may be",
    "lacewing_kv_bytes": "memory of pages and units that there are now",
    "lacewing_preemptions_total": "sequences that made room for others and ran again later",
    "lacewing_run_faults_total": "runs of several sequences that failed, after which each of them ran alone to find the cause",
    "lacewing_evictions_total": "times that the prefix cache made room",
    "lacewing_runs_total": "runs of the engine",
    "lacewing_run_tokens_total": "tokens of these runs, of prompts and answers",
    "lacewing_run_seconds_total": "time of these runs",
    "lacewing_weight_bytes_read_total": "bytes of weights that runs used; for experts an estimate that assumes even routing, or "
    "with --expert-metrics those that were chosen",
    "lacewing_expert_hit_ratio": "if experts are split between a GPU and the CPU: the share of chosen experts that were on the "
    "GPU, since the last rebalancing",
    "lacewing_expert_hits_total": "experts of a streamed model that were in RAM when a router chose them, counted in each layer",
    "lacewing_expert_misses_total": "experts of a streamed model that were read from disk when a router chose them, counted in "
    "each layer",
    "lacewing_expert_reads_total": "reads that a streamed model has made for experts: one each from a pack, else up to three",
    "lacewing_expert_read_bytes_total": "bytes of experts that a streamed model has read from disk",
    "lacewing_expert_wait_seconds_total": "time that runs of a streamed model have waited for experts from disk",
    "lacewing_expert_warmed_total": "experts of a streamed model that came from its usage history before the first prompt",
    "lacewing_expert_gpu_hits_total": "experts of a streamed model that a GPU held when a router chose them, counted in each layer",
    "lacewing_expert_uploads_total": "experts of a streamed model that came from RAM to the GPU",
    "lacewing_expert_uploaded_bytes_total": "bytes of these experts",
    "lacewing_expert_guesses_total": "experts of a streamed model that were read before a router chose them",
    "lacewing_expert_guesses_right_total": "those of them that were then chosen",
    "lacewing_expert_wasted_bytes_total": "bytes that a streamed model has read for experts that were not chosen after all",
    "lacewing_expert_tokens_total": "tokens that the router of a layer sent to an expert (--expert-metrics)",
    "lacewing_model_state": "1 for the state that a model is in",
    "lacewing_model_memory_bytes": "RAM that a model has for itself",
    "lacewing_model_device_bytes": "memory of a GPU that a model has",
    "lacewing_model_load_progress": "of a model that is being loaded, the share of the present stage that is done",
    "lacewing_model_loads_total": "models that were loaded",
    "lacewing_model_load_failures_total": "models that could not be loaded",
    "lacewing_model_load_seconds_total": "time that loading took, waiting for other models included",
    "lacewing_models_put_aside_total": "models whose weights left the RAM for another model",
    "lacewing_models_unloaded_total": "models that left the memory",
}
STATES = ("loaded", "loading", "aside", "unloaded", "failed")


class Metrics(Observer):
    """Of one server. `expert_load`: also what each expert of a mixture gets, which costs some speed."""

    def __init__(self, registry: Registry, expert_load: bool = False):
        disable_created_metrics()  # type: ignore[no-untyped-call]  # else a line more for each, of when it was made
        self.collected = CollectorRegistry()
        self.requests = self._counter("requests", "model", "endpoint", "status")
        self.responses = self._counter("responses", "status")
        self.answers = self._counter("answers", "model", "reason")
        self.tokens_in, self.cached, self.tokens_out = (
            self._counter(name, "model") for name in ("prompt_tokens", "cached_prompt_tokens", "generated_tokens")
        )
        self.queued, self.first, self.whole = (
            self._histogram(name, _SECONDS) for name in ("queue_seconds", "time_to_first_token_seconds", "request_seconds")
        )
        self._gaps = _Gaps()
        self.collected.register(self._gaps)
        self._expert_load, self._loads = expert_load, dict[str, ExpertLoads]()
        self.collected.register(_Models(registry, self._loads))
        ProcessCollector(registry=self.collected)

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(f"lacewing_{name}", HELP[f"lacewing_{name}_total"], labels, registry=self.collected)

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"lacewing_{name}", HELP[f"lacewing_{name}"], ["model"], buckets=buckets, registry=self.collected)

    def started(self, record: Record) -> None:
        if record.started is not None:
            self.queued.labels(record.model).observe(record.started - record.began)

    def tokens(self, record: Record, count: int, gap: float | None) -> None:
        if gap is not None:  # inline: each call costs a few us here
            gaps, model = self._gaps, record.model
            counts = gaps.counts.get(model) or gaps.begin(model)
            counts[bisect_left(_GAPS, gap)] += 1
            gaps.sums[model] += gap
        elif record.first_token is not None:
            self.first.labels(record.model).observe(record.first_token - record.began)

    def finished(self, record: Record) -> None:
        model = record.model
        self.requests.labels(model, record.endpoint, str(record.status)).inc()
        for reason in record.finish_reasons:
            self.answers.labels(model, reason).inc()
        self.tokens_in.labels(model).inc(record.prompt_tokens)
        self.cached.labels(model).inc(record.cached_tokens)
        self.tokens_out.labels(model).inc(record.generated_tokens)
        if record.ended is not None:
            self.whole.labels(model).observe(record.ended - record.began)

    def watch(self, served: Served) -> None:
        """A model that has been loaded."""
        if self._expert_load and served.model.spec.sizes.expert_bytes:
            self._loads[served.name] = loads = ExpertLoads()  # as new as the engine's own counters
            served.model.engine.observe(loads)

    def responded(self, status: int) -> None:
        """To any request."""
        self.responses.labels(str(status)).inc()

    def text(self) -> bytes:
        """All of them, in Prometheus' form."""
        return generate_latest(self.collected)


class _Gaps(Collector):
    """`lacewing_inter_token_seconds`, which comes with every token: the locks of the library's cost more. One thread observes."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}  # by model, of each bucket
        self.sums: dict[str, float] = {}  # seconds

    def begin(self, model: str) -> list[int]:
        """The counts of a model that had none."""
        self.sums[model] = 0.0
        counts = self.counts[model] = [0] * (len(_GAPS) + 1)
        return counts

    def describe(self) -> list[HistogramMetricFamily]:
        name = "lacewing_inter_token_seconds"
        return [HistogramMetricFamily(name, HELP[name], labels=["model"])]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        (family,) = self.describe()
        for model, counts in self.counts.items():
            sums = zip((*map(float, _GAPS), float("inf")), accumulate(counts), strict=True)
            buckets = [(floatToGoString(bound), count) for bound, count in sums]  # type: ignore[no-untyped-call]
            family.add_metric([model], buckets, self.sums[model])
        yield family


class MetricsEndpoint:
    """Answers GET /metrics; everything else is the application's."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] not in ("GET", "HEAD"):
            return await self._app(scope, receive, send)
        body = self._metrics.text()
        headers = [(b"content-type", _KIND.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})


class _Models(Collector):
    """What is looked at when somebody asks. Engines run meanwhile: counts may be one run old."""

    def __init__(self, registry: Registry, loads: Mapping[str, ExpertLoads]):
        self._registry, self._loads = registry, loads

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return ()  # else it would be collected when it is registered

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        registry, families = self._registry, _Families()
        families.add("lacewing_info", 1, version=__version__)
        for entry in registry.names():
            for state in STATES:
                families.add("lacewing_model_state", entry.status == state, model=entry.name, state=state)
        for name, (_, done, total) in registry.loading.items():
            families.add("lacewing_model_load_progress", done / total if total else 0.0, model=name)
        counts = registry.counts
        families.add("lacewing_model_loads_total", counts.loads)
        families.add("lacewing_model_load_failures_total", counts.failures)
        families.add("lacewing_model_load_seconds_total", counts.load_seconds)
        families.add("lacewing_models_put_aside_total", counts.asides)
        families.add("lacewing_models_unloaded_total", counts.unloads)
        for served in registry.served:
            if served.model.on_device:
                _engine(families, served, self._loads.get(served.name))
        for name, loads in self._loads.items():
            for layer, tokens in loads.layers().items():
                for expert, count in enumerate(tokens):
                    families.add("lacewing_expert_tokens_total", count, model=name, layer=str(layer), expert=str(expert))
        yield from families.found.values()


class _Families:
    """Families of metrics by name, made as they come."""

    def __init__(self) -> None:
        self.found: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}

    def add(self, name: str, value: float, **labels: str) -> None:
        if name not in self.found:
            made = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            self.found[name] = made(name, HELP[name], labels=list(labels))
        self.found[name].add_metric(list(labels.values()), float(value))


def _engine(families: _Families, served: Served, loads: ExpertLoads | None) -> None:
    model, worker, name = served.model, served.worker, served.name
    scheduler, step = model.engine.scheduler, model.engine.step
    counters, pages, limits = scheduler.counters, scheduler.pages, step.limits
    runs = dict(counters.runs)  # a copy: the engine's thread adds to it
    values = {
        "requests_waiting": worker.queue.waiting,
        "requests_running": worker.queue.running,
        "sequences_running": len(scheduler.running),
        "sequences_limit": limits.rows,
        "kv_pages_used": sum(pages.used(group) for group in range(len(step.groups))),
        "kv_pages_limit": sum(each.planned(limits.context, limits.chunk, limits.rows, limits.positions) for each in step.groups),
        "kv_bytes": step.state_bytes,
        "preemptions_total": counters.preemptions,
        "run_faults_total": counters.faults,
        "evictions_total": counters.evictions,
        "runs_total": sum(runs.values()),
        "run_tokens_total": sum(tokens * count for tokens, count in runs.items()),
        "run_seconds_total": counters.run_seconds,
        "weight_bytes_read_total": bytes_read(model.spec.sizes, runs, loads),
        "model_memory_bytes": model.memory_bytes,
        "model_device_bytes": model.device_bytes,
    }
    for key, value in values.items():
        families.add(f"lacewing_{key}", value, model=name)
    cache = step.cache_statistics
    if cache is not None and cache.hit_rate is not None:
        families.add("lacewing_expert_hit_ratio", cache.hit_rate, model=name)
    if (experts := model.weights.experts) is not None:
        use = experts.statistics
        families.add("lacewing_expert_hits_total", use.hits, model=name)
        families.add("lacewing_expert_misses_total", use.misses, model=name)
        families.add("lacewing_expert_reads_total", use.reads, model=name)
        families.add("lacewing_expert_read_bytes_total", use.nbytes, model=name)
        families.add("lacewing_expert_wait_seconds_total", use.waited, model=name)
        families.add("lacewing_expert_warmed_total", use.warmed, model=name)
        if cache is not None:
            families.add("lacewing_expert_gpu_hits_total", use.elsewhere, model=name)
            families.add("lacewing_expert_uploads_total", use.uploaded, model=name)
            families.add("lacewing_expert_uploaded_bytes_total", use.uploaded_bytes, model=name)
        if experts.pool.trial is not None:
            families.add("lacewing_expert_guesses_total", use.guessed, model=name)
            families.add("lacewing_expert_guesses_right_total", use.guessed_right, model=name)
            families.add("lacewing_expert_wasted_bytes_total", use.wasted_bytes, model=name)


def bytes_read(sizes: ModelSizes, runs: Mapping[int, int], loads: ExpertLoads | None) -> float:
    """Weights that `runs` (of how many tokens: how many) have read; `loads`: what their routers chose, if that was counted."""
    if loads is None:
        return sum(count * read_bytes(sizes, tokens) for tokens, count in runs.items())
    shared = sum(runs.values()) * (sizes.active_bytes - sizes.active_expert_bytes)
    return shared + sum(count * sizes.layer_expert_bytes[layer] for layer, count in loads.reads().items())


def read_bytes(sizes: ModelSizes, tokens: int) -> float:
    """Weights that a run of so many tokens reads: what all share once, and the different experts among those that an even router
    chooses for them."""
    active, experts, chosen = sizes.active_bytes, sizes.expert_bytes, sizes.active_expert_bytes
    if not experts:
        return float(active)
    return float(active - chosen + experts * (1 - (1 - chosen / experts) ** tokens))
