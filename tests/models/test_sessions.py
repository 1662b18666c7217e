"""A session with a model of every family: whatever came before and beside it, a sequence has the bits of a fresh run."""

from __future__ import annotations

import random
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.engine.engine import Engine, Request
from lacewing.formats import open_checkpoint
from lacewing.formats.checkpoint import Checkpoint
from lacewing.models import ModelSpec, open_model
from lacewing.options import Sampling
from lacewing.program.states import PAGE
from lacewing.weights import WeightStore
from tests import mixtures, paged
from tests.checkpoint_files import write_gguf_tensors
from tests.checkpoints import GOLDEN, ONLY_HUGGINGFACE, tiny
from tests.families import kimi_linear
from tests.models.running import run
from tests.models.test_old_files import of_ollama, parts_of

CONTEXT, TOKENS = 256, 6
# Rows of the tiny checkpoints that hold no whole blocks of 32.
LATENT = {"q_lora_rank": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
WIDER: dict[str, dict[str, Any]] = {
    "mixtral": {"intermediate_size": 64},
    "llama4-128": {"intermediate_size": 32},
    "kimi-linear": {"qk_nope_head_dim": 32, "v_head_dim": 32, "linear_attn_config": kimi_linear.LINEAR | {"head_dim": 32}},
    **dict.fromkeys([name for name in GOLDEN if name.startswith(("deepseek", "mistral4", "glm4moe-lite"))], LATENT),
}


def opened(name: str, folder: Path) -> Checkpoint:
    """Quantised as far as the format can be, so that eager weights are tiles."""
    if name == "gptoss":
        _, keys, tensors = parts_of("gpt-oss")
        return open_checkpoint(write_gguf_tensors(folder / "blob", name, keys, of_ollama(tensors), "F32"))
    if name in (*ONLY_HUGGINGFACE, *mixtures.ONLY_HUGGINGFACE):
        return open_checkpoint(tiny(name, "huggingface", folder, "BF16"))
    return open_checkpoint(tiny(name, "gguf", folder, "Q8_0", **WIDER.get(name, {})))


class Session:
    """An engine of two rows whose weights are lazy at first; of every run it keeps the logits and the ids that they come after."""

    def __init__(self, spec: ModelSpec, seed: int):
        self.random, backend = random.Random(seed), CpuBackend(2)
        self.weights, limits = WeightStore(spec.tensors), StepLimits(CONTEXT, self.random.randint(20, 64), 2, 4 * CONTEXT)
        self.tiled = backend.tile_orders(spec.program, self.weights)
        self.weights.arrange(self.tiled)
        self.step = backend.compile(spec.program, self.weights, limits)
        self.engine = Engine(self.step, spec.vocab_size, CONTEXT)
        self.seen: list[tuple[list[int], np.ndarray]] = []
        self.sizes: set[int] = set()  # of what the runs carried of a sequence
        self._run, self.step._run = self.step._run, self._watched  # type: ignore[method-assign]

    def _watched(self, batch: Batch) -> np.ndarray:
        logits, before = self._run(batch), {task.sequence.row: task.sequence.ids for task in self.engine.scheduler.running}
        for at, row in zip(batch.outputs, logits, strict=True):
            if batch.rows[at] in before:
                own = (batch.rows == batch.rows[at]) & (np.arange(len(batch.rows)) <= at)
                self.seen.append((before[batch.rows[at]] + batch.tokens[own].tolist(), row.copy()))
        self.sizes |= set(np.unique_counts(batch.rows).counts.tolist())
        return logits

    def extend(self, ids: list[int]) -> None:
        """After what ran last, in pieces."""
        before = list(self.engine.cached)
        for end in sorted({*self.random.sample(range(1, len(ids)), 4), len(ids)}):
            done = len(self.engine.cached) - len(before)
            self.seen.append((before + ids[:end], self.engine.extend(ids[done:end]).copy()))

    def step_back(self, ids: list[int]) -> None:
        """To the end of `ids`, which is within what ran last."""
        assert self.engine.cached[: len(ids)] == ids
        self.engine.scheduler.last = ids

    def ask(self, *prompts: list[int], mark: int) -> int:
        """All at once, one of which has to make room on its way; how many ids were found instead of run."""
        sampling = Sampling(temperature=0, max_tokens=TOKENS)
        streams = [self.engine.submit(Request(ids, sampling, marks=(mark,))) for ids in prompts]
        for _ in range(self.random.randint(3, 9)):
            self.engine.advance()
        if len(self.engine.scheduler.running) > 1:
            self.engine.scheduler._preempt(self.engine.scheduler.running[-1], first=True)
        assert [len(list(stream)) for stream in streams] == [TOKENS] * len(prompts)
        return sum(stream.stats.reused_tokens for stream in streams)

    def set_residency(self, residency: str) -> None:
        self.weights.set_residency(residency)
        self.step.rebind()
        assert all((self.weights[each].tiled is not None) == (residency == "eager") for each in self.tiled)

    def close(self) -> None:
        self.engine.close()
        self.step.close()
        self.weights.close()


@pytest.mark.parametrize("name", [*GOLDEN, "gptoss"])
def test_a_session_has_the_bits_of_fresh_runs(name: str, tmp_path: Path) -> None:
    """Prompts in pieces, a step back, a prefix taken up again, two sequences in a step, one that makes room, other residencies."""
    spec, seed = open_model(opened(name, tmp_path), CONTEXT), zlib.crc32(name.encode())
    first, other, third = np.random.default_rng(seed).integers(0, 256, (3, 200)).tolist()
    session, cut = Session(spec, seed), random.Random(seed).randint(PAGE + 1, 150)
    session.extend(first[:170])
    session.step_back(first[:cut])
    session.extend(third[:30])
    session.set_residency("eager")
    session.ask(first[:170], other[: PAGE + 30], mark=cut)
    session.set_residency("lazy")
    assert session.ask(first[:cut] + third[:40], other[: PAGE + 10] + third[:20], mark=cut) >= PAGE
    session.close()
    check(spec, session)


def check(spec: ModelSpec, session: Session) -> None:
    """Everything that was seen beside runs of one piece each, by one thread, of lazy weights."""
    assert len(session.seen) > 30 and len(session.sizes) > 7
    weights = WeightStore(spec.tensors)
    step = paged.with_pages(CpuBackend(1).compile(spec.program, weights, StepLimits(CONTEXT, CONTEXT)))
    left = sorted(session.seen, key=lambda each: -len(each[0]))
    while left:
        longest = left[0][0]
        logits = run(step, longest)
        assert np.isfinite(logits).all()
        for ids, row in left:
            if longest[: len(ids)] == ids:
                assert np.array_equal(row, logits[len(ids) - 1]), f"{len(ids)} ids"
        left = [each for each in left if longest[: len(each[0])] != each[0]]
    step.close()
    weights.close()
