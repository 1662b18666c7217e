"""Pages and units on WebGPU: grown, copied, written out and read back, there or on the reference backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import OptionError, OutOfMemoryError
from lacewing.program.ops import Buffer, ShortConvolution
from lacewing.program.states import FixedState
from tests import paged
from tests.backends.cpu.single_ops import Batch, Case, floats, nmse, normal, one_batch
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.single_ops import CODES, FLOATS, backend, run_step
from tests.checkpoints import tiny
from tests.models.running import open_step, run

WIDTH, TAPS = 70, 4


def convolution() -> Case:
    x, out = Buffer("x", WIDTH).view(), Buffer("out", WIDTH).view()
    weights = {"w": floats("w", normal(WIDTH, TAPS, seed=4))}
    return Case((ShortConvolution(x, "w", out, 0),), normal(30, WIDTH), out, weights, (FixedState((("conv", (TAPS - 1, WIDTH)),)),))


@pytest.mark.parametrize("shape", [(2, 1, 32, 64), (2, 2, 20, 12)], ids=str)
@pytest.mark.parametrize("dtype", ["f16", "f32", "q8_0"])
def test_a_page_goes_on_elsewhere(shape: tuple[int, int, int, int], dtype: str) -> None:
    """In another page and row of a step with another context, and on the reference backend."""
    if dtype == "q8_0" and shape[2] % 32:
        shape = (2, 2, 32, 96)
    case = attention_case(160, *shape, dtype=dtype)
    one: Any = case.step(backend(FLOATS), 200)  # type: ignore[arg-type]
    other: Any = case.step(backend(FLOATS), 300, 3)  # type: ignore[arg-type]
    reference: Any = case.step(ReferenceBackend(exact=False), 200)
    try:
        run_step(one, [*one_batch(60), *one_batch(60, 60), *one_batch(35, 120)])
        expected = run_step(one, one_batch(5, 155), 155)
        data = one.read(0, [1, 0])
        assert data.shape == (2, one.groups[0].nbytes)
        other.write(0, [4, 7], data)
        other.put_table(0, 2, 0, [7, 4])
        assert np.array_equal(run_step(other, [([2] * 5, list(range(155, 160)))], 155), expected)
        assert np.array_equal(other.read(0, [4, 7]), one.read(0, [1, 0]))
        assert not other.read(0, [0, 5]).any()
        reference.write(0, [1, 0], data)
        assert nmse(run_step(reference, one_batch(5, 155), 155), expected) < 1e-6
        np.testing.assert_array_equal(reference.read(0, [1])[0], one.read(0, [1])[0])
        assert one.read(0, []).shape == (0, one.groups[0].nbytes)
        with pytest.raises(OptionError, match="take uint8 of shape"):
            other.write(0, [4], data)
        with pytest.raises(OptionError, match="page 2 of group 0 does not exist; there are 2"):
            one.read(0, [2])
    finally:
        for step in (one, other, reference):
            step.close()
    for call in (lambda: one.read(0, [0]), lambda: one.write(0, [0], data), lambda: one.grow(0, 3), lambda: one.copy(0, [(0, 1)])):
        with pytest.raises(OptionError, match="closed"):
            call()


def test_latent_keys_alone_are_kept() -> None:
    case = attention_case(10, 2, 1, 40, 32, latent=True)
    step: Any = case.step(backend(FLOATS), 12)  # type: ignore[arg-type]
    run_step(step, one_batch(10))
    keys = case.x[:, 80:].astype(np.float16)
    assert np.array_equal(step.read(0, [0]).view(np.float16).reshape(128, 40)[:10], keys)
    step.close()


def test_pages_grow_while_they_are_used() -> None:
    """A row gets page after page, in no order, and other bind groups only where the state is; what is there keeps its bits."""
    case = attention_case(290, 2, 1, 16, 16)
    whole: Any = case.step(backend(CODES), 300)  # type: ignore[arg-type]
    step: Any = case.step(backend(CODES), 300)  # type: ignore[arg-type]
    step.grow(0, 0)
    device, held = step.device, step.device.allocated
    before = {id(d): d._owner for d in step.dispatches}
    batches: list[Batch] = [*one_batch(50), *one_batch(50, 50), *one_batch(30, 100), ([0], [130]), *one_batch(50, 131)]
    batches += [*one_batch(60, 181), ([0], [241]), *one_batch(40, 242), *([([0], [p]) for p in range(282, 290)])]
    found, done, pages = [], 0, [2, 0, 4]
    for rows, positions in batches:
        needed = positions[-1] // 128
        if step.sizes[0] <= max(pages[: needed + 1]):
            step.grow(0, max(pages[: needed + 1]) + 1)
        step.put_table(0, 0, 0, pages[: needed + 1])
        found.append(run_step(step, [(rows, positions)], done))
        done += len(positions)
    assert np.array_equal(np.concatenate(found), run_step(whole, batches))
    page = 128 * 2 * 16 * 2
    assert step.sizes == [5] and device.allocated == held - 256 + 5 * page
    changed = {d.label for d in step.dispatches if before[id(d)] is not d._owner}
    assert "embed" not in changed and "logits" not in changed and {"heads", "attention_prefill"} <= changed
    data = step.read(0, [0, 2, 4])
    step.grow(0, 1)
    assert device.allocated == held - 256 + page
    assert np.array_equal(step.read(0, [0]), data[:1])
    step.close()
    whole.close()


@pytest.mark.parametrize("after", [0, 1])
def test_a_growth_that_fails_changes_nothing(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first layer or at the second."""
    _, opened = open_step(tiny("llama", "gguf", tmp_path), 64, backend(FLOATS), chunk=32)
    step: Any = opened
    logits, made, real = run(step, [1, 2, 3]), [0], step.device.buffer
    data, allocated = step.read(0, [0]), step.device.allocated

    def refuse(size: int, label: str, usage: int | None = None) -> Any:
        made[0] += "KV cache" in label
        if "KV cache" in label and made[0] == after + 1:
            raise OutOfMemoryError(f"{label} does not fit")
        return real(size, label, usage)

    with monkeypatch.context() as patched, pytest.raises(OutOfMemoryError, match=f"the KV cache of layer {after} does not fit"):
        patched.setattr(step.device, "buffer", refuse)
        step.grow(0, 4)
    assert step.sizes == [1] and step.device.allocated == allocated and np.array_equal(step.read(0, [0]), data)
    assert np.array_equal(run(step, [1, 2, 3]), logits)
    step.grow(0, 4)
    assert np.array_equal(run(step, [1, 2, 3]), logits)
    step.close()


