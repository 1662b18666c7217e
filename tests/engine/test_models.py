"""Several sequences on real backends: up to rounding on the reference backend, bitwise on the CPU, whoever else is served."""

from __future__ import annotations

import numpy as np
import pytest

import lacewing
from lacewing.engine.engine import Request
from lacewing.options import Sampling
from tests.checkpoints import tiny

KINDS = ("llama", "gemma3", "gpt-oss", "llama4", "deepseek3", "lfm2", "qwen35moe", "granitehybrid-moe", "nemotron_h-moe",
         "gemma4-edge", "gemma3n")  # fmt: skip


def prompts(vocab_size, kind):
    """Some that share a beginning, some that do not; with edits of each other."""
    random = np.random.default_rng(len(kind))
    base = random.integers(0, vocab_size, 400).tolist()
    tails = random.integers(0, vocab_size, (6, 60)).tolist()
    return [base[:150], [*base[:140], *tails[0]], tails[1], [*base[:300], *tails[2][:9]], [*tails[1][:20], *tails[3]], tails[4][:1]]


@pytest.mark.parametrize("kind", ["gemma3", "qwen35moe"])  # of all others a session in tests/models/test_sessions.py
@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=0), Sampling(temperature=1.5, top_k=0, seed=7)], ids=["greedy", "whole row"]
)
def test_on_the_cpu_nobody_changes_what_another_says(kind, sampling, tmp_path):
    """Not the batch, pieces of prompts, shared pages, or a sequence that had to make room; log-probabilities show bits."""
    options = Sampling(**{**sampling.__dict__, "max_tokens": 12, "logprobs": 3})
    path = tiny(kind, "gguf", tmp_path)
    with lacewing.load(path, backend="cpu", context=512, threads=2) as model:
        work = prompts(model.spec.vocab_size, kind)
        alone = []
        for ids in work:
            model.engine.forget()
            alone.append(list(model.engine.generate(ids, options)))
    with lacewing.load(path, backend="cpu", context=1024, threads=2, sequences=4) as model:
        engine = model.engine
        streams = [engine.submit(Request(ids, options, marks=(140,))) for ids in work[:3]]
        for step in range(60):
            if step in (1, 4, 9):
                streams.append(engine.submit(Request(work[len(streams)], options)))
            if step == 6 and len(engine.scheduler.running) > 1:
                engine.scheduler._preempt(engine.scheduler.running[-1], first=True)
            engine.advance()
        assert [list(stream) for stream in streams] == alone
        assert sum(stream.stats.reused_tokens for stream in streams) > 0
        again = [engine.submit(Request(ids, options)) for ids in work]  # with what is held now
        assert [list(stream) for stream in again] == alone


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        *((kind, "reference") for kind in KINDS),
        *(pytest.param(kind, "webgpu", marks=pytest.mark.gpu) for kind in ("gpt-oss", "lfm2", "qwen35moe", "gemma4-edge")),
    ],
)
def test_on_other_backends_up_to_rounding(kind, backend, tmp_path):
    options = Sampling(temperature=0, max_tokens=8, logprobs=1)
    path = tiny(kind, "gguf", tmp_path)
    with lacewing.load(path, backend=backend, context=512, sequences=3) as model:
        engine, work = model.engine, prompts(model.spec.vocab_size, kind)
        alone = []
        for ids in work:
            engine.forget()
            alone.append(list(engine.generate(ids, options)))
        engine.forget()
        together = [list(stream) for stream in [engine.submit(Request(ids, options, marks=(140,))) for ids in work]]
    for one, other in zip(alone, together, strict=True):
        assert [token.id for token in one] == [token.id for token in other]
        np.testing.assert_allclose([token.logprob for token in one], [token.logprob for token in other], atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_a_gpu_chooses_for_several_at_once(kind, tmp_path):
    sampling = Sampling(temperature=0, max_tokens=140)
    with lacewing.load(tiny(kind, "gguf", tmp_path), backend="webgpu", context=1024, sequences=3) as model:
        engine, work = model.engine, prompts(model.spec.vocab_size, kind)[:3]
        alone = []
        for ids in work:
            engine.forget()
            alone.append([token.id for token in engine.generate(ids, sampling)])
        engine.forget()
        calls, greedy = [], model.step.greedy
        model.step.greedy = lambda batch, count: (calls.append(len(batch.tokens)), greedy(batch, count))[1]
        streams = [engine.submit(Request(ids, sampling)) for ids in work]
        assert [[token.id for token in stream] for stream in streams] == alone
        assert max(calls) == 3


@pytest.mark.parametrize("backend", ["cpu", "reference", pytest.param("webgpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_several_whole_contexts_at_once(kind, backend, tmp_path):
    """`kv_tokens` beyond one context: nobody makes room for another, and all that was said is found again."""
    options = Sampling(temperature=0, max_tokens=3)
    with lacewing.load(tiny(kind, "gguf", tmp_path), backend=backend, context=256, sequences=3, kv_tokens=768) as model:
        engine, random = model.engine, np.random.default_rng(1)
        work = random.integers(0, model.spec.vocab_size, (3, 240)).tolist()
        alone = []
        for ids in work:
            engine.forget()
            alone.append([token.id for token in engine.generate(ids, options)])
        engine.forget()
        left = []
        preempt, engine.scheduler._preempt = (
            engine.scheduler._preempt,
            lambda *given, **more: (left.append(given), preempt(*given, **more)),
        )
        assert [[token.id for token in stream] for stream in [engine.submit(Request(ids, options)) for ids in work]] == alone
        assert not left
        if kind == "llama":
            assert [engine.held(ids) for ids in work] == [240, 240, 240]
