"""Streamed weights give the bits of lazy ones, whatever the number of slots, and whatever came before."""

import numpy as np
import pytest

from lacewing.weights.experts.layer import LayerExperts
from tests import mixtures, paged
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.weights.experts.streaming import opened

FORMATS = [(name, "huggingface") for name in mixtures.CASES]
FORMATS += [(name, "gguf") for name in mixtures.CASES if name not in mixtures.ONLY_HUGGINGFACE]


def texts(step, name):
    """Logits of a prompt, of single tokens behind it, and of pieces of several sizes."""
    ids, found, at = prompt_of(name), [], 0
    for size in (9, 1, 1, 1, 4, 1, 2, 1, 1, 1, 1, 1):
        found.append(run(step, ids[at : at + size], at))
        at += size
    return np.concatenate(found)


@pytest.mark.parametrize(("name", "format"), FORMATS)
def test_streamed_is_lazy(name, format, tmp_path):
    path = tiny(name, format, tmp_path)
    lazy, streamed = opened(path)[0], opened(path, 0)
    np.testing.assert_array_equal(texts(streamed[0], name), texts(lazy, name))
    statistics = streamed[1].experts.statistics
    assert statistics.misses and statistics.nbytes
    streamed[0].close()
    streamed[1].close()
    lazy.close()


@pytest.mark.parametrize("slots", [(3, 2), (3, 5), (5, 2), (8, 2)])
@pytest.mark.parametrize("quant", ["F32", "Q8_0", "Q4_0"])
def test_any_number_of_slots(slots, quant, tmp_path):
    path = tiny("qwen3moe", "gguf", tmp_path, quant)
    lazy, (streamed, store) = opened(path)[0], opened(path, slots)
    np.testing.assert_array_equal(texts(streamed, "qwen3moe"), texts(lazy, "qwen3moe"))
    statistics = store.experts.statistics
    assert statistics.hits and (statistics.misses <= 2 * 8) == (slots == (8, 2))
    lazy.close()
    streamed.close()
    store.close()


def test_experts_of_several_sequences_are_read_once_a_layer(tmp_path, monkeypatch):
    """Of all tokens of a run together, however many of them chose an expert."""
    begun, begin = [], LayerExperts._begin
    monkeypatch.setattr(
        LayerExperts, "_begin", lambda self, expert, slot: (begun.append((self, expert)), begin(self, expert, slot))[1]
    )
    path, rows = tiny("qwen3moe", "gguf", tmp_path), 4
    step, store = opened(path, 4, rows=rows)
    step.watch_routes(True)
    layers, saved = store.experts.layers, 0
    for position in range(12):
        there = [set(np.flatnonzero(layer.addresses[next(iter(layer.addresses))]).tolist()) for layer in layers]
        begun.clear()
        ids = [(31 * position + 77 * row) % 256 for row in range(rows)]
        paged.run(step, ids, range(rows), [position] * rows, [])
        for layer, known, routed in zip(layers, there, step.routes(), strict=True):
            missing = set(routed.ids.reshape(-1).tolist()) - known
            assert sorted(expert for which, expert in begun if which is layer) == sorted(missing)
            saved += sum(expert not in known for expert in routed.ids.reshape(-1).tolist()) - len(missing)
    assert saved  # some were chosen by several
    step.close()
    store.close()
