"""What a model takes on a device, told from its headers: memory requirements, and what an offload plan and `auto` ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lacewing.options import LoadOptions
from lacewing.placement.info import CHUNK, ModelInfo
from lacewing.placement.plan import MemoryRequirements

if TYPE_CHECKING:
    from lacewing.backends.base import Backend, DeviceMemory, ModelRequirements
    from lacewing.backends.batch import StepLimits
    from lacewing.formats.checkpoint import TensorInfo
    from lacewing.offload.plan import DeviceLoad, Target
    from lacewing.program.program import Program
    from lacewing.weights.experts.source import Stacks

WORTH_BYTES = 2**24  # of a matrix in RAM, for which it does not pay to read its rows from the disk


def requirements(
    info: ModelInfo,
    backend: Backend,
    part: Program | None = None,
    *,
    stored: bool = False,
    resident: Mapping[str, int] | None = None,
    chunk: int = 0,
) -> MemoryRequirements:
    """Bytes of all that it takes to run a model, or a part of its program, on a backend. `stored`: weights as the device keeps
    them, else as they are in the file. `resident`: how many experts of a stack another device has at a time. `chunk`: see
    `limits`."""
    from lacewing.models.sizes import measure
    from lacewing.offload.experts import resident_specs
    from lacewing.weights.experts import layer_slots

    program = part or info.spec.program
    memory = backend.memory(program, resident_specs(program, info.spec.tensors), limits(info, chunk))
    sizes = info.spec.sizes if part is None else measure(part, info.spec.tensors)
    tensors = info.spec.tensors
    names = set(tensors if part is None else with_factors(info, part)) - program.tables
    nbytes = memory.weight_bytes if stored else sum({tensors[name].ranges: tensors[name].nbytes for name in names}.values())
    experts = sizes.expert_bytes, sizes.active_expert_bytes
    buffers = memory.buffer_bytes + memory.staging_bytes
    mixtures = tuple(layer_slots(host_mixtures(info, part), tensors, resident)) if backend.streams_experts else ()
    return MemoryRequirements(
        nbytes,
        sizes.active_bytes,
        state_bytes(info, program, memory, chunk),
        buffers,
        *experts,
        memory.copied_bytes,
        mixtures,
        sizes.table_bytes,
        sum(map(_saved_bytes, (tensors[name] for name in by_row(info, backend, part)))) if mixtures else 0,
    )


def by_row(info: ModelInfo, backend: Backend, part: Program | None) -> frozenset[str]:
    """The matrices of a model, or of a part of its program, that streaming leaves on the disk: they are worth it, and lie in one
    place that no other weight shares."""
    tensors, users = info.spec.tensors, Counter(tensor.ranges for tensor in info.spec.tensors.values())
    return frozenset(
        name
        for name in backend.row_tables(part or info.spec.program, tensors)
        if len(tensors[name].ranges) == users[tensors[name].ranges] == 1 and _saved_bytes(tensors[name]) >= WORTH_BYTES
    )


def _saved_bytes(table: TensorInfo) -> int:
    from lacewing.weights.experts.rows import row_table_bytes

    return table.nbytes - row_table_bytes(table.nbytes // table.shape[0], CHUNK)


def host_mixtures(info: ModelInfo, part: Program | None) -> list[tuple[Stacks, int]]:
    """The mixtures of a model, as `stacks_of` tells them, whose experts a part of its program computes; None: the whole."""
    from lacewing.weights.experts import stacks_of

    found = stacks_of(info.spec.program)
    return found if part is None else [(stacks, active) for stacks, active in found if part.weights.keys() >= set(stacks)]


def state_bytes(info: ModelInfo, program: Program, memory: DeviceMemory, chunk: int = 0) -> int:
    """The states of one sequence of the whole context, what further sequences need of limited reach, and what the options ask."""
    most = limits(info, chunk)
    return sum(
        group.planned(most.context, most.chunk, most.rows, most.positions) * nbytes
        for group, nbytes in zip(program.groups, memory.group_bytes, strict=True)
    )


def target_on(info: ModelInfo, backend: Backend, chunk: int = 0) -> Target:
    """What an offload plan asks of a GPU. `chunk`: see `limits`."""
    from lacewing.offload.experts import resident_specs
    from lacewing.offload.plan import DeviceLoad, OffloadPlanner, Target
    from lacewing.program.ops import ExpertLinear

    def load(program: Program) -> DeviceLoad:
        memory = backend.memory(program, resident_specs(program, info.spec.tensors), limits(info, chunk))
        return DeviceLoad(
            memory.weight_bytes, state_bytes(info, program, memory, chunk), memory.buffer_bytes + memory.staging_bytes
        )

    spec, planner = info.spec, OffloadPlanner(info.spec.program, Target(load))
    fixed = {
        place.layer
        for op, place in zip(planner.program.ops, planner.places, strict=True)
        if isinstance(op, ExpertLinear) and not all(backend.holds_some(spec.tensors[name], op.transposed) for name in op.weights)
    }
    return Target(load, frozenset(layer for layer in planner.mixtures if layer not in fixed))


def model_requirements(info: ModelInfo, options: LoadOptions, freed: int = 0) -> ModelRequirements:
    """What `auto` is told of the model. With options for a GPU any part will do, else all but the experts of a mixture."""
    from lacewing.backends.base import ModelRequirements, estimate
    from lacewing.offload.experts import resident_specs
    from lacewing.offload.plan import DeviceLoad, OffloadLevel, OffloadPlanner, Target

    def load(program: Program) -> DeviceLoad:
        memory = estimate(program, resident_specs(program, info.spec.tensors), limits(info))
        return DeviceLoad(memory.weight_bytes, state_bytes(info, program, memory), memory.buffer_bytes)

    planner = OffloadPlanner(info.spec.program, Target(load))
    whole = max(0, planner.load(OffloadLevel()).nbytes - freed)
    asked = options.gpu_layers is not None or options.gpu_memory_bytes is not None
    least = 0 if asked else max(0, planner.trunk_bytes - freed)
    return ModelRequirements(info.spec.program, info.spec.tensors, whole, min(least, whole))


def with_factors(info: ModelInfo, program: Program) -> set[str]:
    """The names of a program's weights, and of the factors that these are multiplied by."""
    factors = (info.spec.tensors[name].scales for name in program.weights)
    return {*program.weights, *(name for name in factors if name is not None)}


def run_tokens(info: ModelInfo, backend: Backend, room: int | None) -> int:
    """Prompt tokens of a run on a GPU that has the whole model: as many as suit it, if `room` bytes hold their activations too."""
    options = info.options
    most = min(backend.run_tokens(info.spec.program), info.spec.context * options.sequences)
    if most <= CHUNK or room is None or target_on(info, backend, most).load(info.spec.program).nbytes > room:
        return CHUNK
    return most


def limits(info: ModelInfo, chunk: int = 0) -> StepLimits:
    """Of a step for the model. `chunk`: prompt tokens of a run; 0: as many as suit every device."""
    from lacewing.backends.batch import StepLimits

    options = info.options
    return StepLimits(info.spec.context, chunk or CHUNK, options.sequences, options.kv_tokens or 0, options.look_ahead)
