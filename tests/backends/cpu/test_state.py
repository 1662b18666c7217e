"""Keys and values of a slot, written out and read back."""

import numpy as np
import pytest

import lacewing
from lacewing.backends.base import KeepsSlots
from lacewing.errors import OptionError
from tests.checkpoints import tiny


@pytest.mark.parametrize(("name", "quant"), [("llama", "F32"), ("gemma3-wide", "Q4_0")])
def test_a_slot_goes_on_elsewhere(name, quant, tmp_path):
    path = tiny(name, "gguf", tmp_path, quant)
    ids = [(7 * i * i + 3) % 250 for i in range(90)]
    with lacewing.load(path, backend="cpu", context=97) as one, lacewing.load(path, backend="cpu", context=131) as other:
        assert isinstance(one.step, KeepsSlots) and isinstance(other.step, KeepsSlots)
        expected = one.engine.extend(ids).copy()
        data = one.step.read_slot(0, 80)
        assert data.nbytes == 80 * one.spec.program.kv_bytes_per_token
        other.step.write_slot(0, 80, data)
        other.engine.cached = ids[:80]
        assert np.array_equal(other.engine.extend(ids[80:]), expected)
        assert np.array_equal(other.step.read_slot(0, 80), data)
        with pytest.raises(OptionError, match="take"):
            other.step.write_slot(0, 79, data)
        with pytest.raises(OptionError, match="do not fit"):
            one.step.read_slot(0, 98)
        with pytest.raises(OptionError, match="out of range"):
            one.step.read_slot(1, 1)
