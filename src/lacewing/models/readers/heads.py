"""Heads that differ between layers with a window and those that see everything, in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lacewing.formats.checkpoint import TensorInfo
from lacewing.models.config import HeadSizes
from lacewing.models.readers.metadata import MetadataReader


def gguf_heads(keys: MetadataReader, windows: Sequence[int | None], predicting: int = 0) -> tuple[HeadSizes, HeadSizes | None]:
    """Of layers that see everything, and of those with a window, where they differ; counts may be listed layer by layer, those
    of `predicting` more layers behind them.

    Raises UnsupportedModelError where layers of one kind differ.
    """
    layers = len(windows)
    heads = keys.integers("attention.head_count", layers + predicting, high=2**16)
    key_heads = keys.integers("attention.head_count_kv", layers + predicting, heads[0], high=2**16)
    width = keys.integer("attention.key_length", max(keys.integer("embedding_length") // heads[0], 1), high=2**16)
    local_width = keys.integer("attention.key_length_swa", width, high=2**16)
    for name, expected in (("value_length", width), ("value_length_swa", local_width)):
        if keys.integer(f"attention.{name}", expected) != expected:
            raise keys.error(f"attention.{name}", f"differs from the width of keys, {expected}")
    found = []
    for local in (False, True):
        kinds = {(heads[i], key_heads[i]) for i in range(layers) if (windows[i] is not None) == local}
        if len(kinds) > 1:
            raise keys.error("attention.head_count_kv", "differs between layers of one kind, which this version cannot run")
        count, key_count = kinds.pop() if kinds else (heads[0], key_heads[0])
        found.append(HeadSizes(count, key_count, local_width if local else width))
    return found[0], found[1] if found[1] != found[0] else None


def keys_are_values(tensors: Mapping[str, TensorInfo], windows: Sequence[int | None]) -> bool:
    """Whether the first layer that sees everything has no weights for values, which a file says by leaving them out."""
    first = next((layer for layer, window in enumerate(windows) if window is None), None)
    return first is not None and not any(f"blk.{first}.{part}.weight" in tensors for part in ("attn_v", "attn_qkv"))
