"""How each quant lies on the device: a few planes, cut by each backend's `kernels/quants/<name>` out of the checkpoint's blocks.

32 consecutive values of a row are a *group*, 8 groups a *run*. Every plane has so many words of 32 bits for a group, or one for
several groups, so that neighbouring threads, with neighbouring groups, read neighbouring words:
- `nibbles`: four words, byte i the low four bits of value i and, above them, of value 16 + i;
- `pairs`: two words, for values 0 to 15 and 16 to 31; bits 2w, 2w + 1 of byte k belong to value 4w + k of the half;
- `bits`: one word; bit w of byte k belongs to value 4w + k;
- `bytes`: eight words, value after value; of a run first the first four words of all groups, then the others, so that one load
  of 16 bytes by eight threads is 128 bytes in a row;
- `floats`: 8, 16 or 32 words, value after value; threads have eight values each, not a group;
- `fine`, `coarse`: scales, as the quant's own file says.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUP, RUN = 32, 8  # values, groups


@dataclass(frozen=True)
class Plane:
    """`words` u32 for every `groups` groups, bound as an array of `type`."""

    name: str
    type: str
    words: int
    groups: int = 1

    def nbytes(self, groups: int) -> int:
        """Bytes of the plane of a matrix; the last run is there as a whole."""
        return -(-groups // RUN) * RUN // self.groups * self.words * 4


@dataclass(frozen=True)
class Layout:
    """`halves`: 16 values have a scale of their own, else 32. `has_min`: a minimum is taken away, times the sum of x.

    `floats`: the values are floats; there are no codes.
    """

    quant: str
    planes: tuple[Plane, ...]
    halves: bool = False
    has_min: bool = False
    floats: bool = False

    @property
    def kernel(self) -> str:
        return f"{self.quant.lower()}.wgsl"


def _floats(words: int) -> Plane:
    return Plane("floats", "vec4<u32>", words)


NIBBLES, BYTES = Plane("nibbles", "vec4<u32>", 4), Plane("bytes", "vec4<u32>", 8)
PAIRS, BITS = Plane("pairs", "vec2<u32>", 2), Plane("bits", "u32", 1)
FINE, FINE_BYTE = Plane("fine", "u32", 1, 2), Plane("fine", "u32", 1, 4)  # 16 and 8 bits a group
HALF = Plane("coarse", "u32", 1, 2)  # a float16 a group
SCALE = Plane("coarse", "u32", 1)  # two float16 a group
FACTOR = Plane("coarse", "u32", 1)  # a float32 a group
BLOCK = Plane("coarse", "u32", 1, RUN)  # one or two float16 a run, the super-block of 256

LAYOUTS = {
    layout.quant: layout
    for layout in (
        Layout("F32", (_floats(32),), floats=True),
        Layout("F16", (_floats(16),), floats=True),
        Layout("BF16", (_floats(16),), floats=True),
        Layout("Q4_0", (NIBBLES, HALF)),
        Layout("Q4_1", (NIBBLES, SCALE), has_min=True),
        Layout("Q5_0", (NIBBLES, BITS, HALF)),
        Layout("Q5_1", (NIBBLES, BITS, SCALE), has_min=True),
        Layout("Q8_0", (BYTES, HALF)),
        Layout("Q2_K", (PAIRS, FINE, BLOCK), halves=True, has_min=True),
        Layout("Q3_K", (PAIRS, BITS, FINE, BLOCK), halves=True),
        Layout("Q4_K", (NIBBLES, FINE, BLOCK), has_min=True),
        Layout("Q5_K", (NIBBLES, BITS, FINE, BLOCK), has_min=True),
        Layout("Q6_K", (NIBBLES, PAIRS, FINE, BLOCK), halves=True),
        Layout("IQ4_NL", (NIBBLES, HALF)),
        Layout("IQ4_XS", (NIBBLES, FINE_BYTE, BLOCK)),
        Layout("MXFP4", (NIBBLES, FINE_BYTE)),
        Layout("NVFP4", (NIBBLES, SCALE), halves=True),
        Layout("F8_E4M3", (Plane("bytes", "vec2<u32>", 8), FACTOR), floats=True),
    )
}
