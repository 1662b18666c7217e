"""Whole tiny models lowered for a driver that records: which kernels a run launches, with which arguments. No GPU is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lacewing.backends.batch import Batch, StepLimits
from lacewing.backends.cpu import CpuBackend
from lacewing.backends.cuda.arguments import Packed
from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.device.driver import fault
from lacewing.backends.cuda.lowering.compiler import RULES
from lacewing.backends.cuda.lowering.rows import embed
from lacewing.backends.cuda.step.step import CudaStep
from lacewing.backends.reference import attention  # noqa: F401  # its rules
from lacewing.backends.reference.ops import RULES as REFERENCE
from lacewing.errors import BackendError, DeviceLostError, OutOfMemoryError
from lacewing.formats import open_checkpoint
from lacewing.models import open_model
from lacewing.offload.plan import OffloadLevel
from lacewing.program import ops
from lacewing.program.program import Program
from tests import paged
from tests.backends.cpu.single_ops import Case, floats, normal, random_weight
from tests.backends.cuda.recording import RecordingDriver
from tests.backends.webgpu.lowering.test_attention import attention_case
from tests.backends.webgpu.lowering.test_experts import linear_case
from tests.backends.webgpu.step.test_hot import held, use
from tests.checkpoints import CONTEXTS, prompt_of, tiny
from tests.models.running import mapped_weights, open_step, run
from tests.offload.test_cache import open_shared
from tests.offload.test_streamed import opened as opened_streamed
from tests.paged import with_pages

# Together they have every kind of op.
MODELS = [("gemma3n", "huggingface"), ("deepseek32", "gguf"), ("qwen35moe", "gguf"), ("granitehybrid", "gguf"), ("gpt-oss", "gguf"),
          ("mistral4", "huggingface"), ("apertus", "huggingface"), ("step35", "huggingface")]  # fmt: skip


@cache
def device() -> Device:
    return Device(RecordingDriver((7, 5)), 0)


@pytest.fixture
def packed_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[int]]]:
    """Bytes of each argument by the address of the whole."""
    sizes: dict[int, list[int]] = {}
    plain: Callable[..., None] = Packed.__init__

    def noted(self: Packed, parts: Any) -> None:
        plain(self, parts)
        sizes[self.address] = [len(part) for part in parts]

    monkeypatch.setattr(Packed, "__init__", noted)
    yield sizes


def opened(name: str, format: str, folder: Path, **more: Any) -> CudaStep:
    _, step = open_step(tiny(name, format, folder), CONTEXTS.get(name), CudaBackend(device()), chunk=64, **more)
    assert isinstance(step, CudaStep)
    return step


@pytest.mark.parametrize(("name", "format"), MODELS)
def test_kernels_get_the_arguments_that_they_take(
    name: str, format: str, packed_sizes: dict[int, list[int]], tmp_path: Path
) -> None:
    """As many, and each of the size that the compiled kernel says; none along an axis that is longer than a grid's."""
    step = opened(name, format, tmp_path)
    driver = step.device.driver
    assert isinstance(driver, RecordingDriver)
    for launch in step.launches:
        assert packed_sizes[launch.arguments.address] == driver.sizes[launch.function.kernel.name], launch.label
    driver.launched.clear()
    run(step, prompt_of(name))
    run(step, prompt_of(name)[:1])
    assert driver.launched and all(x > 0 and 0 < y < 2**16 and 0 < z < 2**16 for _, (x, y, z), *_ in driver.launched)
    step.close()
    assert device().allocated == 0


def dense_case(quant: str) -> Case:
    """The second half of a layer: norm, gate, product."""
    x, normed, out = (ops.Buffer(name, 256).view() for name in ("x", "normed", "out"))
    gate, up = (ops.Buffer(name, 512).view() for name in ("gate", "up"))
    weights = {
        name: random_weight(name, quant, *shape) for name, shape in {"g": (512, 256), "u": (512, 256), "d": (256, 512)}.items()
    }
    layer = (
        ops.Norm(x, None, normed, 1e-5),
        ops.Linear(normed, ("g", "u"), (gate, up)),
        ops.GatedActivation(gate, up, gate),
        ops.Linear(gate, ("d",), (out,)),
    )
    return Case(layer, normal(70, 256), out, weights)


