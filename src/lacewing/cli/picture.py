"""A heat map as a PNG file: an image with a palette, written by hand (https://www.w3.org/TR/png-3/)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

_SIZE, _CELL = 1024, 16  # pixels: about as wide and high as the picture may get, and a cell at most
_OUTSIDE = 255  # colour of cells that a shorter row lacks
# No load, half of it, an even share, more, all of it: blue over white to red.
_STOPS = ((16, 30, 82), (74, 124, 190), (244, 242, 235), (224, 122, 66), (120, 10, 28))


def heat_map(rows: Sequence[Sequence[float]], text: str) -> bytes:
    """The PNG file: a cell for each load >= 0, where 1 is an even share; `text` goes in as its description, Latin-1."""
    columns = max(len(row) for row in rows)
    wide, high = (max(1, min(_CELL, _SIZE // count)) for count in (columns, len(rows)))
    lines = []
    for row in rows:
        levels = [*(_level(load) for load in row), *[_OUTSIDE] * (columns - len(row))]
        line = b"\0" + b"".join(bytes([level]) * wide for level in levels)  # the first byte: no filter
        lines.append(line * high)
    header = struct.pack(">IIBBBBB", columns * wide, len(rows) * high, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"PLTE", _palette()),
        (b"tEXt", b"Description\0" + text.encode("latin-1", "replace")),
        (b"IDAT", zlib.compress(b"".join(lines), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _level(load: float) -> int:
    """0 to 254; an even share is the middle, and twice of it is as far from it as half of it."""
    return round(254 * load / (1 + load))


def _palette() -> bytes:
    """RGB of the levels, then of what is outside."""
    colours = bytearray()
    for level in range(255):
        at, part = divmod(level / 254 * (len(_STOPS) - 1), 1)
        low, high = _STOPS[int(at)], _STOPS[min(int(at) + 1, len(_STOPS) - 1)]
        colours += bytes(round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return bytes(colours) + bytes((128, 128, 128))
