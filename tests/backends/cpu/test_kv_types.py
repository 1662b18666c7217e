"""What q8_0 costs on a real model: Kullback-Leibler divergence from exact arithmetic, in nats a token, beside that of float16.

The CPU's rounding of activations to bytes alone moves logits by as much: two types compared with each other would show that.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lacewing.api import load_tokenizer
from lacewing.backends.base import Backend
from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.program.ops import Hadamard
from tests.models.running import mapped_weights, run
from tests.paged import with_pages

MOST = 0.002
TEXT = """Once upon a time there was an old fisherman who lived with his wife in a small house near the sea. Every morning he went
out in his boat, and every evening he came home with a few fish, which his wife cooked for dinner. One day, when the wind was
strong and the waves were high, he pulled his net out of the water and found in it a small golden fish. The fish spoke to him and
said: "Let me go, good man, and I will give you whatever you wish." The fisherman was so surprised that he dropped the net."""
TEXT = TEXT.replace("\n", " ")

CODE = """def merge(left: list[int], right: list[int]) -> list[int]:
    merged, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            merged.append(left[i])
            i += 1
        else:
            merged.append(right[j])
            j += 1
    return merged + left[i:] + right[j:]


def merge_sort(values: list[int]) -> list[int]:
    if len(values) < 2:
        return values
    middle = len(values) // 2
    return merge(merge_sort(values[:middle]), merge_sort(values[middle:]))
"""


def log_softmax(path: Path, dtype: str, backend: Backend, text: str = TEXT, spread: bool = True) -> np.ndarray:
    """float64 (T, V)"""
    spec, ids = open_model(open_checkpoint(path), None), list(load_tokenizer(str(path)).encode(text))
    program = spec.program.with_kv_type(dtype)
    if not spread:
        program = replace(program, ops=tuple(op for op in program.ops if not isinstance(op, Hadamard)))
    step = with_pages(backend.compile(program, mapped_weights(dict(spec.tensors)), StepLimits(512, 512)))
    logits = run(step, ids).astype(np.float64)
    step.close()
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    return float((np.exp(exact) * (exact - found)).sum(axis=1).mean())


def spread_and_plain(path: Path) -> tuple[float, float]:
    """What q8_0 costs on code, in exact arithmetic but for the keys and values, with and without the spreading of keys."""
    exact = log_softmax(path, "f32", ReferenceBackend(), CODE)
    ways = (log_softmax(path, "q8_0", ReferenceBackend(exact=False), CODE, spread=spread) for spread in (True, False))
    spread, plain = (divergence(exact, found) for found in ways)
    return spread, plain


def test_spreading_outliers_of_keys_helps(smollm2_path: Path) -> None:
    spread, plain = spread_and_plain(smollm2_path)  # measured: 0.00022 and 0.0008
    assert spread < 0.5 * plain and spread < MOST / 4


@pytest.mark.slow
def test_it_helps_a_model_with_normalised_keys(gemma3_path: Path) -> None:
    spread, plain = spread_and_plain(gemma3_path)  # measured: 0.0027 and 0.0036
    assert spread < 0.9 * plain and spread < 0.003


def test_q8_0_is_nearly_as_near_to_exact_arithmetic_as_float16(smollm2_path: Path) -> None:
    exact = log_softmax(smollm2_path, "f32", ReferenceBackend())
    alone = divergence(exact, log_softmax(smollm2_path, "q8_0", ReferenceBackend(exact=False)))
    half, blocks = (divergence(exact, log_softmax(smollm2_path, dtype, CpuBackend(2))) for dtype in ("f16", "q8_0"))
    assert alone < MOST and blocks < half + MOST
