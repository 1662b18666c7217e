"""Rows of weights as the device's cutter takes them: as they stand in the checkpoint, padded to whole groups, or converted.

What has no kernel here is converted on the host, a few rows at a time: quants to Q8_0, floats to F16 where they fit, else F32.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from itertools import accumulate

import numpy as np

from lacewing.backends.gpu.layouts import GROUP, LAYOUTS, RUN
from lacewing.backends.weights import TensorSpec, WeightView
from lacewing.errors import UnsupportedModelError, WeightError
from lacewing.quants import by_name

PLAIN = {"F32": np.float32, "F16": np.uint16, "BF16": np.uint16}
# The largest magnitude of floats and small numbers that become F16 if that, times their factors, stands in this range.
LARGEST = {"F8_E4M3": 448.0, "F4_E2M1": 6.0, "I8": 128.0, "U8": 255.0, "BOOL": 1.0}
LARGEST_HALF = 65504.0
F16_RANGE = (2.0**-10, LARGEST_HALF)
# Values are -1, 0, 1 or 2 times a float16 scale, which stays the scale.
FEW_STEPS = ("Q1_0", "Q2_0", "TQ1_0", "TQ2_0")
PACKED_BLOCK = (1, 32)  # of the factors of MXFP4 in safetensors
FP8, FP8_BYTES = "F8_E4M3", 36  # a group with its factor


def stored_as(weight: WeightView, transposed: bool = False) -> str:
    """The name of the layout that a weight gets on the device. Raises UnsupportedModelError for a shape that has none."""
    name, columns = weight.quant.name, weight.shape[-2 if transposed else -1]
    if name == FP8:
        if columns % GROUP == 0 and not transposed and (weight.scales is None or weight.scale_block[1] % GROUP == 0):
            return name
    elif weight.scales is None and name in (PLAIN if transposed else LAYOUTS):
        return name
    if name == "F4_E2M1" and _packed(weight) and columns % GROUP == 0 and not transposed:
        return "MXFP4"
    if weight.quant.block_elements == 1 or name == "F4_E2M1":
        return "F16" if name in LARGEST and F16_RANGE[0] <= largest_value(weight) <= F16_RANGE[1] else "F32"
    return "Q8_0" if columns % GROUP == 0 else "F32"


def _packed(weight: WeightView) -> bool:
    return weight.scales is not None and weight.scales.quant.name == "F8_E8M0" and tuple(weight.scale_block) == PACKED_BLOCK


def largest_value(weight: WeightView) -> float:
    """A bound of the magnitudes of a weight of small numbers (`LARGEST`) and its factors."""
    if weight.scales is None:
        return LARGEST[weight.quant.name]
    factors = (float(np.abs(weight.scales.quant.dequantise(part)).max()) for part in weight.scales.parts if part.size)
    return LARGEST[weight.quant.name] * max(factors, default=1.0)


def stored_bytes(stored: str, columns: int) -> int:
    """Bytes of a row on its way to the device."""
    groups = -(-columns // GROUP)
    return groups * FP8_BYTES if stored == FP8 else by_name(stored).row_bytes(groups * GROUP)


def widest(names: set[str]) -> str:
    """The layout for several weights in one matrix, whose own layouts differ only where floats do."""
    return names.pop() if len(names) == 1 else "F32"


class Rows:
    """The rows of a weight (..., N, K), one after another; (..., K, N) if `transposed`.

    `count` rows of `columns` values; each becomes `nbytes` bytes of the layout `stored`, with zeros behind up to a whole group.
    """

    def __init__(self, weight: WeightView, stored: str, transposed: bool = False):
        self.weight, self.stored, self.transposed = weight, stored, transposed
        quant, width = weight.quant, weight.shape[-1]
        inner, outer = (width, weight.shape[-2]) if transposed else (weight.shape[-2] if len(weight.shape) > 1 else 1, width)
        self.count, self.columns, self._inner = int(np.prod(weight.shape)) // outer, outer, inner
        self.nbytes = stored_bytes(stored, self.columns)
        row_bytes = quant.row_bytes(width)
        parts = [part.reshape(-1) for part in weight.parts]
        if width % quant.block_elements or any(part.nbytes % row_bytes for part in parts):
            raise UnsupportedModelError(
                f"weight {weight.name}: rows of {width} values are no whole blocks of {quant.name}; use `backend='reference'`"
            )
        self._parts = [part.reshape(-1, row_bytes) for part in parts]
        self._ends = list(accumulate(len(part) for part in self._parts))
        if self._ends[-1] * width != int(np.prod(weight.shape)):
            raise WeightError(f"weight {weight.name} has {self._ends[-1]} rows of {width} values; its shape is {weight.shape}")
        self._powers: Rows | None = None
        self._factors: np.ndarray | None = None
        if weight.scales is not None and stored == "MXFP4":
            self._powers = Rows(weight.scales, "F32")
        elif weight.scales is not None:
            self._factors = _factors(weight.scales)
        same = stored == quant.name and weight.scales is None and stored != FP8
        self._as_is = same and (stored in PLAIN or not transposed)
        self._lock, self._last = threading.Lock(), (-1, np.empty(0, np.float32))

    @property
    def source_bytes(self) -> int:
        """Bytes of the checkpoint."""
        return sum(part.nbytes for part in self._parts)

    def read(self, first: int, out: np.ndarray) -> None:
        """Rows from `first` on into `out`, uint8 (n, nbytes). Several threads may read."""
        if self._as_is and not self.transposed:
            width = self._parts[0].shape[1]
            out[:, width:] = 0
            self._copy(first, out[:, :width])
        elif self._powers is not None:
            blocks = out.reshape(len(out), -1, 17)
            blocks[..., 0] = self._powers._blocks(first, len(out))
            blocks[..., 1:] = _nibbles_apart(self._blocks(first, len(out)))
        elif self.stored == FP8:
            blocks = out.reshape(len(out), -1, FP8_BYTES)
            blocks[..., :4] = self._group_factors(first, len(out)).view(np.uint8)
            blocks[..., 4:] = self._blocks(first, len(out)).reshape(len(out), -1, GROUP)
        else:
            rows = self._across(first, len(out)) if self.transposed else self.values(first, len(out))
            encoded = _encoded(rows, self)
            out[:, encoded.shape[1] :] = 0
            out[:, : encoded.shape[1]] = encoded

    def values(self, first: int, count: int) -> np.ndarray:
        """Rows of the weight as it stands, not transposed: float32 (count, K)."""
        values = self.weight.quant.dequantise(self._blocks(first, count))
        if self._factors is None:
            return values
        factors = self._row_factors(self._factors, first, count)
        with np.errstate(all="ignore"):
            return np.asarray(values * factors.repeat(self.weight.scale_block[1], axis=1)[:, : values.shape[1]], np.float32)

    def _row_factors(self, factors: np.ndarray, first: int, count: int) -> np.ndarray:
        """float32 (count, blocks of columns) of rows."""
        index = np.arange(first, first + count)
        height = self.weight.shape[-2] if len(self.weight.shape) > 1 else 1
        return np.asarray(factors.reshape(-1, *factors.shape[-2:])[index // height, index % height // self.weight.scale_block[0]])

    def _group_factors(self, first: int, count: int) -> np.ndarray:
        """float32 (count, groups, 1); blocks of columns are whole groups."""
        groups = self.columns // GROUP
        if self._factors is None:
            return np.ones((count, groups, 1), np.float32)
        factors = self._row_factors(self._factors, first, count).repeat(self.weight.scale_block[1] // GROUP, axis=1)
        return np.ascontiguousarray(factors[:, :groups, None])

    def _copy(self, first: int, out: np.ndarray) -> None:
        done, index = 0, bisect_right(self._ends, first)
        while done < len(out):
            part = self._parts[index]
            at = first + done - (self._ends[index] - len(part))
            piece = part[at : at + len(out) - done]
            out[done : done + len(piece)] = piece
            done, index = done + len(piece), index + 1

    def _blocks(self, first: int, count: int) -> np.ndarray:
        """uint8 (count, row_bytes) as they stand."""
        blocks = np.empty((count, self._parts[0].shape[1]), np.uint8)
        self._copy(first, blocks)
        return blocks

    def _across(self, first: int, count: int) -> np.ndarray:
        """Rows that are columns of the weight."""
        pieces = []
        while count:
            which, at = divmod(first, self._inner)
            taken = min(count, self._inner - at)
            pieces.append(self._whole(which)[:, at : at + taken].T)
            first, count = first + taken, count - taken
        return np.concatenate(pieces)

    def _whole(self, which: int) -> np.ndarray:
        """One of the stacked matrices as it stands (K, N): numbers of the plain type, or float32 values. The last one is kept."""
        with self._lock:
            if self._last[0] != which:
                if self._as_is:
                    found = self._blocks(which * self.columns, self.columns).view(PLAIN[self.stored])
                else:
                    found = self.values(which * self.columns, self.columns)
                self._last = (which, found)
            return self._last[1]


def _nibbles_apart(rows: np.ndarray) -> np.ndarray:
    """Codes of neighbours in a byte, uint8 (n, K / 2), as values 16 apart in a byte (n, K / 32, 16)."""
    codes = rows.reshape(len(rows), -1, 16)
    a, b = codes[..., :8], codes[..., 8:]  # values 0 to 15 and 16 to 31
    return np.stack([a & 15 | b << 4, a >> 4 | b & 0xF0], axis=-1).reshape(codes.shape)


def _factors(scales: WeightView) -> np.ndarray:
    """float32 of their shape."""
    values = [np.asarray(scales.quant.dequantise(part)).reshape(-1) for part in scales.parts]
    return np.concatenate(values).reshape(scales.shape)


def _encoded(rows: np.ndarray, to: Rows) -> np.ndarray:
    """uint8 (n, bytes) of rows of numbers (n, K)."""
    if to.stored == "Q8_0":
        return as_q8_0(rows, to.weight)
    with np.errstate(over="ignore"):
        kind = np.uint16 if rows.dtype == np.uint16 else {"F32": np.float32, "F16": np.float16}[to.stored]
        return np.ascontiguousarray(rows, kind).view(np.uint8)


def as_q8_0(values: np.ndarray, weight: WeightView) -> np.ndarray:
    """Blocks of Q8_0, uint8 (n, K / 32 * 34), of float32 (n, K). Raises UnsupportedModelError for values beyond them."""
    groups = values.reshape(len(values), -1, GROUP)
    sizes = np.abs(groups)
    with np.errstate(all="ignore"):
        if weight.quant.name in FEW_STEPS:
            scale = np.where(sizes > 0, sizes, np.inf).min(axis=-1)
            scale[np.isinf(scale) & (sizes.max(axis=-1) == 0)] = 0
        else:
            scale = sizes.max(axis=-1) / np.float32(127)
        short = scale.astype(np.float16)
        # codes stay below 128, though tiny scales are rounded much
        short = np.where(short.astype(np.float32) * 1.003 < scale, np.nextafter(short, np.float16(np.inf)), short)
        if (np.isinf(short) & np.isfinite(scale)).any():
            raise UnsupportedModelError(f"weight {weight.name} has values beyond what Q8_0 holds on the GPU; use `backend='cpu'`")
        codes = np.rint(groups / short[..., None].astype(np.float32))
        codes = np.where(np.isfinite(codes), codes, 0).astype(np.int8)
    blocks = np.empty((*short.shape, 34), np.uint8)
    blocks[..., :2] = short[..., None].view(np.uint8)
    blocks[..., 2:] = codes.view(np.uint8)
    return blocks.reshape(len(values), -1)


def weight_bytes(weight: TensorSpec, transposed: bool = False) -> int:
    """What the cutter makes of a matrix, or stacked ones. Where factors decide between F16 and F32, which only reading them tells,
    F16 is taken. Vectors are float32."""
    if len(weight.shape) == 1:
        return 4 * weight.shape[0]
    rows, groups = _rows_and_groups(weight, transposed)
    return sum(plane.nbytes(rows * groups) for plane in LAYOUTS[_stored_by_headers(weight, transposed)].planes)


def holds_some(weight: TensorSpec, transposed: bool = False) -> bool:
    """Whether single experts of a stack can be exchanged: each is whole runs, and none has factors apart from its values."""
    _, groups = _rows_and_groups(weight, transposed)
    return weight.scales is None and weight.shape[-1 if transposed else -2] * groups % RUN == 0


def _rows_and_groups(weight: TensorSpec, transposed: bool) -> tuple[int, int]:
    """Of all matrices."""
    columns = weight.shape[-2 if transposed else -1]
    return math.prod(weight.shape) // columns, -(-columns // GROUP)


def _stored_by_headers(weight: TensorSpec, transposed: bool) -> str:
    """`stored_as`, as far as headers tell."""
    name, whole = weight.quant.name, weight.shape[-2 if transposed else -1] % GROUP == 0
    scaled = weight.scales is not None
    if name == FP8:
        return name if whole and not transposed and (not scaled or weight.scale_block[1] % GROUP == 0) else "F16"
    if not scaled and name in (PLAIN if transposed else LAYOUTS):
        return name
    if name == "F4_E2M1":
        return "MXFP4" if scaled and whole and not transposed else "F16"
    if weight.quant.block_elements == 1:
        return "F16" if weight.quant.block_bytes == 1 else "F32"
    return "Q8_0" if whole else "F32"
