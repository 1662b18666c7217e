"""Packs of tiny models, for tests."""

import re

import pytest

import lacewing
from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import plan_of
from lacewing.weights.experts.pack import pack_places
from lacewing.weights.experts.packing import write_pack


def least_memory(path, **options):
    """That streams a model: with slots for the experts of one token in each layer, and no more."""
    with pytest.raises(OutOfMemoryError) as refused:
        lacewing.load(path, backend="cpu", residency="streamed", memory=1, **options)
    return re.search(r"`memory='(.*?)'`", str(refused.value))[1]


def packed(path):
    """Write the pack of a model beside it; where it is."""
    info = ModelInfo(path, LoadOptions(), warm=False)
    return write_pack(plan_of(info), info.checkpoint.identities, pack_places(path)[0]).path
