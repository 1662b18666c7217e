"""What the next router is asked before its turn."""

import numpy as np
import pytest

from lacewing.backends.cpu.lowering.look_ahead import routers
from lacewing.backends.cpu.lowering.stages import columns
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.program.ops import Route
from lacewing.weights.experts.trial import Trial
from tests import mixtures
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.weights.experts.streaming import opened


@pytest.mark.parametrize("name", mixtures.CASES)
def test_routers_of_all_families_are_found(name, tmp_path):
    program = open_model(open_checkpoint(tiny(name, "huggingface", tmp_path))).program
    found = routers(program)
    assert len(found) == sum(isinstance(op, Route) for op in program.ops) and all(found)


@pytest.mark.parametrize("quant", ["F32", "Q8_0"])
def test_a_guess_is_the_next_router_on_the_hidden_state_of_this_one(quant, tmp_path, monkeypatch):
    """Beside NumPy: the norm in front of the next router over the residual stream, times its weights."""
    path, seen = tiny("qwen3moe", "gguf", tmp_path, quant), []
    step, store = opened(path, 0, threads=1, look_ahead=True)
    (guess,) = step._lowering.guesses
    (here, _, _), (norm, linear, _) = routers(step.program)
    monkeypatch.setattr(Trial, "wanted", True)
    layer = store.experts.layers[1]
    expect = layer.expect

    def check(experts, counted=False):
        x = columns(step._lowering.memory, here.x, 1)[0].astype(np.float64)
        normed = x / np.sqrt(np.mean(x * x) + norm.eps) * store[norm.weight].dequantise()
        scores = store[linear.weights[0]].dequantise() @ normed
        assert experts == np.argsort(-scores, kind="stable")[: guess.ids.width].tolist() and counted
        seen.append(experts)
        expect(experts, counted)

    monkeypatch.setattr(layer, "expect", check)
    for position, token in enumerate(prompt_of("qwen3moe")):
        run(step, [token], position)
    assert len(seen) > 5 and store.experts.statistics.guessed
    step.close()
    store.close()


def test_a_model_of_one_mixture_says_that_nothing_can_be_guessed(tmp_path):
    step, store = opened(tiny("qwen3moe", "gguf", tmp_path, num_hidden_layers=1), 0, look_ahead=True)
    assert store.experts.pool.trial.verdict == "impossible" and "no layer's router can be asked" in str(store.experts)
    step.close()
    store.close()
