"""Embeddings in place of token ids: every backend takes rows from the caller where it would take those of the vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.base import Backend
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.reference.weights import Weights
from lacewing.errors import OptionError
from lacewing.program.ops import Embed
from tests import paged
from tests.checkpoints import prompt_of, tiny
from tests.models.running import mapped_weights, open_step, run

MODELS = [
    ("llama", "gguf", "F32"),
    ("llama", "huggingface", "BF16"),
    ("gemma3-wide", "gguf", "Q6_K"),
    ("llama-wide", "gguf", "IQ3_XXS"),
    ("lfm2", "gguf", "F16"),
]


def backend_of(kind: str) -> Backend:
    if kind == "webgpu":
        from tests.backends.webgpu.single_ops import backend

        return backend()
    return CpuBackend(2) if kind == "cpu" else ReferenceBackend()


@pytest.mark.parametrize("kind", ["reference", "cpu", pytest.param("webgpu", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(("name", "form", "dtype"), MODELS)
def test_rows_of_the_vocabulary_given_by_hand(kind: str, name: str, form: str, dtype: str, tmp_path: Path) -> None:
    """What an id brings, the same row brings as an embedding, scaled as the model scales it; ids beside it stay ids."""
    path, ids = tiny(name, form, tmp_path, dtype), prompt_of(name, 12)
    spec, step = open_step(path, None, backend_of(kind))
    op = next(op for op in spec.program.ops if isinstance(op, Embed))
    rows = Weights(mapped_weights(dict(spec.tensors)), 0).rows(op.weight, np.array(ids)) * np.float32(op.scale)
    expected = run(step, ids)
    given = [0, 3, 4, 11]
    mixed = [-1 - (11 - place) if place in given else token for place, token in enumerate(ids)]  # rows in another order
    batch = paged.batch(step, [0] * 12, [0] * 12, range(12), range(12))
    found = step.run(replace(batch, tokens=np.array(mixed), embeddings=np.ascontiguousarray(rows[::-1])))
    # the device keeps IQ3_XXS as another quant, so its own rows are not quite those of the file
    tolerance = (0.1 if (kind, dtype) == ("webgpu", "IQ3_XXS") else 1e-4) * float(np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    again = step.run(replace(batch, tokens=np.array(mixed), embeddings=np.zeros_like(rows)))
    assert np.abs(again - expected).max() > 0.2 * float(np.abs(expected).max())  # it was the rows that decided
    with pytest.raises(OptionError, match=rf"embeddings must be float32 \(N, {rows.shape[1]}\)"):
        step.run(replace(batch, tokens=np.array(mixed), embeddings=rows[:, 1:]))
    with pytest.raises(OptionError, match="token -13 is out of range"):
        step.run(replace(batch, tokens=np.array([*mixed[:-1], -13]), embeddings=rows))
    np.testing.assert_allclose(run(step, ids), expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))
    step.close()
