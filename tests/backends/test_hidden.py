"""Hidden states after the final norm: every backend gives what its own output head reads, and no logits that nobody wants."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.base import Backend
from lacewing.backends.batch import Wanted
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.errors import BackendError, OptionError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests import paged
from tests.checkpoints import CONTEXTS, GOLDEN, prompt_of, tiny
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import mapped_weights, open_step
from tests.offload.splits import cuts, open_split

KINDS = ["reference", "cpu", pytest.param("webgpu", marks=pytest.mark.gpu)]
MODELS = [("llama", "F32"), ("gemma2", "F32"), ("lfm2", "F32"), ("qwen3moe", "F32"), ("llama-wide", "Q6_K")]
ROWS = [11, 0, 4, 5]  # in any order, and of two sequences


def backend_of(kind: str) -> Backend:
    if kind == "webgpu":
        from tests.backends.webgpu.single_ops import backend

        return backend()
    return CpuBackend(2) if kind == "cpu" else ReferenceBackend()


def run_both(step: Step, ids: list[int], hidden: list[int], outputs: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Logits and hidden states of five tokens of row 1, then seven of row 0."""
    batch = paged.batch(step, ids, [1] * 5 + [0] * 7, [*range(5), *range(7)], outputs)
    logits = step.run(replace(batch, hidden=np.array(hidden))).copy()
    return logits, step.hidden().copy()


def head_of(path: Path) -> np.ndarray:
    """The matrix of the output head, float64 (V, D)."""
    spec = open_model(open_checkpoint(path))
    head = spec.program.head
    assert head is not None
    weight = mapped_weights(dict(spec.tensors))[head.weight]
    return weight.quant.dequantise(np.asarray(weight.data)).reshape(weight.shape).astype(np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "quant"), MODELS)
def test_they_are_what_the_head_reads(kind: str, name: str, quant: str, tmp_path: Path) -> None:
    path, ids = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 12)
    spec, step = open_step(path, 32, backend_of(kind), rows=2)
    logits, hidden = run_both(step, ids, ROWS, ROWS)
    expected = hidden.astype(np.float64) @ head_of(path).T
    cap = spec.program.head.softcap if spec.program.head is not None else None
    if cap:
        expected = cap * np.tanh(expected / cap)
    assert hidden.shape == (4, spec.program.head.x.width) and hidden.dtype == np.float32  # type: ignore[union-attr]
    # a head of a block format reads the hidden states as bytes
    tolerance = (1e-4 if quant == "F32" and kind != "webgpu" else 2e-2) * float(np.abs(expected).max())
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
    step.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "quant"), MODELS)
def test_they_are_the_same_on_every_backend(kind: str, name: str, quant: str, tmp_path: Path) -> None:
    path, ids = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 12)
    exact = run_both(open_step(path, 32, rows=2)[1], ids, ROWS, [])[1]
    step = open_step(path, 32, backend_of(kind), rows=2)[1]
    logits, found = run_both(step, ids, ROWS, [])
    assert logits.shape == (0, step.program.vocab_size)
    tolerance = 1e-4 if quant == "F32" and kind != "webgpu" else 5e-2
    np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance * float(np.abs(exact).max()))
    step.close()


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_choice(kind: str, tmp_path: Path) -> None:
    """Of the same run some tokens give candidates, others hidden states; those of the run before are gone."""
    path, ids = tiny("llama", "gguf", tmp_path), prompt_of("llama", 12)
    step = open_step(path, 32, backend_of(kind), rows=2)[1]
    logits, hidden = run_both(step, ids, ROWS, [4])
    batch = paged.batch(step, ids, [1] * 5 + [0] * 7, [*range(5), *range(7)], [4])
    (found,) = step.choose(replace(batch, hidden=np.array([5, 4])), [Wanted(3)])
    np.testing.assert_allclose(step.hidden(), hidden[[3, 2]], rtol=0, atol=1e-5 * float(np.abs(hidden).max()))
    assert found.ids[0] == logits[0].argmax()
    step.run(batch)
    assert step.hidden().shape == (0, hidden.shape[1])
    with pytest.raises(OptionError, match="hidden row 12 is out of range"):
        step.run(replace(batch, hidden=np.array([12])))
    step.close()


@pytest.mark.parametrize("name", ["llama", "lfm2", "qwen3moe"])
@pytest.mark.parametrize("kind", ["cpu", pytest.param("webgpu", marks=pytest.mark.gpu)])
def test_of_a_model_on_two_devices(kind: str, name: str, tmp_path: Path) -> None:
    path, ids = tiny(name, "gguf", tmp_path), prompt_of(name, 12)
    spec, whole = open_step(path, 32, rows=2)
    exact = run_both(whole, ids, ROWS, [])[1]
    places = sorted(cuts(spec.program))
    for cut in (places[len(places) // 2], places[-1]):
        devices = [0] * cut + [1] * (len(spec.program.ops) - cut)
        step = open_split(path, spec, [ReferenceBackend(), backend_of(kind)], devices, rows=2)
        for outputs in ([], [11]):
            logits, found = run_both(step, ids, ROWS, outputs)
            assert len(logits) == len(outputs)
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-2 * float(np.abs(exact).max()))
        with pytest.raises(BackendError, match="in another part of the program"):
            step.steps[0].hidden()
        step.close()


@pytest.mark.parametrize("kind", ["reference", "cpu"])
@pytest.mark.parametrize("name", GOLDEN)
def test_against_transformers(kind: str, name: str, tmp_path: Path) -> None:
    """The `last_hidden_state` of every architecture that there are golden values of."""
    path, ids = tiny(name, "huggingface", tmp_path), prompt_of(name)
    step = open_step(path, CONTEXTS.get(name), backend_of(kind))[1]
    batch = paged.batch(step, ids, [0] * len(ids), range(len(ids)), [])
    step.run(replace(batch, hidden=VALUES["hidden_rows"]))
    np.testing.assert_allclose(step.hidden(), VALUES[f"{name}.hidden"], rtol=0, atol=TOLERANCE)
    step.close()