def launched(case: Case, counts: Sequence[int], arch: tuple[int, int] = (9, 0)) -> list[list[str]]:
    """The kernels between embedding and logits that runs of so many tokens take on a GPU of this compute capability."""
    on, found = Device(RecordingDriver(arch), 0), []
    step = case.step(CudaBackend(on), 128)  # type: ignore[arg-type]
    for count in counts:
        on.driver.launched.clear()  # type: ignore[attr-defined]
        ids = np.arange(count)
        paged.run(step, ids, [0] * count, ids, ids[-1:])
        names = [name for name, *_ in on.driver.launched]  # type: ignore[attr-defined]
        found.append(names[names.index("embed") + 1 : -1])
    step.close()
    on.close()
    return found


def test_norms_and_activations_make_the_forms_of_dense_products() -> None:
    one, few, many = launched(dense_case("Q4_K"), [1, 4, 40])
    assert one[:3] == ["wide_norm", "gemv_gated", "gemv_bytes"]
    assert few[:4] == ["wide_norm", "gemm_few", "wide_gated", "gemm_few"]
    assert many[:4] == ["wide_norm", "gemm_wgmma", "wide_gated", "gemm_wgmma"]


def beside_case(size: int = 256) -> Case:
    """Two products of one norm's result, and between them another norm, whose result a third product takes."""
    x, a, b, c, d, e, out = (ops.Buffer(name, size).view() for name in ("x", "a", "b", "c", "d", "e", "out"))
    weights = {name: random_weight(name, "Q4_K", size, size, seed) for seed, name in enumerate(("wb", "wd", "we"))}
    layer = (
        ops.Norm(x, None, a, 1e-5),
        ops.Linear(a, ("wb",), (b,)),
        ops.Norm(b, None, c, 1e-5),
        ops.Linear(a, ("wd",), (d,)),
        ops.Linear(c, ("we",), (e,)),
        ops.AddNorm(d, e, None, out, 1e-5),
    )
    return Case(layer, normal(70, size), out, weights)


def test_a_form_that_is_read_later_keeps_its_place_until_then() -> None:
    """The second norm must not put its float16 where the first one's still is."""
    one, few, many = launched(beside_case(), [1, 4, 40])
    assert one[:6] == ["wide_norm", "gemv_bytes", "wide_norm", "gemv_bytes", "quantise", "gemv_bytes"]
    assert few[:6] == ["wide_norm", "gemm_few", "wide_norm", "gemm_few", "half_rows", "gemm_few"]
    assert many[:6] == ["wide_norm", "gemm_wgmma", "wide_norm", "gemm_wgmma", "half_rows", "gemm_wgmma"]


BYTES = {"quantise", "wide_norm", "gemv_bytes", "gemv_gated", "expert_bytes"}  # products of single tokens
TENSOR = {*BYTES, "half_rows", "gemm_few", "expert_lists", "attention_decode", "attention_prefill"}


@pytest.mark.parametrize(
    ("arch", "used", "others"),
    [
        ((8, 0), {*TENSOR, "gemm_mma"}, {"gemm_wgmma", "gemm_bytes", "expert_gemv", "attention"}),
        ((8, 9), {*(TENSOR - {"half_rows"}), "gemm_bytes"}, {"gemm_mma", "gemm_wgmma", "expert_gemv", "attention"}),
        ((9, 0), {*TENSOR, "gemm_wgmma"}, {"gemm_mma", "gemm_bytes", "expert_gemv", "attention"}),
    ],
    ids=["80", "89", "90"],
)
def test_kernels_of_tensor_cores_get_the_arguments_that_they_take(
    arch: tuple[int, int], used: set[str], others: set[str], packed_sizes: dict[int, list[int]]
) -> None:
    """Quantised weights, experts and attention, from one token to many: the models above are of float32 and run on 7.5."""
    on = Device(RecordingDriver(arch), 0)
    driver = on.driver
    assert isinstance(driver, RecordingDriver)
    for case in (dense_case("Q4_K"), linear_case("Q4_K", "halves", 256, 70), attention_case(70, 4, 2, 64, 64)):
        step = case.step(CudaBackend(on), 128)  # type: ignore[arg-type]  # any backend will do
        assert isinstance(step, CudaStep)
        for launch in step.launches:
            assert packed_sizes[launch.arguments.address] == driver.sizes[launch.function.kernel.name], launch.label
        for count in (1, 5, 64):
            ids = np.arange(count)
            paged.run(step, ids, [0] * count, ids, ids)
        step.close()
    assert all(x > 0 and 0 < y < 2**16 and 0 < z < 2**16 for _, (x, y, z), *_ in driver.launched)
    names = {name for name, *_ in driver.launched}
    assert used <= names and not others & names
    on.close()


