"""Sharing a model out between a GPU and the CPU: pure arithmetic, its reasons, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lacewing.errors import OutOfMemoryError
from lacewing.offload.cut import cut_program
from lacewing.offload.experts import source_name
from lacewing.offload.plan import (
    CACHE,
    GPU,
    HOST,
    DeviceLoad,
    MemoryBudget,
    OffloadLevel,
    OffloadPlan,
    OffloadPlanner,
    Target,
    plan_offload,
)
from lacewing.program.check import check_program
from lacewing.program.ops import Embed, ExpertLinear, Op, Route
from lacewing.program.program import Program
from lacewing.program.states import Window
from tests.offload.test_cut import MIXTURE
from tests.paged import paged
from tests.program.test_check import OPS, WEIGHTS

LAYERS = 4


def renamed(op: Op, layer: int) -> Op:
    """The op with its weights named as those of a layer, and its state."""
    return op.with_weights(lambda name: f"blk.{layer}.{name}").with_states({0: layer})


def model(mixtures: tuple[int, ...] = (), tied: bool = True) -> Program:
    """Four layers, those of `mixtures` with experts."""
    found: list[Op] = [OPS[0]]
    for layer in range(LAYERS):
        body = [*OPS[1:9], *(MIXTURE if layer in mixtures else OPS[9:12])]
        found += [renamed(op, layer) for op in body]
    output = OPS[13] if tied else replace(OPS[13], weight="head")
    found += [OPS[12], output]
    shapes = {
        **WEIGHTS, "router": (4, 8), "bias of the router": (4,), "gates": (4, 3, 8), "ups": (4, 3, 8), "downs": (4, 8, 3),
        "head": (10, 8),
    }  # fmt: skip
    names = {name for op in found for name in op.weight_names}
    made = Program(tuple(found), {name: shapes[name.split(".")[-1]] for name in names}, (paged(1, 4, 4, Window(3)),) * LAYERS, 10)
    check_program(made)
    return made


def target(program: Program, swappable: frozenset[int] = frozenset()) -> Target:
    """A megabyte a matrix of a layer, a hundred a stack of experts, ten the embedding and the output; a state a hundred."""
    whole = {name: shape[0] for name, shape in program.weights.items()}

    def nbytes(name: str, shape: tuple[int, ...]) -> int:
        source = source_name(name).split(".")[-1]
        if source in ("gates", "ups", "downs"):
            return 100 * 10**6 * shape[0] // whole[source_name(name)]
        return (10 if source in ("embedding", "head") else 1) * 10**6

    def load(part: Program) -> DeviceLoad:
        weights = [nbytes(name, shape) for name, shape in part.weights.items()]
        return DeviceLoad(sum(weights), 100 * 10**6 * len(part.states), min(max(weights, default=0), 10**8))

    return Target(load, swappable)


def shared(program: Program, megabytes: int, layers: int | None = None) -> OffloadPlan | None:
    return plan_offload(program, target(program), MemoryBudget(megabytes * 10**6, "the test"), layers)


def test_what_fits_is_not_shared() -> None:
    program = model()
    whole = OffloadPlanner(program, target(program)).load(OffloadLevel())
    assert whole.kv_bytes == 400 * 10**6 and whole.weight_bytes == (10 + 1 + LAYERS * 9) * 10**6
    assert plan_offload(program, target(program), MemoryBudget(whole.nbytes, "the test")) is None
    assert plan_offload(program, target(program), MemoryBudget(whole.nbytes - 1, "the test")) is not None
    assert plan_offload(program, target(program), None) is None  # of unknown size: taken for large enough


def test_the_first_layers_of_a_dense_model_stay() -> None:
    program = model()
    found = shared(program, 300)
    assert found is not None and (found.level.host_layers, found.layers, found.mixtures) == (2, LAYERS, 0)
    assert found.devices == tuple(sorted(found.devices, reverse=True))  # one change of device
    assert found.devices[0] == HOST and found.devices[-1] == GPU
    assert found.gpu.kv_bytes == 200 * 10**6 and found.gpu.nbytes <= 300 * 10**6
    assert found.reasons[0].startswith("on the GPU is layers 2 to 3 of 4 and the output, the CPU computes the rest: all would")
    assert "but the test gives 286.1 MiB" in found.reasons[0] and "KV cache 190.7 MiB" in found.reasons[1]
    one = shared(program, 160)
    assert one is not None and one.level.host_layers == 3 and "layer 3 of 4" in one.on_gpu


def test_experts_stay_before_layers_do() -> None:
    program = model((0, 1, 2, 3), tied=False)
    counts = [
        (each and (each.level.host_layers, each.level.host_experts))
        for each in (shared(program, room) for room in (2000, 1500, 900, 450))
    ]
    assert counts == [None, (0, 1), (0, 3), (1, 4)]
    found = shared(program, 900)
    assert found is not None and found.on_gpu == "everything but the experts of 3 of 4 layers"
    kinds = {type(op).__name__ for op, device in zip(found.program.ops, found.devices, strict=True) if device == HOST}
    assert kinds == {"Embed", "Route", "ExpertLinear", "GatedActivation", "Combine"}
    parts = cut_program(found.program, found.devices)
    assert parts.parts[HOST].program.states == ()
    assert len(parts.schedule) == 1 + 2 * 3 + 1  # the embedding, then away and back for each layer
    deep = shared(program, 450)
    assert deep is not None and deep.on_gpu == "layers 1 to 3 of 4 and the output without the experts of all layers"


def test_an_embedding_that_is_the_output_too_is_there_anyway() -> None:
    found = shared(model((0, 1, 2, 3)), 900)
    assert found is not None and isinstance(found.program.ops[0], Embed) and found.devices[0] == GPU


def test_dense_layers_of_a_mixture() -> None:
    program = model((2, 3))
    found = shared(program, 900)
    assert found is not None and (found.level.host_layers, found.level.host_experts, found.mixtures) == (0, 1, 2)
    away = [op for op, device in zip(found.program.ops, found.devices, strict=True) if device == HOST]
    assert {op.weights[0] for op in away if isinstance(op, ExpertLinear)} == {"blk.2.gates", "blk.2.downs"}
    assert sum(isinstance(op, Route) for op in away) == 1


def test_as_many_layers_as_asked_for() -> None:
    program = model()
    for layers in range(LAYERS):
        found = shared(program, 5000, layers)
        assert found is not None and found.level.host_layers == LAYERS - layers and found.reasons[0].endswith("asked for")
    assert shared(program, 5000, LAYERS) is None and shared(program, 5000, 99) is None
    none = shared(program, 5000, 0)
    assert none is not None and none.on_gpu == "only the output"
    mixture = plan_offload(model((0, 1, 2, 3)), target(model((0, 1, 2, 3))), None, 1)
    assert mixture is not None and (mixture.level.host_layers, mixture.level.host_experts) == (0, 3)
    with pytest.raises(
        OutOfMemoryError, match=r"3 layers on the GPU take .* but the test gives 190\.7 MiB; use fewer `gpu_layers`"
    ):
        shared(program, 200, 3)


def test_no_layer_fits() -> None:
    with pytest.raises(OutOfMemoryError, match="not even one layer of the model fits the GPU"):
        shared(model(), 50)


def test_more_room_never_means_less_there() -> None:
    program, before = model((0, 1, 2, 3)), 0
    for room in range(450, 2000, 50):
        found = shared(program, room)
        taken = OffloadPlanner(program, target(program)).load(OffloadLevel()).nbytes if found is None else found.gpu.nbytes
        assert before <= taken <= room * 10**6
        before = taken


def swappable(program: Program) -> Target:
    return target(program, frozenset(range(LAYERS)))


def test_experts_are_shared_before_they_are_left() -> None:
    """Half of those of as few layers as need be; then fewer, of all; then none; then whole layers."""
    program = model((0, 1, 2, 3), tied=False)
    sharing = OffloadPlanner(program, swappable(program))
    levels = sharing.levels()
    assert levels[:7] == [
        OffloadLevel(),
        *(OffloadLevel(0, 0, count, 2) for count in (1, 2, 3, 4)),
        OffloadLevel(0, 0, 4, 1),
        OffloadLevel(0, 4),
    ]
    assert levels[6:] == [OffloadLevel(count, 4) for count in (0, 1, 2, 3)]
    taken = [sharing.load(level) for level in levels]
    assert [load.nbytes for load in taken] == sorted((load.nbytes for load in taken), reverse=True)
    assert taken[0].weight_bytes - taken[1].weight_bytes == 10 * 10**6 + 3 * 50 * 10**6  # half of three stacks, and the embedding
    assert taken[4].weight_bytes - taken[5].weight_bytes == 4 * 3 * 25 * 10**6
    assert len({load.kv_bytes for load in taken[:7]}) == 1


@pytest.mark.parametrize("level", [OffloadLevel(0, 0, 2, 2), OffloadLevel(0, 0, 4, 1)])
def test_parts_of_shared_experts(level: OffloadLevel) -> None:
    program = model((0, 1, 2, 3), tied=False)
    cut, devices = OffloadPlanner(program, swappable(program)).assign(level)
    check_program(cut)
    assert set(devices) == {GPU, HOST, CACHE} and devices[0] == HOST and devices[-1] == GPU
    parts = cut_program(cut, devices)
    for part in parts.parts:
        check_program(part.program)
    resident = {name: shape for name, shape in parts.parts[GPU].program.weights.items() if name.endswith("(resident)")}
    assert len(resident) == 3 * level.shared and {shape[0] for shape in resident.values()} == {level.resident}
    assert (
        len(parts.schedule) == 1 + 4 * level.shared + 1
    )  # the embedding; trunk, cache manager, resident ones, the others; the trunk again


def test_the_plan_of_shared_experts() -> None:
    program = model((0, 1, 2, 3), tied=False)
    found = plan_offload(program, swappable(program), MemoryBudget(1700 * 10**6, "the test"))
    assert found is not None and found.level == OffloadLevel(0, 0, 1, 2) and found.gpu.nbytes <= 1700 * 10**6
    assert found.on_gpu == "everything but 2 of 4 experts of 1 of 4 layers"
    assert "as routers choose them" in found.reasons[2]
    less = plan_offload(program, swappable(program), MemoryBudget(900 * 10**6, "the test"))
    assert less is not None and less.on_gpu == "everything but 3 of 4 experts of all layers"
    asked = plan_offload(program, swappable(program), None, 2)
    assert asked is not None and asked.level == OffloadLevel(0, 2)  # whole layers, where a person says how many


def test_mixtures_of_which_some_cannot_be_shared() -> None:
    program = model((1, 3))
    some = target(program, frozenset({1}))
    assert OffloadPlanner(program, some).levels()[1:3] == [OffloadLevel(0, 1), OffloadLevel(0, 2)]


def test_absurd_rooms() -> None:
    for program in (model(), model((0, 1, 2, 3))):
        for nbytes in (0, 1, -1):
            with pytest.raises(OutOfMemoryError, match="not even one layer"):
                plan_offload(program, swappable(program), MemoryBudget(nbytes, "the test"))
        assert plan_offload(program, swappable(program), MemoryBudget(2**63, "the test")) is None
