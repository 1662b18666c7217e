"""Runs a few ops on a backend without a model: rows of numbers in by the embedding, any view out by identity logits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.backends.weights import TileOrder
from lacewing.program.check import check_program
from lacewing.program.ops import Buffer, Embed, Logits, Op, View
from lacewing.program.program import Program
from lacewing.program.states import PagedState, State
from lacewing.quants import by_name
from tests.models.running import MappedWeight
from tests.paged import run, with_pages

CHUNK = 64
Batch = tuple[Sequence[int], Sequence[int]]  # rows and positions of the tokens of one step; every token has a row of its own
# where the float16 scale and minimum of a block stand; the types without either have a scale of another kind
HALVES: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "IQ4_NL", "IQ4_XS", "Q1_0", "Q2_0", "IQ1_S"), (0,)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"), (0,)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q4_K", "Q5_K"), (0, 2)),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q6_K": (208,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
}


@dataclass(frozen=True)
class Case:
    """Ops between an embedding of rows `x` (N, width) and the view that is looked at."""

    ops: tuple[Op, ...]
    x: np.ndarray
    out: View
    weights: Mapping[str, MappedWeight]
    states: tuple[State, ...] = ()
    tiled: frozenset[str] = frozenset()  # weights that are in tile order

    @property
    def program(self) -> Program:
        vocab = max(len(self.x), self.out.width)
        whole = (Embed("rows", Buffer("x", self.x.shape[1]).view()), *self.ops, Logits(self.out, "identity"))
        shapes = {name: weight.shape for name, weight in self.all_weights(vocab).items()}
        return Program(whole, shapes, self.states, vocab)

    def all_weights(self, vocab: int) -> dict[str, MappedWeight]:
        table = np.zeros((vocab, self.x.shape[1]), np.float32)
        table[: len(self.x)] = self.x
        return {**self.weights, "rows": floats("rows", table), "identity": floats("identity", np.eye(vocab, self.out.width))}

    def stored_as(self, dtype: str) -> Case:
        """The same with its paged states in another precision."""
        states = (each.stored_as(dtype) if isinstance(each, PagedState) else each for each in self.states)
        return replace(self, states=tuple(states))

    def step(self, backend: CpuBackend | ReferenceBackend, context: int, rows: int = 1, shuffle: int | None = None) -> Step:
        program = self.program
        check_program(program)
        weights = self.all_weights(program.vocab_size)
        if self.tiled and isinstance(backend, CpuBackend):
            orders = backend.tile_orders(program, weights)
            assert set(orders) == self.tiled
            weights |= {name: in_tile_order(weights[name], order) for name, order in orders.items()}
        return with_pages(backend.compile(program, weights, StepLimits(context, CHUNK, rows)), shuffle)

    def run(
        self, batches: Sequence[Batch], threads: int | None = 1, context: int = 64, rows: int = 1, shuffle: int | None = None
    ) -> np.ndarray:
        """The view of all tokens, (N, out width): row i of `x` is the i-th token of all batches. `threads` None: reference.

        `shuffle`: the seed of the order of the pages.
        """
        step = self.step(ReferenceBackend(exact=False) if threads is None else CpuBackend(threads), context, rows, shuffle)
        found, done = [], 0
        try:
            for batch_rows, positions in batches:
                count = len(positions)
                found.append(run(step, np.arange(done, done + count), batch_rows, positions, np.arange(count)).copy())
                done += count
        finally:
            step.close()
        return np.concatenate(found)[:, : self.out.width]


def logits(
    x: np.ndarray, weight: MappedWeight, outputs: Sequence[int], threads: int = 1, scale: float = 1.0, softcap: float | None = None,
    bias: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The logits of chosen rows of x (V, width), at most CHUNK of them fed, over a weight (V, width)."""
    weights = {"rows": floats("rows", x), "out": weight}
    if bias is not None:
        weights["bias"] = floats("bias", bias)
    view = Buffer("x", x.shape[1]).view()
    shapes = {name: given.shape for name, given in weights.items()}
    program = Program(
        (Embed("rows", view), Logits(view, "out", scale, softcap, None if bias is None else "bias")), shapes, (), len(x)
    )
    step = CpuBackend(threads).compile(program, weights, StepLimits(CHUNK, CHUNK))
    rows = np.arange(min(len(x), CHUNK), dtype=np.int32)
    try:
        return run(step, rows, 0 * rows, rows, outputs).copy()
    finally:
        step.close()


def one_batch(count: int, first: int = 0) -> list[Batch]:
    """`count` tokens of row 0, at consecutive positions."""
    return [([0] * count, list(range(first, first + count)))]


def singly(batches: Sequence[Batch]) -> list[Batch]:
    """The same tokens, one a step."""
    return [([row], [position]) for rows, positions in batches for row, position in zip(rows, positions, strict=True)]


def floats(name: str, values: np.ndarray, quant: str = "F32") -> MappedWeight:
    """A weight of floats."""
    values = np.asarray(values, np.float32)
    if quant == "F16":
        data = values.astype(np.float16).view(np.uint8)
    elif quant == "BF16":
        data = np.ascontiguousarray((values.view(np.uint32) >> 16).astype(np.uint16)).view(np.uint8)
    else:
        data = np.ascontiguousarray(values).view(np.uint8)
    return MappedWeight(name, values.shape, by_name(quant), data.reshape(-1))


