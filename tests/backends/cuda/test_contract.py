"""The contract on an NVIDIA GPU (`make nvidia`): golden values, quants, attention over pages, the choice, states, shared models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, Draw, StepLimits, Wanted
from lacewing.backends.choice import candidates_of
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cuda.kernels import kernel
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.errors import NumericError
from lacewing.program.ops import Buffer, Embed, Linear, Logits
from lacewing.program.program import Program
from lacewing.quants import QUANTS
from tests import mixtures, paged
from tests.backends.cpu.kernels.test_experts import batches
from tests.backends.cpu.single_ops import Case, floats, nmse, normal, one_batch, random_weight
from tests.backends.cuda.nvidia import backend, error, run_step
from tests.backends.cuda.test_lowering import beside_case, dense_case, with_product
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_experts import linear_case
from tests.checkpoints import CONTEXTS, GOLDEN, ONLY_HUGGINGFACE, prompt_of, tiny
from tests.models.golden import TOLERANCE, VALUES
from tests.models.running import greedy, open_step, run
from tests.offload.splits import IDS, cuts, mixed_run, open_split
from tests.paged import with_pages

pytestmark = pytest.mark.nvidia
NO_GGUF = {*ONLY_HUGGINGFACE, *mixtures.ONLY_HUGGINGFACE}
CASES = [(name, "huggingface") for name in GOLDEN] + [(name, "gguf") for name in GOLDEN if name not in NO_GGUF]


@pytest.mark.parametrize(("name", "format"), CASES)
def test_logits_and_greedy_tokens_are_those_of_transformers(name: str, format: str, tmp_path: Path) -> None:
    ids, continued = prompt_of(name), VALUES[f"{name}.greedy"].tolist()
    _, step = open_step(tiny(name, format, tmp_path), CONTEXTS.get(name), backend(), chunk=64)
    np.testing.assert_allclose(run(step, ids)[VALUES["rows"]], VALUES[f"{name}.logits"], rtol=0, atol=TOLERANCE)
    assert greedy(step, ids, len(continued)) == continued
    step.close()
    assert backend().device.allocated == 0


BLOCKS = [name for name, quant in QUANTS.items() if quant.block_elements > 1 and name != "F4_E2M1"]


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", *BLOCKS])
def test_products_of_every_quant(quant: str) -> None:
    """One token, a few, and many; rows that fill no tile."""
    x, out = Buffer("x", 512).view(), Buffer("out", 83).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(90, 512), out, {"w": random_weight("w", quant, 83, 512)})
    limit = 1e-3 if quant.startswith(("IQ1", "IQ2", "IQ3")) else LIMIT  # converted to Q8_0
    assert error(case, [([0], [0]), *one_batch(5, 1), *one_batch(20, 6), *one_batch(64, 26)], 128) < limit


@pytest.mark.parametrize(
    ("quant", "shape"),
    [
        ("Q4_K", "halves"),
        ("Q6_K", "separate"),
        ("MXFP4", "interleaved"),
        ("Q2_K", "shared"),
        ("F16", "separate"),
        ("BF16", "halves"),
        ("F32", "shared"),
    ],
)
def test_products_of_experts(quant: str, shape: str) -> None:
    """Tokens by themselves, and sorted by expert in tiles of two sizes."""
    case = linear_case(quant, shape, 256, 70)
    assert error(case, batches([1, 2, 3, 64]), 128) < LIMIT


@pytest.mark.parametrize("quant", kernel("gemm_bytes").macros["QUANT"])
@pytest.mark.parametrize(("rows", "columns"), [(83, 512), (300, 2048)])
def test_products_of_bytes(quant: str, rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As GeForce cards have them: tiles of 32, 64 and 128 tokens, some that are not full, and columns that are divided."""
    monkeypatch.setattr(backend().device, "number", 89)
    monkeypatch.setattr("tests.backends.cpu.single_ops.CHUNK", 192)
    x, out = Buffer("x", columns).view(), Buffer("out", rows).view()
    case = Case((Linear(x, ("w",), (out,)),), normal(256, columns), out, {"w": random_weight("w", quant, rows, columns)})
    assert error(case, [*one_batch(20), *one_batch(46, 20), *one_batch(190, 66)], 256) < LIMIT


