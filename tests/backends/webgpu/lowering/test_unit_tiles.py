"""Products on matrix units, emulated, whose columns are divided among workgroups, and in skinny tiles."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.gpu.layouts import LAYOUTS
from lacewing.backends.gpu.run import Run
from lacewing.backends.webgpu.device.variant import UNITS
from lacewing.backends.webgpu.kernels import number, shader
from lacewing.backends.webgpu.lowering import forms, unit_tiles
from lacewing.backends.webgpu.lowering.unit_tiles import Split, shapes
from lacewing.program.ops import Buffer, Embed, Linear, Logits
from lacewing.program.program import Program
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.webgpu.emulation import check_places, emulated
from tests.backends.webgpu.lowering.test_forms import case as gated_case
from tests.backends.webgpu.lowering.test_units import INPUTS, SMALL, backend, exact
from tests.backends.webgpu.parser import parser
from tests.backends.webgpu.single_ops import run_step
from tests.checkpoints import prompt_of, tiny
from tests.models.running import open_step, run
from tests.paged import with_pages

SKINNY = 8  # where skinny tiles begin in these tests


def divide(monkeypatch: pytest.MonkeyPatch, whole: int, skinny: int = 0) -> None:
    monkeypatch.setattr(unit_tiles, "SPLIT_GROUPS", (whole, skinny))
    monkeypatch.setattr(unit_tiles, "SPLIT_STEPS", 1)


def case(quant: str, rows: int, width: int, tokens: int, biased: bool = False) -> Case:
    y, weights = Buffer("y", rows).view(), {"w": random_weight("w", quant, rows, width)}
    if biased:
        weights["b"] = floats("b", normal(1, rows)[0])
    op = Linear(Buffer("x", width).view(), ("w",), (y,), *((("b",),) if biased else ()))
    return Case((op,), normal(tokens, width, seed=3), y, weights)


def compiled(one: Case, chunk: int = 128) -> Any:
    program = one.program
    return with_pages(backend().compile(program, one.all_weights(program.vocab_size), StepLimits(chunk, chunk)))


def taken(step: Any, tokens: int) -> dict[str, tuple[int, int, int]]:
    run = Run(tokens, 0, tokens)
    return {each.label: each.grid(run) for each in step._dispatches if each.grid(run) is not None}


def values(step: Any, one: Case, tokens: int) -> np.ndarray:
    return run_step(step, one_batch(tokens))[:, : one.out.width]


@pytest.mark.parametrize(("across", "steps", "wanted"), [*itertools.product((1, 3, 8, 32), (1, 5, 16, 64, 224), (0, 132, 264))])
def test_every_part_has_columns(across: int, steps: int, wanted: int) -> None:
    """And each has as many as the kernel takes it to have; the workgroups are as many as there is room for."""
    split = Split(across, steps, wanted)
    for blocks in range(1, 17):
        parts = split.parts(blocks)
        each = -(-steps // parts)
        assert (parts - 1) * each < steps <= parts * each and (parts == 1 or each >= unit_tiles.SPLIT_STEPS)
        assert parts == 1 or parts * across * blocks <= wanted
        assert next((count for upto, count in split.table(16) if blocks <= upto), 1) == parts
    if across == 32 and steps == 64:  # 4096 rows and columns, up to 128 tokens
        assert split.parts(1) == {0: 1, 132: 4, 264: 8}[wanted]


@pytest.mark.parametrize("quant", ["Q4_K", "F16"])
def test_columns_are_divided(quant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 70 rows are three tiles; two tiles of tokens leave room for more parts than five do. The last part has fewer columns."""
    one = case(quant, 70, 1280 if quant == "Q4_K" else 1312, 140, biased=quant == "F16")
    divide(monkeypatch, 30)
    step = compiled(one, 256)
    for tokens, parts in ((70, 3), (140, 2), (200, 0)):
        grids = taken(step, tokens)
        assert ("gemm_units" in grids) == (parts == 0) == ("gemm_units_sum" not in grids), tokens
        assert "gemm_units_split" not in grids or grids["gemm_units_split"] == (-(-tokens // 32), 3, parts)
    got = {tokens: values(step, one, tokens) for tokens in (70, 140)}
    assert np.array_equal(values(step, one, 140), got[140])  # always in the same order
    step.close()
    want = one.run([*one_batch(60), *one_batch(60, 60), *one_batch(20, 120)], None, 256)
    assert nmse(got[70], want[:70]) < 1e-6 and nmse(got[140], want) < 1e-6


def test_divided_products_and_whole_ones_share_what_they_add_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three products of several quants, and their activations."""
    one = gated_case()
    divide(monkeypatch, 30)
    step = compiled(one)
    assert "gemm_units_split" in taken(step, 77)
    got = values(step, one, 77)
    step.close()
    assert nmse(got, exact(one)) < 1e-6


@pytest.mark.parametrize("split", [0, 8])
@pytest.mark.parametrize("quant", ["Q4_K", "F16"])
def test_skinny_tiles(quant: str, split: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From nine tokens on, of both sizes that there are for so small tiles; up to eight are GEMVs."""
    monkeypatch.setattr(forms, "SKINNY_ABOVE", SKINNY)
    divide(monkeypatch, 0, split)
    one = case(quant, 70, 512 if quant == "Q4_K" else 288, 64, biased=quant == "F16")
    step, reference = compiled(one), exact(one, 64)
    for tokens, tile in ((8, 0), (9, 16), (16, 16), (17, 32), (33, 32), (64, 32)):
        grids = taken(step, tokens)
        units = [grid for label, grid in grids.items() if label in ("gemm_units", "gemm_units_split")]
        divided = tile == 16 and split > 0
        assert [grid[:2] for grid in units] == ([(-(-tokens // tile), 3)] if tile else []), tokens
        assert ("gemm_units_split" in grids) == divided == ("gemm_units_sum" in grids)
        assert any(label.startswith("gemv") for label in grids) == (tile == 0)
        got = values(step, one, tokens)
        assert nmse(got, reference[:tokens]) < (1e-6 if tile else 5e-4), tokens
    step.close()


@pytest.mark.parametrize("tokens", [8, 9, 40, 77])
def test_forms_follow(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm and the activation make float16 from nine tokens on, and bytes up to eight: nothing is made again."""
    monkeypatch.setattr(forms, "SKINNY_ABOVE", SKINNY)
    one = gated_case()
    step = compiled(one)
    grids = taken(step, tokens)
    assert "halve" not in grids and "quantise" not in grids
    assert ("gated_row" in grids) == ("gemm_units" in grids) == (tokens > SKINNY) == ("gated" not in grids)
    got = values(step, one, tokens)
    step.close()
    assert nmse(got, exact(one)[:tokens]) < (1e-6 if tokens > SKINNY else 5e-4)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_rows_of_logits(softcap: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tokens of a run, in any order, and one twice: their own places, scales and caps."""
    monkeypatch.setattr(forms, "SKINNY_ABOVE", SKINNY)
    divide(monkeypatch, 30, 30)
    vocab, width, x = 75, 512, Buffer("x", 512).view()
    weights = {"rows": floats("rows", normal(vocab, width)), "out": random_weight("out", "Q8_0", vocab, width)}
    program = Program((Embed("rows", x), Logits(x, "out", 0.5, softcap)), {n: w.shape for n, w in weights.items()}, (), vocab)
    step = with_pages(backend().compile(program, weights, StepLimits(128, 128)))
    labels = [each.label for each in step._dispatches]  # type: ignore[attr-defined]
    assert labels.count("logits") >= 4
    alone = np.concatenate([step.run(Batch.of([token], 0, [0])) for token in range(70)])
    for outputs in ([69], [5, 2, 5, *range(9)], list(range(40))[::-1], list(range(70))):
        assert nmse(step.run(Batch.of(range(70), 0, outputs)), alone[outputs]) < 5e-4
    for tokens in (1, 5, 8):  # of which nothing makes float16; an engine wants a row twice where it is looked at in two ways
        outputs = np.arange(40) % tokens
        np.testing.assert_array_equal(step.run(Batch.of(range(20, 20 + tokens), 0, outputs)), alone[20 + outputs])
    step.close()


@pytest.mark.parametrize("chunk", [128, 48])
def test_a_model_and_its_memory(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of every token of runs of several sizes; what is promised is what is taken."""
    monkeypatch.setattr(forms, "SKINNY_ABOVE", SKINNY)
    divide(monkeypatch, 16, 16)
    path, ids = tiny("llama-wide", "gguf", tmp_path, "Q4_K"), prompt_of("llama", 77)
    _, reference = open_step(path, 128)
    spec, step = open_step(path, 128, backend(), chunk=chunk)
    labels = {each.label for each in step._dispatches}  # type: ignore[attr-defined]
    assert {"gemm_units_split", "gemm_units_sum"} <= labels
    for tokens in (9, 33, min(77, chunk)):
        assert nmse(run(step, ids[:tokens]), run(reference, ids[:tokens])) < 1e-5
    memory = backend().memory(spec.program, dict(spec.tensors), StepLimits(spec.context, chunk))
    assert 0.9 * memory.buffer_bytes <= step.buffer_bytes <= memory.buffer_bytes
    step.close()


def test_the_shapes_of_real_devices_are_taken_by_the_compiler() -> None:
    """Whole and divided, and the sums; workgroup memory lies at multiples of 16 bytes in the smallest too."""
    place = {"base": 0, "stride": 64}
    for (units, _), layout in itertools.product(shapes(UNITS[0]), LAYOUTS.values()):
        constants = {
            "layout": layout, "groups": 8, "columns": 256, "rows": 300, "by_rows": False, "first_row": 0, "biased": True,
            "target": "arena", "outs": [{"start": 0, "end": 300, "place": place}], "units": units, "threads": 64,
            "halves": SimpleNamespace(values=place, scales=place, words=128), "variant": backend().device.variant,
            "number": number, "inputs": SimpleNamespace(**dict.fromkeys(INPUTS, 0)), "fours": layout.halves,
        }  # fmt: skip
        split = {"split": [(1, 3), (2, 2)], "steps": 4, "pitch": 96}
        if layout.quant != "F32":
            for name in ("gemm_units", "gemm_units_split", "gemm_units_sum"):
                text = shader(name, **constants, **(split if name != "gemm_units" else {}))
                parser().check(text, f"{layout.quant} {units} {name}")
                check_places(text)
                emulated(text)
    sizes = [(each.tokens, each.rows, each.threads, each.nbytes) for each, _ in shapes(UNITS[0])]
    assert sizes == [(128, 128, 256, 37376), (64, 128, 256, 27904), (32, 128, 256, 23168), (16, 128, 128, 20800)]
    assert [each.tokens for each, _ in shapes(SMALL)] == [32, 16]
