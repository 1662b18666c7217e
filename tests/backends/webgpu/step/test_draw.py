"""Tokens drawn on the device: what a sampler then draws of the same candidates, and what the next run begins with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.batch import Draw, Wanted
from lacewing.engine.sampling import Sampler
from lacewing.errors import NumericError
from lacewing.options import Sampling
from tests import paged
from tests.backends.webgpu.single_ops import VARIANTS, backend
from tests.backends.webgpu.step.test_choice import table
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step

OPTIONS = [
    Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05),
    Sampling(temperature=1.0, top_k=64, top_p=1.0, min_p=0.0),
    Sampling(temperature=2.5, top_k=7, top_p=0.6, min_p=0.0),
    Sampling(temperature=0.3, top_k=50, top_p=1.0, min_p=0.3),
    Sampling(temperature=1.0, top_k=64, top_p=1e-9, min_p=1.0),
    Sampling(temperature=1e-5, top_k=9, top_p=0.9, min_p=0.0),
    Sampling(temperature=0.0),
    Sampling(temperature=100.0, top_k=64, top_p=0.999, min_p=1e-6),
]


def logits_of(size: int) -> np.ndarray:
    """Rows that are steep and flat, with ties, very small ones, and with few that are finite."""
    random = np.random.Generator(np.random.PCG64(3))
    rows = random.normal(size=(size, size)).astype(np.float32) * random.choice([0.01, 1, 4], (size, 1)).astype(np.float32)
    rows[::3] = np.round(rows[::3])
    rows[1::5] -= 1e4
    return rows


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [48, 200])
def test_what_a_sampler_draws(size: int, variant: str) -> None:
    """Of every kind of options in one run, at any random number; each run begins with the tokens of the one before."""
    rows = logits_of(size)
    count, samplers = len(OPTIONS), [Sampler(each, size) for each in OPTIONS]
    step, draws = table(rows, variant, count), [each.draw or Draw() for each in samplers]
    random = np.random.Generator(np.random.PCG64(5))
    tokens, numbers = np.arange(count) * 5, random.random((24, count))
    numbers[0], numbers[1] = 0.0, np.nextafter(1.0, 0.0)
    batch = paged.batch(step, tokens, range(count), [0] * count, range(count))
    seen = 0
    for index, (found, expected) in enumerate(step.drawn(batch, draws, 24, lambda n: numbers[n].tolist())):
        for row, (sampler, candidates) in enumerate(zip(samplers, found, strict=True)):
            order = np.argsort(-rows[tokens[row]], kind="stable")[: len(candidates.ids)]
            assert np.array_equal(candidates.ids, order) and len(order) == min(draws[row].count, size)
            sampler._numbers.clear()
            sampler._numbers.append(float(numbers[index, row]))
            token = sampler.pick_among(sampler.wanted([]), [candidates], [])
            assert token is not None and token.id == expected[row], (index, OPTIONS[row])
        tokens, seen = expected, seen + 1
    assert seen == 24
    step.close()


def test_broken_logits() -> None:
    rows = logits_of(70)
    rows[3] = 0
    rows[3, 9] = 50
    rows[9, 30] = np.nan
    step = table(rows)
    drawn = step.drawn(paged.batch(step, [3], [0], [0], [0]), [Draw(40)], 5, lambda n: [0.5])
    found, expected = next(drawn)
    assert expected.tolist() == [9] == found[0].ids[:1].tolist()
    with pytest.raises(NumericError, match="NaN or infinite"):
        next(drawn)
    step.close()


@pytest.mark.parametrize("name", ["llama", "lfm2"])
def test_several_rows_of_a_model(name: str, tmp_path: Path) -> None:
    """Also units that take turns. A run that went the wrong way is made again from what was there before it."""
    _, step = open_step(tiny(name, "gguf", tmp_path), None, backend(), rows=4, chunk=64)
    prompts = {0: prompt_of(name, 5), 3: prompt_of(name, 12), 1: prompt_of(name, 9)[::-1]}
    rows, draw = list(prompts), [Draw(20, 0.9, 0.01, 1.5)] * 3
    for row, ids in prompts.items():
        paged.run_row(step, ids[:-1], 0, row)
    batch = paged.batch(step, [ids[-1] for ids in prompts.values()], rows, [len(ids) - 1 for ids in prompts.values()], range(3))
    random = np.random.Generator(np.random.PCG64(1)).random((9, 3))
    drawn = [(found, ids) for found, ids in step.drawn(batch, draw, 9, lambda n: random[n].tolist())]
    for row, ids in prompts.items():  # from the beginning, since the states have gone on
        paged.run_row(step, ids[:-1], 0, row)
    batch = paged.batch(step, batch.tokens, rows, batch.positions, range(3))
    for found, ids in drawn:
        for got, wanted in zip(found, step.choose(batch, [Wanted(20)] * 3), strict=True):
            assert np.array_equal(got.ids, wanted.ids) and np.array_equal(got.logits, wanted.logits)
            assert got.log_sum == wanted.log_sum
        batch = paged.batch(step, ids, rows, batch.positions + 1, range(3))
    step.close()