@pytest.mark.parametrize("number", [80, 89, 75])
def test_what_other_cards_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products by mma without wgmma, of bytes, and in float32 without tensor cores: this card runs the kernels of others too."""
    monkeypatch.setattr(backend().device, "number", number)
    x, out = Buffer("x", 512).view(), Buffer("out", 83).view()
    tokens = [([0], [0]), *one_batch(5, 1), *one_batch(20, 6), *one_batch(64, 26)]
    for quant in ("Q4_0", "Q4_K", "Q6_K", "MXFP4", "F16", "BF16", "F32"):
        case = Case((Linear(x, ("w",), (out,)),), normal(90, 512), out, {"w": random_weight("w", quant, 83, 512)})
        assert error(case, tokens, 128) < LIMIT, quant
    for quant, shape in (("Q4_K", "halves"), ("Q6_K", "separate"), ("MXFP4", "interleaved"), ("F16", "separate")):
        assert error(linear_case(quant, shape, 256, 70), batches([1, 2, 3, 64]), 128) < LIMIT, quant
    case = attention_case(84, 4, 2, 64, 64)
    assert error(case, [*one_batch(64), *one_batch(17, 64), *one_batch(1, 81)], 128) < 1e-5


LIMIT = 1e-4  # of products by matrix units and of bytes
SHAPES: list[tuple[tuple[int, int, int, int], dict[str, Any]]] = [
    ((4, 2, 64, 32), {}),
    ((2, 2, 20, 12), {"dtype": "f32"}),
    ((8, 1, 128, 128), {"dtype": "q8_0"}),
    ((4, 2, 64, 64), {"window": 37}),
    ((4, 4, 32, 32), {"chunk": 50, "softcap": 5.0}),
    ((4, 1, 32, 64), {"sinks": True}),
    ((4, 1, 96, 64), {"latent": True}),
    ((4, 1, 576, 512), {"latent": True}),
]


@pytest.mark.parametrize(("shape", "how"), SHAPES, ids=str)
def test_attention(shape: tuple[int, int, int, int], how: dict[str, Any]) -> None:
    """Prompts in tiles, tokens one by one with and without splits of the keys, two rows."""
    case = attention_case(500, *shape, **how)
    prompt = [batch for first in range(0, 384, 64) for batch in one_batch(64, first)]
    mixed = [([1] * 30 + [0], [*range(30), 387]), ([0, 1], [388, 30])]
    assert error(case, [*prompt, *one_batch(3, 384), *mixed], 512, 2) < 1e-5


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((8, 2, 64, 32), {}),
        ((32, 8, 128, 128), {}),
        ((24, 2, 64, 64), {"sinks": True}),  # more heads of a key than a tile has, and a last tile that is not full
        ((8, 1, 128, 128), {"dtype": "q8_0", "window": 300}),
        ((2, 2, 256, 256), {"softcap": 5.0}),
        ((4, 1, 96, 64), {"latent": True}),
    ],
    ids=str,
)
def test_the_product_of_attention(shape: tuple[int, int, int, int], how: dict[str, Any]) -> None:
    """A token alone, whose result becomes bytes where it is made, with and without splits; tokens of a few rows and of many, whose
    results become float16; and prompts, whose do not."""
    case = with_product(attention_case(500, *shape, **how))
    prompt = [batch for first in range(1, 385, 64) for batch in one_batch(64, first)]
    tokens = [*one_batch(1), *prompt, *one_batch(1, 385), *one_batch(3, 386), *one_batch(1, 389), ([0, 1], [390, 0])]
    assert error(case, tokens, 512, 2) < LIMIT
    rows = list(range(20))
    assert error(case, [(rows, [position] * 20) for position in range(3)], 64, 20) < LIMIT


@pytest.mark.parametrize("number", [90, 89])
@pytest.mark.parametrize("case", [beside_case, lambda: dense_case("Q4_K")], ids=["beside", "gated"])
def test_the_forms_of_dense_products(case: Callable[[], Case], number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a product beside others whose inputs take the same forms in the same place, and of an activation."""
    monkeypatch.setattr(backend().device, "number", number)
    assert error(case(), [*one_batch(1), *one_batch(4, 1), *one_batch(40, 5), *one_batch(17, 45)], 128) < LIMIT