def test_pages_and_units_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also so many that they are moved in several goes."""
    monkeypatch.setattr("lacewing.backends.webgpu.state.states.MOVED_BYTES", 2 * 128 * 2 * 16 * 2)
    case = attention_case(60, 2, 1, 16, 16)
    step: Any = case.step(backend(FLOATS), 128, 5)  # type: ignore[arg-type]
    run_step(step, one_batch(60))
    step.write(0, [1, 2, 3], np.tile(np.arange(3, dtype=np.uint8)[:, None], (1, step.groups[0].nbytes)))
    data = step.read(0, range(5))
    step.copy(0, [(0, 4), (2, 3)])
    assert np.array_equal(step.read(0, range(5)), data[[0, 1, 2, 2, 0]])
    step.close()
    step = convolution().step(backend(FLOATS), 64, 2)  # type: ignore[arg-type]
    run_step(step, one_batch(10))
    step.copy(0, [(1, 2)])
    unit = step.read(0, [2]).view(np.float32).reshape(TAPS - 1, WIDTH)
    np.testing.assert_array_equal(unit, convolution().x[7:10])
    step.close()


def test_a_unit_that_was_read_stays_whole() -> None:
    """A run reads one unit and writes another: run again from the first, it gives the same."""
    case = convolution()
    step: Any = case.step(backend(FLOATS), 64, 1)  # type: ignore[arg-type]
    run_step(step, one_batch(10))  # into unit 1
    before = step.read(0, [1])
    first = run_step(step, one_batch(5, 10), 10)  # from unit 1 into unit 0
    assert np.array_equal(step.read(0, [1]), before) and not np.array_equal(step.read(0, [0]), before)
    again: Any = paged.with_pages(case.step(backend(FLOATS), 64, 1))  # type: ignore[arg-type]
    again.write(0, [1], before)
    paged._turns(again)[0] = 1
    assert np.array_equal(run_step(again, one_batch(5, 10), 10), first)
    step.close()
    again.close()


def test_tables_are_checked() -> None:
    step: Any = attention_case(4, 2, 1, 16, 16).step(backend(FLOATS), 200, 2)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="has no table of row 2"):
        step.put_table(0, 2, 0, [0])
    with pytest.raises(OptionError, match="page 4 of group 0 does not exist"):
        step.put_table(0, 0, 0, [4])
    with pytest.raises(OptionError, match="beyond its context"):
        step.put_table(0, 0, 1, [0, 1])
    step.close()
