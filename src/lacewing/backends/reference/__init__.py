"""The program interpreted in NumPy, in float32 on dequantised weights: slow, and obviously right."""

from __future__ import annotations

from lacewing.backends.reference.backend import ReferenceBackend


def open(threads: int | None = None) -> ReferenceBackend:
    """`threads` is ignored: NumPy's own libraries decide."""
    return ReferenceBackend()
