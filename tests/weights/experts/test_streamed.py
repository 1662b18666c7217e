"""Streamed weights give the bits of lazy ones, whatever the number of slots, and whatever came before."""

import numpy as np
import pytest

from lacewing.backends import init_backend
from lacewing.backends.batch import StepLimits
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.weights import WeightStore
from lacewing.weights.experts import SlotCount, stacks_of
from tests import mixtures
from tests.checkpoints import prompt_of, tiny
from tests.models.running import run
from tests.paged import with_pages

FORMATS = [(name, "huggingface") for name in mixtures.CASES]
FORMATS += [(name, "gguf") for name in mixtures.CASES if name not in mixtures.ONLY_HUGGINGFACE]


def opened(path, slots=None, chunk=512):
    """A step, and its store; lazy without slots."""
    spec = open_model(open_checkpoint(path))
    store = WeightStore(spec.tensors)
    if slots is not None:
        mixed = stacks_of(spec.program)
        store.slot(mixed, SlotCount(*slots) if isinstance(slots, tuple) else SlotCount(max(slots, mixed[0][1]), 2))
        store.set_residency("streamed")
    return with_pages(init_backend("cpu", 2).compile(spec.program, store, StepLimits(spec.context, chunk))), store


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
