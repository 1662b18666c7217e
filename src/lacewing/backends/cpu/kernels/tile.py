"""A tile: LANES rows of a weight, up to TILE_COLUMNS columns, unpacked to bytes for the dot kernels. It stays in the first cache.

    0        registers w[column / 4]: lane r holds 4 bytes of row r
    SCALES   f32v for each sub-block of 32 or 16 columns: the rows' scales
    MINIMA   f32v for each sub-block: what a unit of the activation's sum adds (quants with a minimum only)
    SCRATCH  working space of the unpacker

An unpacker is a kernel `unpack_X(source, row_stride, tile, blocks)`: it turns `blocks` file blocks of each of LANES rows,
the first at `source`, the next row `row_stride` bytes on, into a tile.
"""

from lacewing.backends.cpu.arguments import TILE_COLUMNS
from lacewing.backends.cpu.kernels.registers import VECTOR_BYTES

SCALES = TILE_COLUMNS // 4 * VECTOR_BYTES
MINIMA = SCALES + 16 * VECTOR_BYTES
SCRATCH = MINIMA + 16 * VECTOR_BYTES
TILE_BYTES = SCRATCH + 16 * VECTOR_BYTES
