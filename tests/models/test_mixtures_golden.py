"""Every mixture of experts and every variant of a router, from all stored forms, against the golden values of transformers."""

import json

import numpy as np
import pytest

from lacewing.backends import init_backend
from tests import mixtures
from tests.checkpoint_files import metadata, write_gguf_tensors
from tests.checkpoints import config_of, prompt_of, tiny, weights_of
from tests.models.golden import TOLERANCE, VALUES, check_golden
from tests.models.running import greedy, open_step, run

FORMATS = [(name, "huggingface") for name in mixtures.CASES]
FORMATS += [(name, "gguf") for name in mixtures.CASES if name not in mixtures.ONLY_HUGGINGFACE]
FORMATS += [(name, "gguf-naive") for name, form in FORMATS if form == "gguf" and "kv_lora_rank" in mixtures.CASES[name]]


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_logits_and_greedy_tokens_are_those_of_transformers(name, format, backend, tmp_path):
    check_golden(name, format, backend, tmp_path)


def check_file(path, name, backend):
    """Whether a file of another form gives the golden values of a case."""
    _, step = open_step(path, backend=init_backend(backend, 2))
    ids, continued = prompt_of(name), VALUES[f"{name}.greedy"].tolist()
    np.testing.assert_allclose(run(step, ids)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)
    assert greedy(step, ids, len(continued)) == continued
    step.close()


def large_3(folder, naive):
    """The tiny Mistral Small 4 as Mistral Large 3 is stored: the blocks of DeepSeek, and keys for the temperature."""
    config = config_of("mistral4")
    rope = config["rope_parameters"]
    keys = metadata(config) | mixtures.metadata(config, naive)
    keys |= {"attention.temperature_scale": rope["llama_4_scaling_beta"],
             "attention.temperature_length": rope["original_max_position_embeddings"]}  # fmt: skip
    found = mixtures.tensors(config, weights_of(config), naive)
    return write_gguf_tensors(folder / "large.gguf", "deepseek2", keys, found, "F32")


@pytest.mark.parametrize("backend", ["reference", "cpu"])
@pytest.mark.parametrize("naive", [False, True])
def test_mistral_large_3(naive, backend, tmp_path, monkeypatch):
    """As transformers computes it where the disputed magnitude is applied; by default it is left out."""
    path = large_3(tmp_path, naive)
    monkeypatch.setenv("LACEWING_MISTRAL_MAGNITUDE", "apply")
    check_file(path, "mistral4", backend)
    monkeypatch.delenv("LACEWING_MISTRAL_MAGNITUDE")
    _, step = open_step(path, backend=init_backend(backend, 2))
    assert np.abs(run(step, prompt_of("mistral4"))[VALUES["rows"]] - VALUES["mistral4.logits"]).max() > 100 * TOLERANCE
    step.close()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_kimi_k2(backend, tmp_path):
    """DeepSeek V3 with one group, under a model type of its own, which transformers does not have."""
    path = tiny("deepseek3-one-group", "huggingface", tmp_path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "kimi_k2"}))
    check_file(path, "deepseek3-one-group", backend)
