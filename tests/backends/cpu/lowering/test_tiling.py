"""Weights in tile order: the same bits as row after row, for every quant and op that reads them, and for no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lacewing.backends.batch import StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cpu.isa import host_isa
from lacewing.backends.cpu.quants import TILES
from lacewing.backends.weights import TileOrder
from lacewing.errors import BackendError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.program.ops import Buffer, Embed, ExpertLinear, HeadLinear, Linear, Route
from lacewing.program.program import Program
from lacewing.quants import by_name
from lacewing.weights import WeightStore
from tests.backends.cpu.checks import check_tile_order, check_tiled_linear
from tests.backends.cpu.single_ops import CHUNK, Batch, Case, floats, in_tile_order, normal, one_batch, random_weight, scaled_weight
from tests.checkpoints import prompt_of, tiny
from tests.models.running import MappedWeight, run
from tests.paged import with_pages

LANES = host_isa().lanes
ORDER = TileOrder(LANES, 256)
ALONE_AND_TOGETHER = [*one_batch(1), *one_batch(1, 1), *one_batch(11, 2)]


@pytest.mark.parametrize("quant", TILES)
def test_linear(quant: str) -> None:
    shapes = [(LANES, 256), (3 * LANES, 768), (2 * LANES, 2048)]
    if by_name(quant).block_elements == 32:  # part of a group, of a step of a token that is alone, or of both
        shapes += [(LANES, 32), (2 * LANES, 64), (LANES, 128), (3 * LANES, 288), (LANES, 352), (4 * LANES, 576), (LANES, 640)]
    for rows, width in shapes:
        check_tiled_linear(quant, rows, width)


@pytest.mark.parametrize("quant", TILES)
def test_embedding(quant: str) -> None:
    width = 800 if by_name(quant).block_elements == 32 else 768
    table, out = random_weight("w", quant, width, width), Buffer("out", width).view()
    case = Case((Embed("w", out, 1.75),), np.zeros((width, 8), np.float32), out, {"w": table})
    check_tile_order(case, one_batch(3 * LANES))  # a token's id is its number


EXPERTS, ACTIVE = 5, 2


@pytest.mark.parametrize("quant", ["Q4_0", "Q5_1", "Q8_0", "Q3_K", "Q4_K", "Q6_K", "MXFP4"])
@pytest.mark.parametrize("split", [1, 2])
def test_experts(quant: str, split: int) -> None:
    width, rows = 544 if by_name(quant).block_elements == 32 else 512, 2 * LANES
    whole, ids, chosen = Buffer("x", width + EXPERTS), Buffer("ids", ACTIVE).view(), Buffer("chosen", ACTIVE).view()
    outs = tuple(Buffer(name, ACTIVE * rows).view() for name in ("first", "second")[:split])
    stack = random_weight("w", quant, EXPERTS * split * rows, width)
    weights = {"w": MappedWeight("w", (EXPERTS, split * rows, width), stack.quant, stack.data)}
    ops = (Route(whole.view(width), ids, chosen), ExpertLinear(whole.view(0, width), ids, ("w",), outs))
    for out in outs:
        check_tile_order(Case(ops, normal(13, width + EXPERTS), out, weights), ALONE_AND_TOGETHER)


def test_a_linear_for_each_head() -> None:
    heads, rows, width = 3, 2 * LANES, 96
    x, out = Buffer("x", heads * (width + 32)).view(), Buffer("out", heads * (rows + 32)).view()
    stack = random_weight("w", "Q8_0", heads * rows, width)
    weights = {"w": MappedWeight("w", (heads, rows, width), stack.quant, stack.data)}
    check_tile_order(Case((HeadLinear(x, "w", out, heads),), normal(13, x.width), out, weights), ALONE_AND_TOGETHER)


@st.composite
def products(draw: st.DrawFn) -> tuple[Case, list[Batch]]:
    """A linear, or that of chosen experts, of any shape that is whole tiles, and some tokens cut into steps."""
    quant = draw(st.sampled_from(sorted(TILES)))
    elements = by_name(quant).block_elements
    rows, width = LANES * draw(st.integers(1, 5)), elements * draw(st.integers(1, 1280 // elements))
    counts = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    starts = np.cumsum([0, *counts]).tolist()
    batches = [batch for first, count in zip(starts, counts, strict=False) for batch in one_batch(count, first)]
    if not draw(st.booleans()):
        x, out = Buffer("x", width).view(), Buffer("out", rows).view()
        weights = {"w": random_weight("w", quant, rows, width), "b": floats("b", normal(rows))}
        biased = Linear(x, ("w",), (out,), ("b",))
        return Case((biased,), normal(starts[-1], width), out, weights), batches
    experts, split = draw(st.integers(2, 6)), draw(st.integers(1, 2))
    active = draw(st.integers(1, experts))
    whole, ids, chosen = Buffer("x", width + experts), Buffer("ids", active).view(), Buffer("chosen", active).view()
    outs = tuple(Buffer(name, active * rows).view() for name in ("first", "second")[:split])
    stack = random_weight("w", quant, experts * split * rows, width)
    weights = {"w": MappedWeight("w", (experts, split * rows, width), stack.quant, stack.data)}
    ops = (Route(whole.view(width), ids, chosen), ExpertLinear(whole.view(0, width), ids, ("w",), outs))
    return Case(ops, normal(starts[-1], width + experts), outs[-1], weights), batches


@settings(max_examples=60, deadline=None)
@given(products(), st.integers(1, 5))
def test_any_product(product: tuple[Case, list[Batch]], threads: int) -> None:
    """Also on more threads than there are tiles, and the same as on one."""
    case, batches = product
    tiled = replace(case, tiled=frozenset({"w"}))
    assert np.array_equal(tiled.run(batches, threads), case.run(batches))


def orders(*ops: object, **weights: MappedWeight) -> set[str]:
    return set(CpuBackend(1).tile_orders(Program(ops, {}, (), 1), weights))  # type: ignore[arg-type]


def test_what_is_left_row_after_row() -> None:
    """What other kernels read: floats, tiles that share rows, interleaved outputs, weights with another use or with factors."""
    x, y, ids = Buffer("x", 256).view(), Buffer("y", 2 * LANES).view(), Buffer("ids", ACTIVE).view()
    good, uneven = random_weight("w", "Q8_0", 2 * LANES, 256), random_weight("w", "Q8_0", 2 * LANES + 1, 256)
    assert orders(Linear(x, ("w",), (y,)), w=good) == {"w"}
    assert orders(Linear(x, ("w",), (y,)), Embed("w", x), w=good) == {"w"}
    assert not orders(Linear(x, ("w",), (y,)), w=uneven)
    assert not orders(Linear(x, ("w",), (y,)), w=floats("w", normal(2 * LANES, 256)))
    assert not orders(Linear(x, ("w",), (y,)), w=random_weight("w", "IQ2_XS", 2 * LANES, 256))
    assert not orders(Linear(x, ("w",), (y,)), w=scaled_weight("w", "F8_E4M3", (2 * LANES, 256), (128, 128)))
    assert orders(Linear(x, ("v",), (y,), ("w",)), v=good, w=good) == {"v"}  # w is a bias
    assert orders(Linear(x, ("w",), (y,)), Linear(x, ("v",), (y,), ("w",)), v=good, w=good) == {"v"}
    stack = MappedWeight("w", (2, LANES, 256), good.quant, good.data)
    assert orders(ExpertLinear(x, ids, ("w",), (y,)), w=stack) == {"w"}
    assert not orders(ExpertLinear(x, ids, ("w",), (y, x), interleaved=True), w=stack)
    assert not orders(ExpertLinear(x, ids, ("w",), (y, x)), w=stack)  # half a tile each
    assert not orders(ExpertLinear(x, ids, ("w",), (y,), transposed=True), w=stack)


def test_kernels_that_take_rows_refuse_tiles() -> None:
    """Where the order and the kernels disagree, nothing runs."""
    x, y = Buffer("x", 32).view(), Buffer("y", LANES).view()
    weight = in_tile_order(floats("w", normal(LANES, 32)), ORDER)
    with pytest.raises(BackendError, match="w is in tile order"):
        Case((Linear(x, ("w",), (y,)),), normal(2, 32), y, {"w": weight}).run(one_batch(2))


def test_watching_routers_looks_at_no_weight(tmp_path: Path) -> None:
    """They may be between two orders then; that a step is bound again is for whoever moves them."""
    spec = open_model(open_checkpoint(tiny("mixtral", "gguf", tmp_path, "Q8_0", intermediate_size=64)))
    backend, weights, ids = CpuBackend(2), WeightStore(spec.tensors), prompt_of("mixtral", 20)
    weights.arrange(backend.tile_orders(spec.program, weights))
    weights.set_residency("eager")
    step = with_pages(backend.compile(spec.program, weights, StepLimits(64, CHUNK)))
    expected = run(step, ids)
    weights.close()
    step.watch_routes(True)
    assert np.array_equal(run(step, ids), expected)
    assert [routed.ids.shape[0] for routed in step.routes()] == [20] * sum(isinstance(op, Route) for op in spec.program.ops)
    step.watch_routes(False)
    assert np.array_equal(run(step, ids), expected) and not step.routes()
    step.close()
