"""What a step says of its rows of logits, whatever made them and however many threads; in paged.py all runs of tests look at it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.program.ops import Buffer, Embed, Logits
from lacewing.program.program import Program
from tests import paged
from tests.backends.cpu.single_ops import Case, floats, normal, random_weight
from tests.checkpoints import prompt_of, tiny
from tests.maxima import check_maxima
from tests.models.running import MappedWeight, open_step


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("width", [1, 2, 17, 333, 2049])
def test_of_one_run_after_the_other(threads: int, width: int) -> None:
    """Rows are the tokens' own numbers, through an identity: many are equal, and one token's are NaN."""
    x = normal(8, width, seed=width).round(0)
    x[5, width // 2] = np.nan
    view = Buffer("x", width).view()
    step = Case((), x, view, {}).step(CpuBackend(threads), 64, 8)
    for tokens in ([0], [1, 2, 3], [5], [7, 5, 6, 0], [4, 5], range(8), [2]):
        count = len(tokens)
        rows = paged.run(step, tokens, range(count), [0] * count, range(count))
        assert step.maxima is not None and [each < 0 for each in step.maxima.ids] == [token == 5 for token in tokens]
        sound = [index for index, token in enumerate(tokens) if token != 5]
        assert step.maxima.ids[sound].tolist() == rows[sound].argmax(axis=1).tolist()
    step.close()
    assert step.maxima is None


@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_K", "F16"])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (-0.25, None), (2.0, 3.0), (1e3, 0.5)])
def test_behind_scale_cap_and_bias(quant: str, scale: float, softcap: float | None) -> None:
    """A cap makes many logits equal to it."""
    vocab, width = 301, 256
    head = floats("head", normal(vocab, width, seed=1)) if quant == "F32" else random_weight("head", quant, vocab, width)
    weights: dict[str, MappedWeight] = {
        "head": head, "rows": floats("rows", normal(vocab, width, seed=2)), "b": floats("b", normal(vocab, seed=3))
    }  # fmt: skip
    ops = (Embed("rows", Buffer("x", width).view()), Logits(Buffer("x", width).view(), "head", scale, softcap, "b"))
    program = Program(ops, {name: weight.shape for name, weight in weights.items()}, (), vocab)
    for threads in (1, 2, 3):
        step = CpuBackend(threads).compile(program, weights, StepLimits(64, 64, 64))
        for tokens in ([3], [5, 6, 7], range(60)):
            count = len(tokens)
            rows = paged.run(step, tokens, range(count), [0] * count, range(count))
            assert step.maxima is not None
            check_maxima(step.maxima, rows)
        step.close()


def test_more_threads_than_pieces_and_none_wanted(tmp_path: Path) -> None:
    _, step = open_step(tiny("gemma2", "gguf", tmp_path, "Q8_0"), None, CpuBackend(4), rows=2)
    ids = prompt_of("gemma2")[:4]
    paged.run(step, ids, [0] * 4, range(4), [])
    assert step.maxima is not None and not len(step.maxima.ids)
    rows = paged.run(step, ids, [1] * 4, range(4), [3, 0])
    check_maxima(step.maxima, rows)
    step.close()
