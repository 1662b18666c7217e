"""What `lacewing info` tells of streaming."""

import pytest

from lacewing.weights.experts import LayerSlots, SlotCount
from lacewing.weights.experts.expected import expected

LAYERS = [LayerSlots(("up", "down"), 16, 4, 110, 1600)] * 10


def test_expected():
    found = expected(LAYERS, SlotCount(4, 8), 1000.0)
    assert found.hits == pytest.approx({"even": 0.25, "texts": 0.739})
    assert found.token_bytes == {"even": 3000, "texts": round(0.261 * 4000)}
    assert found.most_tokens["even"] == pytest.approx(1 / 3)
    assert expected(LAYERS, SlotCount(16, 8), 1.0).most_tokens == {"even": None, "texts": None}
