"""Routers on CUDA: that they decide like the reference, on an NVIDIA GPU; and the room of their bytes, without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from lacewing.backends.cuda.backend import CudaBackend
from lacewing.backends.cuda.device.device import Device
from lacewing.backends.cuda.lowering.inputs import byte_sizes
from lacewing.backends.reference.backend import ReferenceBackend
from lacewing.backends.step import Step
from lacewing.program.ops import Buffer, Linear, Route
from tests import paged
from tests.backends.cpu.kernels.test_experts import ROUTES, batches
from tests.backends.cpu.single_ops import Case, floats, normal, random_weight
from tests.backends.cuda.nvidia import backend, error

LIMIT = 1e-4  # of products of bytes and of tensor cores
X = "x"


def decided(step: Step, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """ids (T, A) and probabilities (T, E) of runs of so many tokens."""
    step.watch_routes(True)
    found, done = [], 0
    for count in counts:
        tokens = np.arange(done, done + count)
        paged.run(step, tokens, [0] * count, tokens, np.arange(count))
        (layer,) = step.routes()
        found.append((layer.ids.copy(), layer.probabilities.copy()))
        done += count
    step.close()
    ids, shares = zip(*found, strict=True)
    return np.concatenate(ids), np.concatenate(shares)


def like_the_reference(case: Case, counts: Sequence[int]) -> None:
    """What a router decides, and the weights, which are the case's `out`."""
    ours, reference = (decided(case.step(each, 64), counts) for each in (backend(), ReferenceBackend()))  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours[0], reference[0])
    np.testing.assert_allclose(ours[1], reference[1], rtol=1e-4, atol=1e-9)
    assert error(case, batches(list(counts))) < 1e-8


SHAPES = [
    (6, 2, 3),
    (8, 8, 2),
    (5, 1, 1),
    (32, 4, 8),
    (100, 3, 5),
    (128, 8, 8),
    (130, 8, 10),
    (256, 8, 8),
    (300, 6, 4),
    (1030, 9, 2),
]


@pytest.mark.nvidia
@pytest.mark.parametrize("form", ROUTES)
@pytest.mark.parametrize(("experts", "active", "groups"), SHAPES)
def test_routers_decide_like_the_reference(experts: int, active: int, groups: int, form: str) -> None:
    """The product with it in runs of few tokens, and by itself in those of many."""
    route = {**ROUTES[form]}
    if "groups" in route:
        best = 1 if experts // groups == 1 or active == 1 else route.get("group_best", 2)
        used = max(1, groups // 2, -(-active * groups // experts))
        route |= {"groups": groups, "groups_used": used, "group_best": best}
    width = 224 if experts == 100 else 8192 + 32 if experts == 6 else 256
    ids, shares, scores = (Buffer(name, size).view() for name, size in (("ids", active), ("w", active), ("s", experts)))
    weights = {"r": floats("r", normal(experts, width, seed=1) / np.sqrt(width)), "b": floats("b", normal(experts, seed=2))}
    bias = {"bias": floats("bias", normal(experts, seed=5))} if "bias" in route else {}
    ops = (Linear(Buffer(X, width).view(), ("r",), (scores,), ("b",)), Route(scores, ids, shares, **route))
    like_the_reference(Case(ops, normal(40, width, seed=3), shares, weights | bias), [1, 1, 2, 30])


@pytest.mark.nvidia
@pytest.mark.parametrize("experts", [3, 16, 128, 257, 512])
def test_equal_scores_go_to_the_lower_ids(experts: int) -> None:
    x = np.random.default_rng(experts).integers(-2, 3, (20, experts)).astype(np.float32)
    x[1], x[2], x[3, experts // 2] = 0.0, -1.0, np.nan
    x[4, experts - 1], x[5, 0] = np.inf, -np.inf
    x[6, ::2] = -0.0
    active = min(experts, 9)
    ids, shares = Buffer("ids", active).view(), Buffer("w", active).view()
    case = Case((Route(Buffer(X, experts).view(), ids, shares),), x, shares, {})
    ours, reference = (decided(case.step(each, 64), [1, 19])[0] for each in (backend(), ReferenceBackend()))  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours, reference)


def routing_case(quant: str) -> Case:
    """A router whose experts are elsewhere, as the part of a mixture on a GPU has it."""
    scores, ids, shares = Buffer("scores", 70).view(), Buffer("ids", 2).view(), Buffer("shares", 2).view()
    ops = (Linear(Buffer(X, 512).view(), ("r",), (scores,)), Route(scores, ids, shares))
    return Case(ops, normal(40, 512, seed=3), scores, {"r": random_weight("r", quant, 70, 512)})


def test_the_bytes_of_all_tokens_of_a_router_have_room(device: Device) -> None:
    """Also where no product of experts makes that room: 16 tokens once wrote behind the room of one."""
    step = routing_case("Q8_0").step(CudaBackend(device), 64)  # type: ignore[arg-type]
    codes, scales = byte_sizes(step.program)
    step.close()
    assert codes >= 16 * 512 and scales >= 16 * 512 // 32 * 8


@pytest.mark.nvidia
@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K", "F16", "BF16"])
def test_a_router_of_any_quant_makes_its_logits(quant: str) -> None:
    assert error(routing_case(quant), batches([1, 3, 16, 20])) < LIMIT
