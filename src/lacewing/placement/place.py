"""Where a model that has been opened goes: to one device as a whole, or shared out between a GPU and the processor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lacewing.errors import OptionError
from lacewing.options import LoadOptions
from lacewing.placement.info import CHUNK, Opened

if TYPE_CHECKING:
    from lacewing.backends.base import Backend, Demand
    from lacewing.offload.plan import Room, Share, Sizes
    from lacewing.placement.plan import Plan
    from lacewing.program.program import Program
    from lacewing.weights import WeightStore

GPU_SHARE = 0.9  # of what a GPU has free may be filled without being asked to
LESS = 0.8  # of what did not fit after all is tried next


@dataclass(frozen=True)
class Placed:
    """A backend for the model, and how it is shared out; `share` None: it is not."""

    opened: Opened
    backend: Backend
    weight_bytes: int
    share: Share | None = None
    host: Program | None = None
    room: Room | None = None
    sizes: Sizes | None = None

    @property
    def program(self) -> Program:
        """What `backend` compiles."""
        return self.opened.spec.program if self.share is None else self.share.program

    @property
    def on_host(self) -> bool:
        """Whether weights are used that are not copies on a device."""
        return self.share is not None or not self.backend.copies_weights

    @property
    def host_weights(self) -> set[str] | None:
        """The names of those that the processor computes with; None: all."""
        if self.host is None:
            return None
        tensors = self.opened.spec.tensors
        factors = (tensors[name].scales for name in self.host.weights)
        return {*self.host.weights, *(name for name in factors if name is not None)}

    def prepare(self, weights: WeightStore) -> None:
        """Tell a lazy store which weights the processor computes with, and how the backend would have them."""


        weights.keep(self.host_weights)
        if isinstance(self.backend, PrefersTiles):
            weights.arrange(self.backend.tile_orders(self.program, weights))

    def plan(self, spare: int = 0) -> Plan:
        """Of the memory, with its reasons. Raises OutOfMemoryError."""
        from lacewing.offload.plan import Level, Sharing
        from lacewing.placement.plan import plan_on_device

        if not self.backend.copies_weights or self.share is not None:
            return self.replan(self.opened.options, spare)
        facts, needs = self.backend.facts(), self.opened.needs(self.weight_bytes, CHUNK)
        if self.sizes is not None:
            load = Sharing(self.opened.spec.program, self.sizes).load(Level())
            needs = replace(needs, weight_bytes=load.weight_bytes, kv_bytes=load.kv_bytes, buffer_bytes=load.buffer_bytes)
        return plan_on_device(needs, facts.name, facts.memory_bytes)

    def replan(self, options: LoadOptions, spare: int) -> Plan:
        """Of the memory of this machine, for what is computed there."""
        if self.host is None or self.share is None:
            return self.opened.plan(self.weight_bytes, CHUNK, options, spare)
        from lacewing.placement.plan import Row

        tensors, names = self.opened.spec.tensors, self.host_weights or set()
        nbytes = sum({tensors[name].ranges: tensors[name].nbytes for name in names}.values())
        plan = self.opened.plan(nbytes, CHUNK, options, spare, self.host)
        rows = [Row("on the GPU", self.share.gpu.nbytes, self.share.on_gpu, "memory")]
        if self.room is not None:
            rows.append(Row("GPU budget", self.room.nbytes, self.room.source))
        reasons = (*self.share.reasons, *(f"on the processor: {reason}" for reason in plan.reasons))
        return replace(plan, rows=(*rows, *plan.rows), reasons=reasons)


def place(opened: Opened, backend: Backend, weight_bytes: int, full: Room | None = None) -> Placed:
    """Share the model out if it does not fit the backend's device. `full`: what was tried and did not fit.

    Raises OutOfMemoryError where not even a part fits, OptionError for options that mean nothing to the backend.
    """
    from lacewing.backends import init_backend
    from lacewing.offload.cache import Desk
    from lacewing.offload.cut import split
    from lacewing.offload.plan import HOST, share
    from lacewing.offload.step import SplitBackend

    options = opened.options
    if not backend.copies_weights:
        _refuse_gpu_options(options)
        return Placed(opened, backend, weight_bytes)
    sizes = sizes_on(opened, backend)
    room = _room(options, backend) if full is None else full
    found = share(opened.spec.program, sizes, room, options.gpu_layers)
    if found is None:
        return Placed(opened, backend, weight_bytes, sizes=sizes)
    parts = split(found.program, found.devices)
    desk = [Desk()] if found.level.shared else []
    both = SplitBackend([backend, init_backend("cpu", options.threads), *desk], parts)
    return Placed(opened, both, weight_bytes, found, parts.parts[HOST].program, room, sizes)


def gpu_plan(opened: Opened) -> Plan | None:
    """The plan on the GPU that the options name, without bringing anything there; None where they name none.

    Raises BackendError where it cannot be used, OutOfMemoryError where not even a part fits.
    """
    from lacewing.backends import init_backend

    options = opened.options
    if options.backend not in ("auto", "webgpu"):
        _refuse_gpu_options(options)
        return None
    if options.backend == "auto" and not options.names_gpu:
        return None
    backend = init_backend("webgpu", adapter=options.adapter)
    return place(opened, backend, opened.spec.sizes.weight_bytes).plan()


def less(placed: Placed) -> Room | None:
    """What to try after the GPU turned out to be too small for that. None: nothing, since what a person asked for is not changed,
    or since there is no less."""
    from lacewing.offload.plan import Room, Sharing

    options = placed.opened.options
    if placed.sizes is None or options.gpu_layers is not None or options.gpu_memory_bytes is not None:
        return None
    sharing = Sharing(placed.opened.spec.program, placed.sizes)
    levels = sharing.levels()
    tried = sharing.load(levels[0]).nbytes if placed.share is None else placed.share.gpu.nbytes
    least = sharing.load(levels[-1]).nbytes
    return Room(max(int(LESS * tried), least), "what it has after all") if least < tried else None


def demand(opened: Opened, weight_bytes: int) -> Demand:
    """What `auto` is told of the model. With options for a GPU any part will do, else all but the experts of a mixture."""
    from lacewing.backends.base import Demand
    from lacewing.offload.plan import Level, Sharing

    options, sharing = opened.options, Sharing(opened.spec.program, sizes_on(opened, None))
    whole = max(sharing.load(Level()).nbytes, opened.needs(weight_bytes, CHUNK).device_bytes)
    least = 0 if options.gpu_layers is not None or options.gpu_memory_bytes is not None else sharing.trunk_bytes
    return Demand(opened.spec.program, opened.spec.tensors, whole, min(least, whole))


def sizes_on(opened: Opened, backend: Backend | None) -> Sizes:
    """Of a model on a device; None: on one that keeps weights as they are."""
    from lacewing.offload.plan import Sharing, Sizes
    from lacewing.offload.step import HoldsSome, StoresAnew
    from lacewing.program.ops import ExpertLinear

    spec, context = opened.spec, opened.spec.context
    turned = {name for op in spec.program.ops if getattr(op, "transposed", False) for name in op.weight_names}
    weights = {}
    for name in spec.program.weights:
        tensor = spec.tensors[name]
        factors = 0 if tensor.scales is None else spec.tensors[tensor.scales].nbytes
        weights[name] = tensor.nbytes + factors
        if isinstance(backend, StoresAnew):
            weights[name] = backend.stored_bytes(tensor, name in turned)
    layers = [context * layer.stored_width * spec.program.kv_itemsize for layer in spec.program.layers]
    sizes = Sizes(weights, layers, CHUNK)
    if not isinstance(backend, HoldsSome):
        return sizes
    sharing = Sharing(spec.program, sizes)
    fixed = {
        place.layer
        for op, place in zip(sharing.program.ops, sharing.places, strict=True)
        if isinstance(op, ExpertLinear) and not all(backend.holds_some(spec.tensors[name], op.transposed) for name in op.weights)
    }
    return replace(sizes, exchangeable=frozenset(layer for layer in sharing.mixtures if layer not in fixed))


def _room(options: LoadOptions, backend: Backend) -> Room | None:

    from lacewing.offload.plan import Room

    if options.gpu_memory_bytes is not None:
        return Room(options.gpu_memory_bytes, "the option --gpu-memory")
    free = backend.room_bytes() if isinstance(backend, HasMemory) else None
    return None if free is None else Room(int(GPU_SHARE * free), f"{GPU_SHARE:.0%} of the free memory of {backend.facts().name}")


def _refuse_gpu_options(options: LoadOptions) -> None:
    for name, value in (("--gpu-layers", options.gpu_layers), ("--gpu-memory", options.gpu_memory_bytes)):
        if value is not None:
            here = "auto found none for this model" if options.backend == "auto" else f"the backend is {options.backend}"
            raise OptionError(f"{name} is for a GPU, and {here}; leave it out, or use --backend webgpu")
