"""What the engine compiles for WebGPU runs in a browser, and chooses the same tokens there."""

import json

import pytest

import lacewing
from lacewing.errors import OptionError
from lacewing.options import Sampling
from tests.checkpoints import tiny
from tools.browser import export, measure

PROMPT, TOKENS = "two three", 6


@pytest.mark.gpu
@pytest.mark.browser
def test_chromium_generates_the_same_tokens(tiny_path, tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_WEBGPU", "dot")
    written = export.export(str(tiny_path), tmp_path, PROMPT, 64)
    assert json.loads((tmp_path / "model.json").read_text())["prompt"] == written["prompt"]
    assert not any("enable " in code for code in written["codes"])  # nothing that a browser may lack
    found = measure.run(tmp_path, TOKENS)
    with lacewing.load(tiny_path, backend="webgpu", context=64) as model:
        expected = [token.id for token in model.engine.generate(written["prompt"], Sampling(temperature=0, max_tokens=TOKENS))]
    stop = next((at for at, token in enumerate(expected) if token in written["stops"]), TOKENS)
    assert found["ids"] == expected[:stop] and len(found["ids"]) > 2
    assert found["bytes"] == (tmp_path / "weights.bin").stat().st_size and found["tokensPerSecond"] > 0


@pytest.mark.gpu
def test_a_model_with_other_states_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("LACEWING_WEBGPU", "dot")
    with pytest.raises(OptionError, match="pages of attention"):
        export.export(str(tiny("mamba2", "gguf", tmp_path)), tmp_path, PROMPT, 64)
