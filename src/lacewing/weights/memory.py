"""Page-aligned anonymous memory as NumPy arrays; it goes back to the system with the last view of it."""

from __future__ import annotations

import ctypes
import mmap
import sys

import numpy as np

from lacewing.backends.paging import HUGE_FROM, interleave, try_huge_pages
from lacewing.errors import OutOfMemoryError
from lacewing.options import format_bytes

LARGE_FROM = 4 * 2**20  # bytes
_M_MMAP_THRESHOLD = -3  # of malloc.h


def allocate(nbytes: int, purpose: str, nodes: tuple[int, ...] = ()) -> np.ndarray:
    """uint8 (nbytes,), zeros, starting on a page, dealt out to memory nodes. Raises OutOfMemoryError naming `purpose`."""
    if nbytes == 0:
        return np.empty(0, np.uint8)
    try:
        if hasattr(mmap, "MAP_ANONYMOUS"):
            area = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # the default would be shared memory
        else:
            area = mmap.mmap(-1, nbytes)
    except (OSError, MemoryError, OverflowError):
        raise OutOfMemoryError(f"the system gives no {format_bytes(nbytes)} for {purpose}") from None
    if nbytes >= HUGE_FROM:
        try_huge_pages(area)
    memory = np.frombuffer(area, np.uint8)
    interleave(memory, nodes)
    return memory


def keep_large_blocks_apart() -> None:
    """Have large blocks of the C library always lie by themselves, so that freeing one gives its memory back.

    For programs that load models again and again: glibc would put them into its heaps once it has seen one be freed, and
    there small blocks that stay keep them from shrinking.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none, or do nothing
        if option is not None:
            option(_M_MMAP_THRESHOLD, LARGE_FROM)


def give_back() -> None:
    """Return freed memory to the system after a model has gone; glibc would keep what lies between its fragments."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
