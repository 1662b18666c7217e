"""Mixtures of experts on CUDA: which kernels a run takes, without a GPU; and on an NVIDIA GPU that they equal the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from lacewing.backends.cuda.arguments import Packed
from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.step.step import CudaStep
from lacewing.program.ops import (
    Buffer,
    ClampedActivation,
    Combine,
    ExpertLinear,
    GatedActivation,
    LimitedActivation,
    Linear,
    Norm,
    Op,
    Route,
    View,
)
from tests import paged
from tests.backends.cpu.kernels.test_experts import batches, stacked
from tests.backends.cpu.single_ops import Case, floats, normal, random_weight
from tests.backends.cuda.nvidia import error
from tests.backends.cuda.recording import RecordingDriver

LIMIT = 1e-4  # of products of bytes and of tensor cores
BYTES_LIMIT = 5e-4  # of two products of bytes, one behind the other: the bytes of the CPU are as far off, 4.7e-4 at most
X, NORMED, OUT = "x", "normed", "out"


@dataclass(frozen=True)
class Mixture:
    """What a mixture is made of. `quants`: of the router, gate and up, down."""

    quants: tuple[str, str, str] = ("F32", "Q4_K", "Q6_K")
    width: int = 256
    middle: int = 256
    experts: int = 16
    active: int = 3
    activation: str = "silu"
    one_stack: bool = False
    interleaved: bool = False
    biased: bool = False
    factor: bool = False
    shared: bool = False
    route: Mapping[str, Any] = ()  # type: ignore[assignment]

    @property
    def ids(self) -> View:
        return Buffer("ids", self.active).view()

    @property
    def shares(self) -> View:
        return Buffer("shares", self.active).view()

    def views(self) -> tuple[View, View, View]:
        """Gate, up, and what each expert gives."""
        wide = self.active * self.middle
        both = Buffer("both", 2 * wide)
        return both.view(0, wide), both.view(wide), Buffer("each", self.active * self.width).view()

    def router(self) -> tuple[Op, ...]:
        x, normed = Buffer(X, self.width).view(), Buffer(NORMED, self.width).view()
        scores = Buffer("scores", self.experts).view()
        bias = ("rb",) if self.biased else ()
        return (
            Norm(x, None, normed, 1e-5),
            Linear(normed, ("r",), (scores,), bias),
            Route(scores, self.ids, self.shares, **dict(self.route)),
        )

    def network(self, x: View, ids: View, shares: View, sum_ids: View | None = None, add: View | None = None) -> tuple[Op, ...]:
        gate, up, each = self.views()
        activation: Op = GatedActivation(gate, up, gate, self.activation)
        if self.activation == "clamped":
            activation = ClampedActivation(gate, up, gate, 1.702, 7.0)
        if self.activation == "limited":
            activation = LimitedActivation(gate, up, gate, 0.7)
        names = ("gu",) if self.one_stack else ("g", "u")
        biases = tuple(f"{name}b" for name in names) if self.biased else ()
        out = Buffer(OUT, self.width).view()
        return (
            ExpertLinear(x, ids, names, (gate, up), biases, shares if self.factor else None, interleaved=self.interleaved),
            activation,
            ExpertLinear(gate, ids, ("d",), (each,), ("db",) if self.biased else (), separate=True),
            *((Linear(x, ("sh",), (out,)),) if self.shared else ()),
            Combine(each, None if self.factor else shares, out, self.active, out if self.shared else add, sum_ids),
        )

    def weights(self) -> dict[str, Any]:
        router, gate, down = self.quants
        e, d, f = self.experts, self.width, self.middle
        found = {"r": random_weight("r", router, e, d, 1), "d": stacked("d", down, e, d, f, 4)}
        stacks = {"gu": 2 * f} if self.one_stack else {"g": f, "u": f}
        found |= {name: stacked(name, gate, e, rows, d, seed) for seed, (name, rows) in enumerate(stacks.items(), 2)}
        if self.biased:
            sizes = {**{f"{name}b": rows for name, rows in stacks.items()}, "db": d}
            found |= {name: floats(name, 0.1 * normal(e, rows, seed=rows)) for name, rows in sizes.items()}
            found["rb"] = floats("rb", normal(e, seed=9))
        if self.shared:
            found["sh"] = random_weight("sh", gate, d, d, 5)
        return found

    def case(self, tokens: int) -> Case:
        normed, x = Buffer(NORMED, self.width).view(), Buffer(X, self.width).view()
        ops = (*self.router(), *self.network(normed, self.ids, self.shares, add=x))
        return Case(ops, normal(tokens, self.width, seed=3), Buffer(OUT, self.width).view(), self.weights())

    def given(self, chosen: np.ndarray) -> Case:
        """Without a router: the ids stand behind the columns of x, those below zero are nobody's; then the weights."""
        tokens = len(chosen)
        whole = Buffer(X, self.width + 2 * self.active)
        ids, shares = whole.view(self.width, self.active), whole.view(self.width + self.active)
        numbers = np.where(chosen < 0, np.int32(-(2**31)), chosen).astype(np.int32).view(np.float32)  # -0.0 is still one as a float
        table = np.concatenate([normal(tokens, self.width, seed=3), numbers, np.abs(normal(tokens, self.active, seed=6))], axis=1)
        ops = self.network(whole.view(0, self.width), ids, shares, ids, None)
        weights = {name: each for name, each in self.weights().items() if name not in ("r", "rb")}
        return Case(ops, table, Buffer(OUT, self.width).view(), weights)