def test_keys_that_become_bytes_are_spread_first(packed_sizes: dict[int, list[int]], tmp_path: Path) -> None:
    spec = open_model(open_checkpoint(tiny("llama-wide", "gguf", tmp_path)), None)
    weights = mapped_weights(dict(spec.tensors))
    step = CudaBackend(device()).compile(spec.program.with_kv_type("q8_0"), weights, StepLimits(spec.context, 64))
    driver = step.device.driver
    assert isinstance(driver, RecordingDriver)
    assert {"hadamard", "write_kv"} <= {launch.label for launch in step.launches}
    for launch in step.launches:
        assert packed_sizes[launch.arguments.address] == driver.sizes[launch.function.kernel.name], launch.label
    step.close()


def test_what_stands_before_attention_is_one_launch(tmp_path: Path) -> None:
    """Norms and rotations of queries and keys, and the write."""
    for name in ("llama", "qwen3"):
        step = opened(name, "gguf", tmp_path)
        labels = [launch.label for launch in step.launches]
        assert labels.count("heads") == 2 and not {"rope", "write_kv"} & set(labels), name
        step.close()


def with_product(case: Case, quant: str = "Q4_K") -> Case:
    """Attention, and a product of its result."""
    out, width = ops.Buffer("product", 64).view(), case.out.width
    weight = random_weight("o", quant, 64, width)
    return replace(case, ops=(*case.ops, ops.Linear(case.out, ("o",), (out,))), out=out, weights={**case.weights, "o": weight})


@pytest.mark.parametrize(
    ("shape", "how", "quantised"),
    [
        ((8, 2, 64, 64), {}, False),
        ((8, 2, 64, 64), {"dtype": "f32"}, True),  # no kernel on tensor cores makes them
        ((16, 2, 64, 16), {}, True),  # a head is no whole group
    ],
    ids=str,
)
def test_attention_of_single_tokens_makes_the_forms_of_the_next_product(
    shape: tuple[int, int, int, int], how: dict[str, Any], quantised: bool, packed_sizes: dict[int, list[int]]
) -> None:
    """Of one token bytes, with and without splits of the keys; of some tokens float16, but not of a prompt."""
    on = Device(RecordingDriver((9, 0)), 0)
    step = with_product(attention_case(2048, *shape, **how)).step(CudaBackend(on), 2048)  # type: ignore[arg-type]
    driver, found = on.driver, []
    assert isinstance(driver, RecordingDriver) and isinstance(step, CudaStep)
    for launch in step.launches:
        assert packed_sizes[launch.arguments.address] == driver.sizes[launch.function.kernel.name], launch.label
    for position in (0, 1000):
        driver.launched.clear()
        paged.run(step, [position], [0], [position], [0])
        names = [name for name, *_ in driver.launched]
        found.append(names[: names.index("gemv_bytes") + 1])  # the identity logits are behind it
    halves = []
    for count, kernel in ((3, "gemm_few"), (40, "gemm_wgmma")):
        driver.launched.clear()
        ids = np.arange(count)
        paged.run(step, ids, [0] * count, ids, ids[-1:])
        names = [name for name, *_ in driver.launched]
        halves.append("half_rows" in names[: names.index(kernel)])
    step.close()
    on.close()
    assert halves == [quantised, True]
    first = "attention" if how else "attention_decode"
    middle = ["quantise"] if quantised else []
    join = "attention_merge" if how else "attention_join"
    assert found == [["embed", "write_kv", first, *middle, "gemv_bytes"], ["embed", "write_kv", first, join, *middle, "gemv_bytes"]]


def test_a_profile_has_all_that_a_run_launches(tmp_path: Path) -> None:
    """Every kernel with its calls, and every weight's bytes once; of one token the choice of the next, too."""
    step = opened("llama", "gguf", tmp_path)
    driver, weights = step.device.driver, step.program.weights.items()
    tables = {op.weight for op in step.program.ops if isinstance(op, ops.Embed)}
    assert isinstance(driver, RecordingDriver)
    for tokens in (1, 40):
        times = {each.name: each for each in step.profile(tokens, 3)}
        driver.launched.clear()
        paged.run(with_pages(step), [5] * tokens, [0] * tokens, range(3, 3 + tokens), [tokens - 1])
        assert sum(each.calls for name, each in times.items() if name != "top_k") == len(driver.launched), times
        assert {"embed", "heads", "attention", "logits", "gemv_bytes" if tokens == 1 else "gemm"} <= set(times)
        assert times["top_k"].calls and all(each.seconds == 1e-6 for each in times.values())
        matrices = sum(4 * math.prod(shape) for name, shape in weights if len(shape) == 2 and name not in tables)
        assert sum(each.nbytes for each in times.values()) == matrices
    step.close()


