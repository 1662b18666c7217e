"""What config.json says of weights with factors: which values share one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lacewing.models.architecture import Architecture
from lacewing.models.readers.metadata import MetadataReader
from lacewing.models.stacks import BY_SHAPE, PACKED_BLOCK


def read_scale_block(keys: MetadataReader, architecture: Architecture) -> tuple[int, int] | None:
    """Rows and columns that share a factor in an FP8 or MXFP4 checkpoint; None without quantisation."""
    quantised = keys.nested("quantization_config")
    if quantised is None or not quantised.values:
        return None
    method = quantised.get("quant_method", "unknown")
    if method == "mxfp4" and architecture.packed_experts:
        return PACKED_BLOCK
    sizes: Any = "unknown"
    if method == "fp8" and quantised.get("fmt", "e4m3") == "e4m3":
        sizes = quantised.get("weight_block_size")
    elif method == "fbgemm_fp8":
        sizes = None
    elif method == "compressed-tensors" and quantised.get("format") == "float-quantized":
        sizes = _compressed_sizes(quantised)
    if sizes is None:
        return BY_SHAPE
    if isinstance(sizes, list) and len(sizes) == 2 and all(type(size) is int and 0 < size <= 2**16 for size in sizes):
        return sizes[0], sizes[1]
    known = "fp8 in e4m3, fbgemm_fp8 and compressed-tensors of eight-bit floats are known"
    raise keys.error("quantization_config", f"has method {method!r} in a form that comes later; {known}; use a GGUF file")


def _compressed_sizes(quantised: MetadataReader) -> Any:
    """The sizes of a block, None where each weight or each of its rows has a factor, else "unknown"."""
    groups, found = quantised.get("config_groups"), []
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping) or (weights.get("type"), weights.get("num_bits")) != ("float", 8):
            return "unknown"
        strategy = weights.get("strategy")
        found.append(
            weights.get("block_structure") if strategy == "block" else None if strategy in ("tensor", "channel") else "unknown"
        )
    return found[0] if found and all(sizes == found[0] for sizes in found) else "unknown"
