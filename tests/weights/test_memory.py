import numpy as np

from lacewing.formats import open_checkpoint
from lacewing.weights import WeightStore
from lacewing.weights.memory import give_back


def test_released_pages_come_back(tiny_path):
    store = WeightStore(open_checkpoint(tiny_path).tensors)
    before = {name: np.array(weight.data) for name, weight in store.items()}
    store.release()
    give_back()
    assert all(np.array_equal(weight.data, before[name]) for name, weight in store.items())
    store.set_residency("eager")
    store.release()
    assert all(np.array_equal(weight.data, before[name]) for name, weight in store.items())
