"""The program interpreted in NumPy, in float32 on dequantised weights: slow, and obviously right."""

from __future__ import annotations

from lacewing.backends.base import Candidate
from lacewing.backends.reference.backend import ReferenceBackend


def open(threads: int | None = None) -> ReferenceBackend:
    """`threads` is ignored: NumPy's own libraries decide."""
    return ReferenceBackend()


def candidates(needed_bytes: int | None = None) -> list[Candidate]:
    """NumPy on this machine's CPU."""
    return [
        Candidate(ReferenceBackend().facts(), False, "only if no other backend works; it is slow, and serves to check the others")
    ]