MIXTURES = {
    "plain": Mixture(),
    "many": Mixture(experts=64, active=8, middle=768, width=512, quants=("F32", "Q4_K", "Q4_K")),
    "wide": Mixture(active=2, middle=1280, width=768, quants=("F16", "Q6_K", "Q4_K")),
    "one": Mixture(active=1, experts=5, factor=True, shared=True, quants=("BF16", "Q8_0", "Q5_K"), route={"gating": "sigmoid"}),
    "odd": Mixture(active=11, experts=40, width=96, middle=160, quants=("F32", "Q8_0", "Q4_0"), activation="gelu_tanh"),
    "interleaved": Mixture(
        ("F32", "MXFP4", "MXFP4"), 192, 96, 32, 4, "clamped", one_stack=True, interleaved=True, biased=True,
        route={"renormalise": True},
    ),
    "halves": Mixture(("F32", "Q4_1", "Q2_K"), 256, 512, 12, 4, "limited", one_stack=True, biased=True, shared=True),
    "two biases": Mixture(("F32", "Q5_0", "Q3_K"), 256, 256, 12, 4, "clamped", biased=True),
    "floats": Mixture(("F32", "F16", "F16"), 64, 96, 8, 2),
    "floats to bytes": Mixture(("F32", "BF16", "Q8_0"), 64, 96, 8, 2),
    "floats of one token to bytes": Mixture(("F32", "F32", "Q8_0"), 64, 96, 8, 2),
    "bytes to floats": Mixture(("F32", "Q8_0", "F32"), 64, 96, 8, 2),
    "no whole groups": Mixture(("F32", "Q8_0", "F32"), 64, 40, 8, 2),
    "coded router": Mixture(("Q8_0", "Q4_K", "Q6_K"), experts=100, active=2),
}  # fmt: skip


@pytest.fixture
def packed_sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, list[int]]]:
    """Bytes of each argument by the address of the whole."""
    sizes: dict[int, list[int]] = {}
    plain: Any = Packed.__init__

    def noted(self: Packed, parts: Any) -> None:
        plain(self, parts)
        sizes[self.address] = [len(part) for part in parts]

    monkeypatch.setattr(Packed, "__init__", noted)
    yield sizes


def launched(case: Case, on: Device, counts: Sequence[int] = (1,)) -> list[list[str]]:
    """The kernels between embedding and logits that runs of so many tokens take."""
    step = case.step(CudaBackend(on), 128)  # type: ignore[arg-type]  # any backend will do
    driver, found = on.driver, []
    assert isinstance(step, CudaStep) and isinstance(driver, RecordingDriver)
    for count in counts:
        driver.launched.clear()
        ids = np.arange(count)
        paged.run(step, ids, [0] * count, ids, ids[-1:])
        assert all(x > 0 and 0 < y < 2**16 and 0 < z < 2**16 for _, (x, y, z), *_ in driver.launched)
        names = [name for name, *_ in driver.launched]
        found.append(names[names.index("embed") + 1 : -1])
    step.close()
    return found


@pytest.mark.parametrize("name", MIXTURES)
def test_kernels_of_mixtures_get_the_arguments_that_they_take(
    name: str, device: Device, packed_sizes: dict[int, list[int]]
) -> None:
    case, driver = MIXTURES[name].case(64), device.driver
    assert isinstance(driver, RecordingDriver)
    step = case.step(CudaBackend(device), 128)  # type: ignore[arg-type]  # any backend will do
    assert isinstance(step, CudaStep)
    for launch in step.launches:
        assert packed_sizes[launch.arguments.address] == driver.sizes[launch.function.kernel.name], launch.label
    step.close()
    launched(case, device, [1, 2, 5, 64])


