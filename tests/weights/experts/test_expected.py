"""What `lacewing info` tells of streaming."""

import numpy as np
import pytest

from lacewing.errors import ModelFormatError
from lacewing.formats.checkpoint import ByteRange
from lacewing.formats.read import identity
from lacewing.weights.experts import LayerSlots, SlotCount
from lacewing.weights.experts.expected import disk_rate, expected

LAYERS = [LayerSlots(("up", "down"), 16, 4, 110, 1600)] * 10


def test_expected():
    found = expected(LAYERS, SlotCount(4, 8), 1000.0)
    assert found.hits == pytest.approx({"even": 0.25, "texts": 0.739})
    assert found.token_bytes == {"even": 3000, "texts": round(0.261 * 4000)}
    assert found.most_tokens["even"] == pytest.approx(1 / 3)
    assert found.read_bytes == 50
    assert expected(LAYERS, SlotCount(16, 8), 1.0).most_tokens == {"even": None, "texts": None}


def test_the_disk_is_measured(tmp_path):
    path = tmp_path / "experts"
    np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tofile(path)
    whole = (ByteRange(path, 100, 2**20 - 100 - 2**20 % 4),)
    rate = disk_rate([(whole, 4)], {path: identity(path)}, 0.05)
    assert rate is not None and rate > 0
    assert disk_rate([], {}) is None
    with pytest.raises(ModelFormatError):
        disk_rate([((ByteRange(path, 2**20 - 50, 100),), 1)], {path: identity(path)})
