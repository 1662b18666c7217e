"""Latent attention from quantised files, in both stored forms; above all the older one, whose keys are read across their rows."""

import numpy as np
import pytest

from lacewing.api import load
from tests.checkpoints import prompt_of, tiny

# widths that hold whole blocks, as in real models; parts of queries of 32 + 8 and of 64 + 32 values
ODD = {"q_lora_rank": 32, "kv_lora_rank": 32, "qk_nope_head_dim": 32, "v_head_dim": 32}
EVEN = {"q_lora_rank": 32, "kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 32}


def logits(path, backend, residency="lazy"):
    with load(path, backend=backend, context=64, residency=residency) as model:
        return model.logits(prompt_of("deepseek2-lite"))


@pytest.mark.parametrize("sizes", [ODD, EVEN])
@pytest.mark.parametrize("form", ["gguf", "gguf-naive"])
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_0"])
def test_a_quantised_file(quant, form, sizes, tmp_path):
    """All experts are used, so that rounding changes no choice."""
    path = tiny("deepseek2-lite", form, tmp_path, quant, num_experts_per_tok=8, **sizes | {"q_lora_rank": None})
    exact, found = logits(path, "reference"), logits(path, "cpu")
    assert np.abs(found - exact).max() < 0.3 * exact.std()  # activations are rounded to 8 bits
    assert np.array_equal(logits(path, "cpu", "eager"), found)


def test_both_forms_hold_the_same_model(tmp_path):
    """In float16, which rounds the weights alike, whatever their order."""
    one, other = (logits(tiny("deepseek2-lite", form, tmp_path, "F16", **EVEN), "cpu") for form in ("gguf", "gguf-naive"))
    np.testing.assert_allclose(one, other, atol=0.01)