def random_weight(name: str, quant: str, rows: int, width: int, seed: int = 0) -> MappedWeight:
    """A weight of any block type from random bytes with scales of ordinary size."""
    kind, rng = by_name(quant), np.random.default_rng(seed)
    if quant in ("F32", "F16", "BF16"):
        return floats(name, rng.standard_normal((rows, width)), quant)
    if quant == "F64":
        return MappedWeight(name, (rows, width), kind, rng.standard_normal((rows, width)).view(np.uint8).reshape(-1))
    blocks = rng.integers(0, 256, (rows * width // kind.block_elements, kind.block_bytes), np.uint8)
    for at in HALVES.get(quant, ()):
        scales = (rng.uniform(0.5, 2, len(blocks)) * rng.choice((-0.01, 0.01), len(blocks))).astype(np.float16)
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    if quant == "F8_E4M3":
        blocks[(blocks & 0x7F) == 0x7F] ^= 1  # no NaN
    if quant == "MXFP4":
        blocks[:, 0] = rng.integers(120, 130, len(blocks))
    if quant == "NVFP4":
        blocks[:, :4] = rng.integers(0x20, 0x50, (len(blocks), 4))
    if quant == "IQ1_M":  # the scale stands in the upper nibbles of four words
        words = blocks[:, 48:56].view(np.uint16) & 0x0FFF
        blocks[:, 48:56] = (words | (np.array([0xD000, 0x8000, 0x1000, 0x2000], np.uint16))).view(np.uint8)
    return MappedWeight(name, (rows, width), kind, blocks.reshape(-1))


def in_tile_order(weight: MappedWeight, order: TileOrder) -> MappedWeight:
    """The weight with its blocks moved; its rows are wiped, for nobody may read them."""
    blocks = weight.data.reshape(-1, weight.shape[-1] // weight.quant.block_elements, weight.quant.block_bytes)
    if order.pieces:
        starts = np.cumsum([0, *order.pieces]).tolist()
        moved = [
            blocks[row, block, first:end]
            for tile in range(0, len(blocks), order.rows)
            for block in range(blocks.shape[1])
            for first, end in itertools.pairwise(starts)
            for row in range(tile, tile + order.rows)
        ]
        return replace(weight, data=np.zeros_like(weight.data), tiled=np.concatenate(moved))
    group = order.columns // weight.quant.block_elements
    moved = [
        blocks[row, first : first + group]
        for tile in range(0, len(blocks), order.rows)
        for first in range(0, blocks.shape[1], group)
        for row in range(tile, tile + order.rows)
    ]
    return replace(weight, data=np.zeros_like(weight.data), tiled=np.concatenate(moved).reshape(-1))


def scaled_weight(
    name: str, quant: str, shape: tuple[int, ...], block: tuple[int, int], seed: int = 0, factors: str = "F32"
) -> ScaledWeight:
    """Random finite bytes with random factors, one for each block of the last two axes."""
    rng, kind = np.random.default_rng(seed), by_name(quant)
    data = rng.integers(0, 256, (*shape[:-1], kind.row_bytes(shape[-1])), np.uint8)
    if quant == "F8_E4M3":
        data[data & 0x7F == 0x7F] = 0
    counts = (*shape[:-2], *(-(-size // part) for size, part in zip(shape[-2:], block, strict=True)))
    if factors == "F8_E8M0":
        scales = MappedWeight(f"{name} factors", counts, by_name(factors), rng.integers(118, 128, counts, np.uint8).reshape(-1))
    else:
        scales = floats(f"{name} factors", rng.uniform(-0.02, 0.02, counts), factors)
    return ScaledWeight(name, shape, kind, data.reshape(-1), scales=scales, scale_block=block)


class ScaledWeight(MappedWeight):
    """A weight with factors."""

    def values(self) -> np.ndarray:
        """Float32 of its shape."""
        assert self.scales is not None
        factors = self.scales.quant.dequantise(self.scales.data).reshape(self.scales.shape)
        factors = factors.repeat(self.scale_block[0], -2)[..., : self.shape[-2], :].repeat(self.scale_block[1], -1)
        return self.quant.dequantise(self.data).reshape(self.shape) * factors[..., : self.shape[-1]]


def dequantised(weight: MappedWeight) -> np.ndarray:
    """Float32 of the weight's shape."""
    return weight.quant.dequantise(weight.data.reshape(weight.shape[0], -1))


def as_bytes_and_back(x: np.ndarray) -> np.ndarray:
    """What the CPU backend makes of activations (T, width): 32 columns share a scale, values are -127 to 127; float64."""
    parts = x.reshape(len(x), -1, 32)
    most = np.abs(parts).max(axis=-1, keepdims=True).astype(np.float64)
    with np.errstate(divide="ignore"):
        inverse = np.where(most > 0, 127 / most, 0).astype(np.float32)
    q = np.rint(parts * inverse)
    return (q * (most / 127).astype(np.float32).astype(np.float64)).reshape(x.shape)


def nmse(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error as a share of the mean square."""
    expected = expected.astype(np.float64)
    return float(((found - expected) ** 2).mean() / (expected**2).mean())


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
