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
    return write_pack(*planned(path), pack_places(path)[0]).path


def planned(path):
    """What the pack of a model is to be, and what its files are."""
    info = ModelInfo(path, LoadOptions(), warm=False)
    return plan_of(info), info.checkpoint.identities


def damaged(target, change):
    """Write what a change makes of a file's content."""
    target.write_bytes(change(target.read_bytes()))
