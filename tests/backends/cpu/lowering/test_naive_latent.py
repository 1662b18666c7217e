"""Latent attention from quantised files, in both stored forms; above all the older one, whose keys are read across their rows."""

import numpy as np
import pytest

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from tests.checkpoints import prompt_of, tiny
from tests.models.running import mapped_weights, open_step, run

# widths that hold whole blocks, as in real models; parts of queries of 32 + 8 and of 64 + 32 values
ODD = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
EVEN = {"q_lora_rank": 32, "kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 32}


def logits(path, backend=None):
    """`backend` None: the reference."""
    _, step = open_step(path, 64, backend)
    found = run(step, prompt_of("deepseek2-lite"))
    step.close()
    return found


@pytest.mark.parametrize("sizes", [ODD, EVEN])
@pytest.mark.parametrize("form", ["gguf", "gguf-naive"])
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0"])
def test_a_quantised_file(quant, form, sizes, tmp_path):
    """All experts are used, so that rounding changes no choice."""
    path = tiny("deepseek2-lite", form, tmp_path, quant, num_experts_per_tok=8, **sizes | {"q_lora_rank": None})
    exact, found = logits(path), logits(path, CpuBackend(2))
    assert np.abs(found - exact).max() < 0.3 * exact.std()  # activations are rounded to 8 bits


def test_both_forms_hold_the_same_model(tmp_path):
    """In float16, which rounds the weights alike, whatever their order."""
    one, other = (logits(tiny("deepseek2-lite", form, tmp_path, "F16", **EVEN), CpuBackend(2)) for form in ("gguf", "gguf-naive"))
    np.testing.assert_allclose(one, other, atol=0.01)


@pytest.mark.parametrize(("form", "quant", "copied"), [("gguf-naive", "Q8_0", True), ("gguf-naive", "Q4_0", True),
                                                       ("gguf-naive", "F16", False), ("gguf-naive", "F32", False),
                                                       ("gguf", "Q8_0", False)])  # fmt: skip
def test_memory_counts_the_copies(form, quant, copied, tmp_path):
    path = tiny("deepseek2-lite", form, tmp_path, quant, **EVEN | {"q_lora_rank": None})
    spec, backend = open_model(open_checkpoint(path), 64), CpuBackend(1)
    weights, limits = mapped_weights(dict(spec.tensors)), StepLimits(64)
    step = backend.compile(spec.program, weights, limits)
    kept = step._lowering.memory.kept
    made = sum(values.nbytes for name, values in kept.items() if "addresses" not in name and name.endswith("in float16"))
    planned = backend.memory(spec.program, dict(spec.tensors), limits).copied_bytes
    spare = 3 * 2 * 64  # each of the three layers is aligned
    assert planned <= made <= planned + 2 * spare and bool(planned) == copied
    step.close()
