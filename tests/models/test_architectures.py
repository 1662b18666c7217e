"""Every architecture, from both formats, against the golden values of transformers."""

from pathlib import Path

import numpy as np
import pytest

from lacewing.backends import open_backend
from tests import mixtures
from tests.checkpoints import CONTEXTS, GOLDEN, prompt_of, tiny
from tests.models.running import greedy, open_step, run

VALUES = np.load(Path(__file__).parent.parent / "data" / "golden.npz")
TOLERANCE = 1e-4  # the promise is 1e-3


DENSE = [name for name in GOLDEN if name not in mixtures.CASES]
FORMATS = [(name, "huggingface") for name in mixtures.CASES]
FORMATS += [(name, "gguf") for name in mixtures.CASES if name not in mixtures.ONLY_HUGGINGFACE]
FORMATS += [(name, "gguf-naive") for name, form in FORMATS if form == "gguf" and "kv_lora_rank" in mixtures.CASES[name]]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("format", ["gguf", "huggingface"])
@pytest.mark.parametrize("name", DENSE)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, format, backend, tmp_path):
    check(name, format, backend, tmp_path)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_mixtures_of_experts(name, format, backend, tmp_path):
    check(name, format, backend, tmp_path)


def check(name, format, backend, tmp_path):
    spec, step = open_step(tiny(name, format, tmp_path), CONTEXTS.get(name), open_backend(backend, 2))
    ids, continued = prompt_of(name), VALUES[f"{name}.greedy"].tolist()
    assert spec.vocab_size == 320
    np.testing.assert_allclose(run(step, ids)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)
    assert greedy(step, ids, len(continued)) == continued
    step.close()