def test_every_kind_that_the_reference_runs_has_a_rule() -> None:
    assert {*REFERENCE.kinds, ops.Receive, ops.Send} <= RULES.kinds
    with pytest.raises(ValueError, match="the CUDA backend has two rules for Norm"):
        RULES.rule(ops.Norm)(embed)


def test_a_token_is_one_graph_which_comes_again(tmp_path: Path) -> None:
    step = opened("llama", "gguf", tmp_path)
    with_pages(step)
    driver = step.device.driver
    assert isinstance(driver, RecordingDriver)
    captured = []
    plain = driver.end_capture
    driver.end_capture = lambda stream: captured.append(1) or plain(stream)  # type: ignore[method-assign, func-returns-value]
    try:
        driver.launched.clear()
        for position in (10, 11, 12):
            step.run(Batch.of([5], position, [0]))
        names = [name for name, *_ in driver.launched]
        assert len(captured) == 1 and names[: len(names) // 3] * 3 == names  # the first one alone, then the graph twice
        for _ in range(2):
            step.run(Batch.of([5], 40, [0]))  # more keys than the graph was made for
        assert len(captured) == 2
    finally:
        driver.end_capture = plain  # type: ignore[method-assign]
        step.close()


def test_experts_are_exchanged(tmp_path: Path) -> None:
    """Their rows and their biases, over those of others; the memory on the way is given back."""
    gpu = CudaBackend(device())
    driver, written = gpu.device.driver, []
    assert isinstance(driver, RecordingDriver)
    path = tiny("gpt-oss", "gguf", tmp_path)
    step = open_shared(path, [gpu, CpuBackend(1)], OffloadLevel(shared=99, resident=2), 32)
    first, allocated = held(step), gpu.device.allocated
    use(step)
    driver.launched.clear()
    plain = gpu.device.write
    gpu.device.write = lambda buffer, offset, data: written.append(buffer.label) or plain(buffer, offset, data)  # type: ignore[method-assign, func-returns-value]
    try:
        step.rebalance()
    finally:
        del gpu.device.write
    assert held(step) != first and gpu.device.allocated == allocated
    assert {name for name, *_ in driver.launched} == {"pack"} and set(written) == {"biases of resident experts"}
    step.close()


def test_streamed_experts_are_exchanged(tmp_path: Path) -> None:
    """They come from slots in RAM, their biases from the trunk."""
    gpu = CudaBackend(device())
    driver = gpu.device.driver
    assert isinstance(driver, RecordingDriver)
    step, store = opened_streamed(tiny("gpt-oss", "gguf", tmp_path), gpu, OffloadLevel(shared=99, resident=2))
    first, allocated, experts = held(step), gpu.device.allocated, store.experts
    assert experts is not None
    for layer in experts.layers:
        for _ in layer.batches(np.array([3, 5]), True, lambda: None):
            pass
    use(step)
    driver.launched.clear()
    reads = experts.statistics.reads
    step.rebalance()
    assert held(step) != first and all(each == [3, 5] for each in held(step)) and gpu.device.allocated == allocated
    assert {name for name, *_ in driver.launched} == {"pack"} and experts.statistics.reads == reads
    assert experts.statistics.uploaded == 2 * len(experts.layers)
    step.close()
    store.close()


def test_memory_that_is_missing_is_given_back_and_told(tmp_path: Path) -> None:
    path = tiny("llama", "gguf", tmp_path)
    small = Device(RecordingDriver((7, 5), most_bytes=2**20), 0)
    with pytest.raises(OutOfMemoryError, match="the GPU has no memory left for"):
        open_step(path, None, CudaBackend(small), chunk=64)
    assert small.allocated == 0 and not small.held and not small.driver.memory_of  # type: ignore[attr-defined]
    small.close()


def test_states_keep_what_they_have_when_a_growth_fails(tmp_path: Path) -> None:
    step = opened("llama", "gguf", tmp_path)
    driver, pages = step.device.driver, step.sizes[0]
    assert isinstance(driver, RecordingDriver)
    data = np.random.default_rng(1).integers(0, 100, (1, step.groups[0].nbytes), np.uint8)
    step.write(0, [pages - 1], data)
    driver.most_bytes, before = 0, driver.most_bytes
    try:
        with pytest.raises(OutOfMemoryError, match="the KV cache of layer 0"):
            step.grow(0, pages + 3)
    finally:
        driver.most_bytes = before
    assert step.sizes[0] == pages and np.array_equal(step.read(0, [pages - 1]), data)
    step.grow(0, pages + 1)
    assert np.array_equal(step.read(0, [pages - 1]), data) and not step.read(0, [pages]).any()
    step.close()


def test_errors_of_the_driver_are_ours() -> None:
    assert isinstance(fault("CUDA_ERROR_OUT_OF_MEMORY", "a buffer"), OutOfMemoryError)
    assert isinstance(fault("CUDA_ERROR_ILLEGAL_ADDRESS", "a kernel"), DeviceLostError)
    other = fault("CUDA_ERROR_INVALID_VALUE", "a kernel")
    assert type(other) is BackendError and "the GPU refused a kernel: CUDA_ERROR_INVALID_VALUE" in str(other)


@pytest.mark.parametrize("method", ["wait", "synchronize", "to_host", "record", "free", "close_graph", "host_free"])
def test_a_lost_device_says_so_and_steps_close(method: str, tmp_path: Path) -> None:
    """Whichever call shows it first; closing is no error."""
    lost = Device(RecordingDriver((7, 5)), 0)
    assert isinstance(lost.driver, RecordingDriver)
    _, step = open_step(tiny("llama", "gguf", tmp_path), None, CudaBackend(lost), chunk=64)
    for position in (10, 11):  # the second one by a graph
        with_pages(step).run(Batch.of([5], position, [0]))
    lost.driver.fail(method, "CUDA_ERROR_ILLEGAL_ADDRESS")
    if method in ("wait", "synchronize", "to_host", "record"):
        with pytest.raises(DeviceLostError, match="the GPU was lost"):
            run(step, prompt_of("llama"))
            lost.wait()
        with pytest.raises(DeviceLostError, match="the GPU was lost"):
            run(step, prompt_of("llama"))
    step.close()
    assert lost.lost and not lost.held and not lost.allocated
    lost.close()


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ((7, 5), ["quantise gemv_bytes", "gemv", "gemm"]),
        ((9, 0), ["quantise gemv_bytes", "half_rows gemm_few", "half_rows gemm_wgmma"]),
    ],
    ids=str,
)
def test_products_are_chosen_by_tokens_and_card(arch: tuple[int, int], expected: list[str]) -> None:
    """Of a quantised weight, for one token, a few and many; the identity logits behind it are plain."""
    x, out = ops.Buffer("x", 64).view(), ops.Buffer("out", 40).view()
    case = Case((ops.Linear(x, ("w",), (out,)),), normal(64, 64), out, {"w": random_weight("w", "Q4_0", 40, 64)})
    on = Device(RecordingDriver(arch), 0)
    step = case.step(CudaBackend(on), 64, 1)  # type: ignore[arg-type]  # any backend will do
    driver, found = on.driver, []
    assert isinstance(driver, RecordingDriver)
    for tokens in (1, 5, 64):
        driver.launched.clear()
        ids = np.arange(tokens)
        paged.run(step, ids, [0] * tokens, ids, ids[-1:])
        names = [name for name, *_ in driver.launched]
        found.append(" ".join(names[1:-1]))
    step.close()
    on.close()
    assert found == expected


