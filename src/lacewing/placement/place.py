"""Where a model goes: to one device as a whole, or shared out between a GPU and the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from lacewing.placement.info import CHUNK, ModelInfo

if TYPE_CHECKING:
    from lacewing.backends.base import Backend, Demand
    from lacewing.offload.plan import DeviceSizes, MemoryBudget, OffloadPlan
    from lacewing.placement.plan import Plan
    from lacewing.program.program import Program
    from lacewing.weights import WeightStore

GPU_SHARE = 0.9  # of what a GPU has free may be filled without being asked to
LESS = 0.8  # of what did not fit after all is tried next


@dataclass(frozen=True)
class Placement:
    """A backend for the model, and how it is shared out; `offload` None: it is not."""

    info: ModelInfo
    backend: Backend
    weight_bytes: int
    offload: OffloadPlan | None = None
    host: Program | None = None
    budget: MemoryBudget | None = None
    sizes: DeviceSizes | None = None

    @property
    def program(self) -> Program:
        """What `backend` compiles."""
        return self.info.spec.program if self.offload is None else self.offload.program

    @property
    def on_host(self) -> bool:
        """Whether weights are used that are not copies on a device."""
        return self.offload is not None or not self.backend.copies_weights

    @property
    def host_weights(self) -> set[str] | None:
        """The names of those that the CPU computes with; None: all."""
        if self.host is None:
            return None
        tensors = self.info.spec.tensors
        factors = (tensors[name].scales for name in self.host.weights)
        return {*self.host.weights, *(name for name in factors if name is not None)}

    def prepare(self, weights: WeightStore) -> None:
        """Tell a lazy store which weights the CPU computes with, and how the backend would have them."""


        weights.keep(self.host_weights)
        if isinstance(self.backend, PrefersTiles):
            weights.arrange(self.backend.tile_orders(self.program, weights))

    def plan(self, spare: int = 0) -> Plan:
        """Of the memory, with its reasons. Raises OutOfMemoryError."""
        from lacewing.offload.plan import OffloadLevel, OffloadPlanner
        from lacewing.placement.plan import plan_on_device

        if not self.backend.copies_weights or self.offload is not None:
            return self.replan(self.info.options, spare)
        facts, needs = self.backend.facts(), self.info.needs(self.weight_bytes, CHUNK)
        if self.sizes is not None:
            load = OffloadPlanner(self.info.spec.program, self.sizes).load(OffloadLevel())
            needs = replace(needs, weight_bytes=load.weight_bytes, kv_bytes=load.kv_bytes, buffer_bytes=load.buffer_bytes)
        return plan_on_device(needs, facts.name, facts.memory_bytes)

    def replan(self, options: LoadOptions, spare: int) -> Plan:
        """Of the memory of this machine, for what is computed there."""
        if self.host is None or self.offload is None:
            return self.info.plan(self.weight_bytes, CHUNK, options, spare)
        from lacewing.placement.plan import Row

        tensors, names = self.info.spec.tensors, self.host_weights or set()
        nbytes = sum({tensors[name].ranges: tensors[name].nbytes for name in names}.values())
        plan = self.info.plan(nbytes, CHUNK, options, spare, self.host)
        rows = [Row("on the GPU", self.offload.gpu.nbytes, self.offload.on_gpu, "memory")]
        if self.budget is not None:
            rows.append(Row("GPU budget", self.budget.nbytes, self.budget.source))
        reasons = (*self.offload.reasons, *(f"on the CPU: {reason}" for reason in plan.reasons))
        return replace(plan, rows=(*rows, *plan.rows), reasons=reasons)


def place(info: ModelInfo, backend: Backend, weight_bytes: int, full: MemoryBudget | None = None) -> Placement:
    """Share the model out if it does not fit the backend's device. `full`: what was tried and did not fit.

    Raises OutOfMemoryError where not even a part fits, OptionError for options that mean nothing to the backend.
    """
    from lacewing.backends import init_backend
    from lacewing.offload.cache import ExpertCacheBackend
    from lacewing.offload.cut import cut_program
    from lacewing.offload.plan import HOST, plan_offload
    from lacewing.offload.step import OffloadBackend

    options = info.options
    if not backend.copies_weights:
        _refuse_gpu_options(options)
        return Placement(info, backend, weight_bytes)
    sizes = sizes_on(info, backend)
    budget = _budget(options, backend) if full is None else full
    found = plan_offload(info.spec.program, sizes, budget, options.gpu_layers)
    if found is None:
        return Placement(info, backend, weight_bytes, sizes=sizes)
    cut = cut_program(found.program, found.devices)
    cache = [ExpertCacheBackend()] if found.level.shared else []
    both = OffloadBackend([backend, init_backend("cpu", options.threads), *cache], cut)
    return Placement(info, both, weight_bytes, found, cut.parts[HOST].program, budget, sizes)


def gpu_plan(info: ModelInfo) -> Plan | None:
    """The plan on the GPU that the options name, without bringing anything there; None where they name none.

    Raises BackendError where it cannot be used, OutOfMemoryError where not even a part fits.
    """
    from lacewing.backends import init_backend

    options = info.options
    if options.backend not in ("auto", "webgpu"):
        _refuse_gpu_options(options)
        return None
    if options.backend == "auto" and not options.names_gpu:
        return None
    backend = init_backend("webgpu", adapter=options.adapter)
    return place(info, backend, info.spec.sizes.weight_bytes).plan()


def less(placement: Placement) -> MemoryBudget | None:
    """What to try after the GPU turned out to be too small for that. None: nothing, since what a person asked for is not changed,
    or since there is no less."""
    from lacewing.offload.plan import MemoryBudget, OffloadPlanner

    options = placement.info.options
    if placement.sizes is None or options.gpu_layers is not None or options.gpu_memory_bytes is not None:
        return None
    planner = OffloadPlanner(placement.info.spec.program, placement.sizes)
    levels = planner.levels()
    tried = planner.load(levels[0]).nbytes if placement.offload is None else placement.offload.gpu.nbytes
    least = planner.load(levels[-1]).nbytes
    return MemoryBudget(max(int(LESS * tried), least), "what it has after all") if least < tried else None


def demand(info: ModelInfo, weight_bytes: int) -> Demand:
    """What `auto` is told of the model. With options for a GPU any part will do, else all but the experts of a mixture."""
    from lacewing.backends.base import Demand
    from lacewing.offload.plan import OffloadLevel, OffloadPlanner

    options, planner = info.options, OffloadPlanner(info.spec.program, sizes_on(info, None))
    whole = max(planner.load(OffloadLevel()).nbytes, info.needs(weight_bytes, CHUNK).device_bytes)
    least = 0 if options.gpu_layers is not None or options.gpu_memory_bytes is not None else planner.trunk_bytes
    return Demand(info.spec.program, info.spec.tensors, whole, min(least, whole))


def sizes_on(info: ModelInfo, backend: Backend | None) -> DeviceSizes:
    """Of a model on a device; None: on one that keeps weights as they are."""
    from lacewing.offload.plan import DeviceSizes, OffloadPlanner
    from lacewing.offload.step import HoldsSome, StoresAnew
    from lacewing.program.ops import ExpertLinear

    spec, context = info.spec, info.spec.context
    turned = {name for op in spec.program.ops if getattr(op, "transposed", False) for name in op.weight_names}
    weights = {}
    for name in spec.program.weights:
        tensor = spec.tensors[name]
        factors = 0 if tensor.scales is None else spec.tensors[tensor.scales].nbytes
        weights[name] = tensor.nbytes + factors
        if isinstance(backend, StoresAnew):
            weights[name] = backend.stored_bytes(tensor, name in turned)
    layers = [context * layer.stored_width * spec.program.kv_itemsize for layer in spec.program.layers]
    sizes = DeviceSizes(weights, layers, CHUNK)
    if not isinstance(backend, HoldsSome):
        return sizes
    planner = OffloadPlanner(spec.program, sizes)
    fixed = {
        place.layer
        for op, place in zip(planner.program.ops, planner.places, strict=True)
        if isinstance(op, ExpertLinear) and not all(backend.holds_some(spec.tensors[name], op.transposed) for name in op.weights)
    }
    return replace(sizes, exchangeable=frozenset(layer for layer in planner.mixtures if layer not in fixed))


def _budget(options: LoadOptions, backend: Backend) -> MemoryBudget | None:

    from lacewing.offload.plan import MemoryBudget

    if options.gpu_memory_bytes is not None:
        return MemoryBudget(options.gpu_memory_bytes, "the option --gpu-memory")
    free = backend.room_bytes() if isinstance(backend, HasMemory) else None
    if free is None:
        return None
    return MemoryBudget(int(GPU_SHARE * free), f"{GPU_SHARE:.0%} of the free memory of {backend.facts().name}")


def _refuse_gpu_options(options: LoadOptions) -> None:
    for name, value in (("--gpu-layers", options.gpu_layers), ("--gpu-memory", options.gpu_memory_bytes)):
        if value is not None:
            here = "auto found none for this model" if options.backend == "auto" else f"the backend is {options.backend}"
            raise OptionError(f"{name} is for a GPU, and {here}; leave it out, or use --backend webgpu")