def test_the_choice() -> None:
    """Candidates with a mask and biases, greedy tokens and drawn ones are those of the host over the same logits."""
    vocab, width = 5000, 64
    weights = {"rows": floats("rows", normal(vocab, width)), "out": floats("out", normal(vocab, width, seed=2))}
    view = Buffer("x", width).view()
    program = Program((Embed("rows", view), Logits(view, "out")), {name: each.shape for name, each in weights.items()}, (), vocab)
    step = with_pages(backend().compile(program, weights, StepLimits(64, 16, 4)))
    tokens, rows = np.array([3, 4000, 17], np.int32), np.arange(3, dtype=np.int32)
    batch = Batch(tokens, rows, np.zeros(3, np.int32), rows)
    logits = step.run(batch).copy()
    mask = np.random.default_rng(1).integers(0, 2**32, -(-vocab // 32), dtype=np.uint32)
    wanted = [Wanted(40, mask, {7: 9.0, 4999: -3.0}), Wanted(1), Wanted(64, None, {0: 50.0})]
    for found, row, wish in zip(step.choose(batch, wanted), logits, wanted, strict=True):
        expected = candidates_of(row, wish)
        assert np.array_equal(found.ids, expected.ids) and np.allclose(found.logits, expected.logits)
        assert abs(found.log_sum - expected.log_sum) < 1e-4
    ids = tokens
    for found in step.greedy(batch, 5):
        expected = [int(row.argmax()) for row in step_logits(program, weights, ids)]
        assert found.tolist() == expected
        ids = found
    draws = [Draw(40, 0.9, 0.05, 0.7), Draw(1), Draw(64, 1.0, 0.0, 2.0)]
    for found, drawn in step.drawn(batch, draws, 4, lambda number: [0.1, 0.5, 0.999]):
        assert [len(each.ids) for each in found] == [40, 1, 64] and drawn[1] == found[1].ids[0] and drawn[0] in found[0].ids
    step.close()
    broken = {**weights, "out": floats("out", np.full((vocab, width), np.nan))}
    step = with_pages(backend().compile(program, broken, StepLimits(64, 16, 4)))
    with pytest.raises(NumericError):
        next(step.greedy(batch, 1))
    with pytest.raises(NumericError):
        step.choose(batch, [Wanted(3)] * 3)
    step.close()


def step_logits(program: Program, weights: dict[str, Any], ids: np.ndarray) -> np.ndarray:
    step = with_pages(ReferenceBackend().compile(program, weights, StepLimits(64, 16, 4)))
    rows = np.arange(len(ids), dtype=np.int32)
    return step.run(Batch(ids.astype(np.int32), rows, np.zeros(len(ids), np.int32), rows)).copy()


def test_logits_come_in_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen rows in any order, none, one twice, more than a pass has."""
    monkeypatch.setattr("lacewing.backends.cuda.lowering.compiler.LOGIT_BYTES", 4 * 300 * 20)
    view, tokens = Buffer("x", 64).view(), np.arange(50, dtype=np.int32)
    weights = {"rows": floats("rows", normal(300, 64)), "out": random_weight("out", "Q8_0", 300, 64)}
    shapes = {name: each.shape for name, each in weights.items()}
    program = Program((Embed("rows", view), Logits(view, "out")), shapes, (), 300)
    steps = [each.compile(program, weights, StepLimits(64, 64)) for each in (backend(), ReferenceBackend())]
    for outputs in ([39], [], [5, 5, 0], [*range(41)], [*range(49, 0, -1)]):
        found, wanted = (paged.run(step, tokens, 0 * tokens, tokens, outputs).copy() for step in steps)
        assert found.shape == wanted.shape == (len(outputs), 300)
        assert not outputs or nmse(found, wanted) < LIMIT
    steps[0].close()


@pytest.mark.parametrize("dtype", ["f16", "q8_0"])
def test_pages_go_elsewhere(dtype: str) -> None:
    """Copied within the device, and by their bytes to the reference backend."""
    case = attention_case(160, 2, 2, 32, 96, dtype=dtype)
    one, other = case.step(backend(), 300, 2), case.step(ReferenceBackend(exact=False), 300)  # type: ignore[arg-type]
    run_step(one, [*one_batch(64), *one_batch(64, 64), *one_batch(27, 128)])
    one.copy(0, [(0, 4), (1, 3)])
    one.put_table(0, 1, 0, [4, 3])
    places = np.arange(155, 160, dtype=np.int32)
    found = [one.run(Batch(places, np.full(5, row, np.int32), places, np.arange(5, dtype=np.int32))).copy() for row in (0, 1)]
    assert np.array_equal(*found)
    other.write(0, [0, 1], one.read(0, [4, 3]))
    expected = other.run(Batch(places, np.zeros(5, np.int32), places, np.arange(5, dtype=np.int32)))
    np.testing.assert_allclose(found[0], expected, atol=2e-2)
    one.grow(0, 9)
    assert not one.read(0, [8]).any()
    for step in (one, other):
        step.close()


@pytest.mark.parametrize(("name", "every"), [("llama", 2), ("qwen3moe", 6), ("gpt-oss", 9)])
def test_a_model_is_shared_with_the_cpu(name: str, every: int, tmp_path: Path) -> None:
    """Cut anywhere, the GPU first and last by turns."""
    path = tiny(name, "gguf", tmp_path)
    spec, whole = open_step(path, 32)
    want = run(whole, IDS)
    for number, cut in enumerate([*cuts(spec.program)][::every]):
        order = [backend(), CpuBackend(1)] if number % 2 else [CpuBackend(1), backend()]
        step = open_split(path, spec, order, [0] * cut + [1] * (len(spec.program.ops) - cut))
        np.testing.assert_allclose(mixed_run(step), want, rtol=0, atol=1e-3, err_msg=f"cut at {cut}")
        step.close()
    assert backend().device.allocated == 0


def test_routers_are_watched(tmp_path: Path) -> None:
    path, ids = tiny("mixtral", "gguf", tmp_path), prompt_of("mixtral", 12)
    steps = [open_step(path, 64, each, chunk=32)[1] for each in (backend(), ReferenceBackend())]
    found = []
    for step in steps:
        step.watch_routes(True)
        run(step, ids)
        found.append([(each.layer, each.ids.tolist()) for each in step.routes()])
        step.watch_routes(False)
        assert step.routes() == []
        step.close()
    assert found[0] == found[1] and found[0]


def test_kernels_are_timed(tmp_path: Path) -> None:
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, backend(), chunk=64)
    times = step.profile(1, 3)
    assert {"embed", "gemv_bytes", "attention", "logits", "top_k"} <= {each.name for each in times}
    seconds = [each.seconds for each in times]
    assert all(1e-7 < each < 0.1 for each in seconds) and seconds == sorted(seconds, reverse=True)
    assert step.copy_rate() > 1e10
    step.close()