@pytest.mark.parametrize(
    ("arch", "inputs"),
    [((7, 5), ["gemv", "gemv", "quantise gemv_bytes"]), ((9, 0), ["half_rows gemm_few"] * 2 + ["quantise gemv_bytes"])],
    ids=str,
)
def test_each_pass_of_logits_prepares_its_own_rows(
    arch: tuple[int, int], inputs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifteen rows of logits, seven in a pass: the second and third pass have rows that nothing has converted before."""
    monkeypatch.setattr("lacewing.backends.cuda.lowering.compiler.LOGIT_BYTES", 4 * 300 * 7)
    view, weights = (
        ops.Buffer("x", 64).view(),
        {"rows": floats("rows", normal(300, 64)), "out": random_weight("out", "Q8_0", 300, 64)},
    )
    shapes = {name: each.shape for name, each in weights.items()}
    program = Program((ops.Embed("rows", view), ops.Logits(view, "out")), shapes, (), 300)
    on = Device(RecordingDriver(arch), 0)
    step = with_pages(CudaBackend(on).compile(program, weights, StepLimits(64, 64)))
    assert isinstance(on.driver, RecordingDriver)
    on.driver.launched.clear()
    ids = np.arange(20, dtype=np.int32)
    step.run(Batch(ids, 0 * ids, ids, ids[:15]))
    assert [name for name, *_ in on.driver.launched] == " ".join(["embed", *inputs]).split()
    step.close()
    on.close()
