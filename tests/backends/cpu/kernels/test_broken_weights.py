"""A weight that is no number must not end in an answer: NaN and infinity find their way into the logits, where they are seen."""

import numpy as np
import pytest

from lacewing.backends import init_backend
from lacewing.backends.batch import StepLimits
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.weights.store import WeightStore
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.paged import with_pages

CLAMPED = ("ffn_gate_exps.bias", "ffn_up_exps.bias")  # of gpt-oss: infinity is a bound like any large value


@pytest.mark.parametrize(("backend", "bad"), [("cpu", np.nan), ("cpu", np.inf), ("reference", np.nan)])
@pytest.mark.parametrize("name", ["gemma2", "qwen3", "mixtral", "deepseek3", "glm4moe", "gpt-oss", "llama4"])
def test_every_weight_of_a_layer(name, backend, bad, tmp_path):
    spec = open_model(open_checkpoint(tiny(name, "gguf", tmp_path)))
    store = WeightStore(spec.tensors)
    store.set_residency("eager")
    made, lost = init_backend(backend, 2), []
    for weight in spec.program.weights:
        if not weight.startswith(("blk.1.", "output")) or (np.isinf(bad) and weight.endswith(CLAMPED)):
            continue
        data = store[weight].data
        data.flags.writeable = True
        before = data.copy()
        data.view(np.float32)[:] = bad
        step = with_pages(made.compile(spec.program, store, StepLimits(8)))
        if np.isfinite(run(step, prompt_of(name, 6))).any():
            lost.append(weight)
        step.close()
        data[:] = before
    assert lost == []
