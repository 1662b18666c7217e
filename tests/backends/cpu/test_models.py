"""Whole tiny models on the CPU backend: near the reference backend, and the same bits however the work is cut.

tests/models/test_architectures.py holds float models to the golden logits.
"""

from pathlib import Path

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.weights.store import WeightStore
from tests import paged
from tests.backends.cpu.single_ops import nmse
from tests.checkpoints import CONTEXTS, prompt_of, tiny
from tests.models.running import open_step, run


@pytest.mark.parametrize(
    "name", ["llama", "qwen3", "gemma2", "phi3-long", "gpt-oss", "llama4", "deepseek3", "mistral4", "qwen3moe"]
)
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_half_precision_folders(name: str, dtype: str, tmp_path: Path) -> None:
    path, ids, context = tiny(name, "huggingface", tmp_path, dtype), prompt_of(name), CONTEXTS.get(name)
    _, step = open_step(path, context, CpuBackend(2))
    _, reference = open_step(path, context, ReferenceBackend(exact=dtype != "F16"))
    np.testing.assert_allclose(run(step, ids), run(reference, ids), rtol=0, atol=1e-3 if dtype == "F16" else 1e-4)
    step.close()


@pytest.mark.parametrize(("name", "quant"), [("llama-wide", "Q4_K"), ("llama-wide", "IQ3_XXS"), ("gemma3-wide", "Q6_K"),
                                             ("llama-wide", "MXFP4"), ("gemma3-wide", "Q2_K"), ("qwen3", "Q4_0"), ("phi3", "Q5_1"),
                                             ("gemma2", "Q8_0"), ("llama-biases", "IQ4_NL"), ("llama-wide", "TQ2_0")])  # fmt: skip
def test_quantised_models(name: str, quant: str, tmp_path: Path) -> None:
    """Activations lose a little to their bytes, nothing else may differ."""
    path, ids = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 40)
    (_, step), (_, reference) = open_step(path, None, CpuBackend(2)), open_step(path)
    assert nmse(run(step, ids), run(reference, ids)) < 2e-3
    step.close()


@pytest.mark.parametrize(("name", "quant"), [("llama-wide", "Q4_K"), ("gemma3-wide", "Q5_K"), ("gemma2", "F16"),
                                             ("qwen3next", "F16"), ("granitehybrid-moe", "F16"), ("gemma3n", "F16"),
                                             ("kimi-linear", "F16")])  # fmt: skip
def test_same_bits_however_the_work_is_cut(name: str, quant: str, tmp_path: Path) -> None:
    """Batch splits, thread counts, lazy and eager weights, and neighbours in other rows. Q8_0: tests/models/test_sessions.py."""
    path, ids, other = tiny(name, "gguf", tmp_path, quant), prompt_of(name, 60), prompt_of("llama", 33)
    spec = open_model(open_checkpoint(path), None)
    weights, limits = WeightStore(spec.tensors), StepLimits(128, 64, 3)
    step = paged.with_pages(CpuBackend(1).compile(spec.program, weights, limits))
    whole = run(step, ids)
    assert np.isfinite(whole).all()
    for threads, sizes in ((1, (60,)), (2, (1, 2, 7, 17, 32, 1)), (3, (8, 9, 43)), (2, (1,) * 60)):
        parted = paged.with_pages(CpuBackend(threads).compile(spec.program, weights, limits), threads)
        starts = np.cumsum((0, *sizes)).tolist()
        found = [run(parted, ids[s : s + n], s, row=1) for s, n in zip(starts, sizes, strict=False)]
        assert np.array_equal(np.concatenate(found), whole)
        parted.close()
    weights.set_residency("eager")
    step.rebind()
    assert np.array_equal(run(step, ids), whole)
    weights.set_residency("lazy")
    step.rebind()
    assert np.array_equal(run(step, ids), whole)
    for cut in (1, 20, 40):  # one step carries the rest of one sequence between others
        run(step, ids[:cut], row=2)
        tokens, rows = other[:10] + ids[cut : cut + 15] + other[10:], [0] * 10 + [2] * 15 + [1] * 23
        positions = np.r_[0:10, cut : cut + 15, 0:23]
        assert np.array_equal(paged.run(step, tokens, rows, positions, np.arange(10, 25)), whole[cut : cut + 15])
    step.close()
