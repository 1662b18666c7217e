"""What q8_0 costs on a real model: Kullback-Leibler divergence from exact arithmetic, in nats a token, beside that of float16.

The CPU's rounding of activations to bytes alone moves logits by as much: two types compared with each other would show that.
"""

from pathlib import Path

import numpy as np

from lacewing.api import load_tokenizer
from lacewing.backends.base import Backend
from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.models.running import mapped_weights, run
from tests.paged import with_pages

MOST = 0.002
TEXT = """Once upon a time there was an old fisherman who lived with his wife in a small house near the sea. Every morning he went
out in his boat, and every evening he came home with a few fish, which his wife cooked for dinner. One day, when the wind was
strong and the waves were high, he pulled his net out of the water and found in it a small golden fish. The fish spoke to him and
said: "Let me go, good man, and I will give you whatever you wish." The fisherman was so surprised that he dropped the net."""


def log_softmax(path: Path, dtype: str, backend: Backend) -> np.ndarray:
    """float64 (T, V)"""
    spec, ids = open_model(open_checkpoint(path), None), list(load_tokenizer(str(path)).encode(TEXT.replace("\n", " ")))
    weights = mapped_weights(dict(spec.tensors))
    step = with_pages(backend.compile(spec.program.with_kv_type(dtype), weights, StepLimits(256, 256)))
    logits = run(step, ids).astype(np.float64)
    step.close()
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    return float((np.exp(exact) * (exact - found)).sum(axis=1).mean())


def test_q8_0_is_nearly_as_near_to_exact_arithmetic_as_float16(smollm2_path: Path) -> None:
    exact = log_softmax(smollm2_path, "f32", ReferenceBackend())
    alone = divergence(exact, log_softmax(smollm2_path, "q8_0", ReferenceBackend(exact=False)))
    half, blocks = (divergence(exact, log_softmax(smollm2_path, dtype, CpuBackend(2))) for dtype in ("f16", "q8_0"))
    assert alone < MOST and blocks < half + MOST
