"""Packs of tiny models, for tests."""

from lacewing.options import LoadOptions
from lacewing.placement.info import ModelInfo
from lacewing.placement.packing import plan_of
from lacewing.weights.experts.pack import pack_places
from lacewing.weights.experts.packing import write_pack


def packed(path):
    """Write the pack of a model beside it; where it is."""
    info = ModelInfo(path, LoadOptions(), warm=False)
    return write_pack(plan_of(info), info.checkpoint.identities, pack_places(path)[0]).path