ROUTED, EXPERTS = ["wide_norm", "router"], ["expert_gated", "expert_sum"]
FORMS = {
    "plain": [*ROUTED, *EXPERTS],
    "one": [*ROUTED, "expert_gated", "gemv_bytes", "expert_sum"],
    "coded router": [*ROUTED, *EXPERTS],
    "interleaved": [*ROUTED, *EXPERTS],
    "floats": [*ROUTED, "expert_gated", "expert_bytes", "combine"],
    "floats to bytes": [*ROUTED, *EXPERTS],
    "bytes to floats": [*ROUTED, "expert_gated", "expert_bytes", "combine"],
    "no whole groups": [*ROUTED, "expert_bytes", "wide_gated", "expert_bytes", "combine"],
}


@pytest.mark.parametrize("name", FORMS)
def test_a_token_takes_few_launches(name: str, device: Device) -> None:
    (names,) = launched(MIXTURES[name].case(64), device)
    assert names == FORMS[name]


def test_many_tokens_are_sorted_by_expert_and_what_one_token_takes_is_left_out() -> None:
    on = Device(RecordingDriver((9, 0)), 0)
    few, many = launched(MIXTURES["plain"].case(64), on, [5, 64])  # 15 // 3 = 5
    assert few == [*ROUTED, *EXPERTS]
    assert many[:3] == ["wide_norm", "gemm", "route"]
    assert many[-7:] == ["expert_lists", "half_rows", "gemm_wgmma", "wide_gated", "half_rows", "gemm_wgmma", "combine"]
    on.close()


def test_an_activation_that_one_token_does_not_launch_makes_none_of_its_bytes() -> None:
    """Of float32 one token alone goes to its experts by itself, of Q8_0 behind it three do."""
    on = Device(RecordingDriver((9, 0)), 0)
    one, three = launched(MIXTURES["floats of one token to bytes"].case(64), on, [1, 3])  # 7 // 2 = 3
    assert one == [*ROUTED, "expert_gated", "quantise", "expert_sum"]
    assert three == [*ROUTED, "expert_gemv", "wide_gated", "quantise", "expert_sum"]
    on.close()


def test_what_lies_between_ops_is_kept_where_it_is_read_later(device: Device) -> None:
    case = MIXTURES["plain"].case(64)
    gate, up, each = MIXTURES["plain"].views()
    for seen, kept in ((up, "wide_gated"), (each, "combine")):
        (names,) = launched(replace(case, out=seen), device)
        assert kept in names
    (names,) = launched(replace(case, out=gate), device)
    assert names[-2:] == EXPERTS  # the floats are written beside the bytes


@pytest.mark.nvidia
@pytest.mark.parametrize("name", [name for name in MIXTURES if name != "coded router"])  # bytes may choose others
def test_mixtures_equal_the_reference(name: str) -> None:
    """Tokens by themselves, few and many."""
    assert error(MIXTURES[name].case(80), batches([1, 2, 5, 1, 64]), 128) < LIMIT


@pytest.mark.nvidia
@pytest.mark.parametrize("name", ["plain", "wide", "interleaved"])
def test_what_lies_between_ops_equals_the_reference(name: str) -> None:
    case = MIXTURES[name].case(8)
    for seen in MIXTURES[name].views():
        assert error(replace(case, out=seen), batches([1, 2, 5])) < BYTES_LIMIT


@pytest.mark.nvidia
@pytest.mark.parametrize("name", ["plain", "many", "halves", "odd", "floats"])
def test_experts_of_nobody_are_left_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids below zero: none, some, the first, all of a token."""
    monkeypatch.setattr("tests.backends.cpu.single_ops.check_program", lambda program: None)  # it wants ids of a router
    it, rng = MIXTURES[name], np.random.default_rng(2)
    ids = np.stack([rng.permutation(it.experts)[: it.active] for _ in range(10)])
    ids[rng.random(ids.shape) < 0.4] = -1
    ids[0], ids[3, 0], ids[5] = np.arange(it.active), -1, -1
    assert error(it.given(ids), batches([1, 1, 1, 5, 2])) < BYTES_LIMIT
