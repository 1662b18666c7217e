"""Where a model goes: `place` decides it for loading, for tables of models and for `lacewing info` alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lacewing.errors import BackendError, OptionError, OutOfMemoryError
from lacewing.options import CPU, GPU, LoadOptions
from lacewing.placement.info import CHUNK, ModelInfo
from lacewing.placement.plan import MemoryPlan, Row, plan, plan_on_device, plan_or_reason
from lacewing.placement.requirements import (
    by_row,
    host_mixtures,
    model_requirements,
    requirements,
    run_tokens,
    target_on,
    with_factors,
)

if TYPE_CHECKING:
    from lacewing.backends.base import Backend
    from lacewing.offload.plan import MemoryBudget, OffloadPlan
    from lacewing.program.program import Program
    from lacewing.weights import WeightStore

GPU_SHARE = 0.9  # of what a GPU has free may be filled without being asked to
LESS = 0.8  # of what did not fit after all is tried next
_UNPLANNED = MemoryPlan("lazy", 0, 0, 0, (), ())


@dataclass(frozen=True)
class Placement:
    """The backend of a model, how it is shared out (`offload` None: it is not), and the memory plan.

    `gpu`, `cpu`: the backends of either side that compute some of it. `host`: the part of the program that the CPU computes if it
    is shared out. `spare`: as for `place`; `chunk`: as for `limits`.
    """

    info: ModelInfo
    options: LoadOptions
    backend: Backend
    spare: int
    gpu: Backend | None = None
    cpu: Backend | None = None
    offload: OffloadPlan | None = None
    host: Program | None = None
    budget: MemoryBudget | None = None
    chunk: int = 0
    plan: MemoryPlan = _UNPLANNED

    @property
    def program(self) -> Program:
        """What `backend` compiles."""
        return self.info.spec.program if self.offload is None else self.offload.program

    @property
    def on_host(self) -> bool:
        """Whether weights are used that are not copies on a device."""
        return self.cpu is not None

    @property
    def reads_files(self) -> bool:
        """Whether files are needed after loading: for such weights, or for tables."""
        return self.on_host or bool(self.program.tables)

    @property
    def device_bytes(self) -> int:
        """What it takes in the memory of a GPU."""
        if self.offload is not None:
            return self.offload.gpu.nbytes
        return 0 if self.gpu is None else self.plan.needed_bytes

    @property
    def summary(self) -> str:
        """For people, in a few words: a residency, or what is on the GPU."""
        if self.offload is not None:
            return f"GPU and CPU, {self.plan.residency}"
        return self.plan.residency if self.gpu is None else "GPU"

    @property
    def host_weights(self) -> set[str] | None:
        """The names of those that the CPU computes with and that may be in RAM; None: all."""
        tables = self.program.tables
        if self.host is None and not tables:
            return None
        return with_factors(self.info, self.host or self.program) - tables

    def prepare(self, weights: WeightStore) -> None:
        """Tell a lazy store which weights the CPU computes with, and how the backend would have them."""
        weights.keep(self.host_weights, bool(self.program.tables))
        weights.arrange(self.backend.tile_orders(self.program, weights), self.backend.memory_nodes())
        self.slot(weights, self.plan)

    def slot(self, weights: WeightStore, plan: MemoryPlan) -> None:
        """Tell a store which experts are streamed as of a plan, and how many slots they have."""
        from lacewing.weights.experts.cache import StreamOptions
        from lacewing.weights.experts.history import history_dir
        from lacewing.weights.experts.pack import pack_places
        from lacewing.weights.store import PackedAs

        if self.cpu is None:
            return
        options = StreamOptions(None if self.options.cold_start else history_dir(), self.options.look_ahead)
        spec = self.info.spec
        packed = PackedAs(host_mixtures(self.info, None), self.cpu.tile_orders(spec.program, spec.tensors))
        mixtures, on_disk = host_mixtures(self.info, self.host), by_row(self.info, self.cpu, self.host)
        weights.slot(mixtures, plan.slots, pack_places(self.info.checkpoint.path), options, packed, on_disk)

    def replan(self, options: LoadOptions, spare: int) -> MemoryPlan:
        """With other options for the weights in RAM. Raises OutOfMemoryError."""
        return _plan(replace(self, spare=spare), options)

    def smaller(self) -> Placement | None:
        """After the GPU turned out to be too small: with less there. None: what a person asked for is not changed, or there is no
        less."""
        from lacewing.offload.plan import MemoryBudget, OffloadPlanner

        options = self.options
        if self.chunk > CHUNK:
            shorter = replace(self, chunk=0)
            return replace(shorter, plan=_plan(shorter, options))
        if self.gpu is None or options.gpu_layers is not None or options.gpu_memory_bytes is not None:
            return None
        planner = OffloadPlanner(self.info.spec.program, target_on(self.info, self.gpu))
        tried = planner.load(planner.levels()[0]).nbytes if self.offload is None else self.offload.gpu.nbytes
        least = planner.load(planner.levels()[-1]).nbytes
        if least >= tried:
            return None
        budget = MemoryBudget(max(int(LESS * tried), least), "what it has after all")
        return _on_gpu(self.info, options, self.gpu, self.spare, budget)

    def on_cpu(self, problem: Exception) -> Placement | None:
        """The same model on the CPU, since the GPU did not work out; None: the GPU was asked for. Raises OutOfMemoryError."""
        options = self.options
        if self.gpu is None or options.backend != "auto" or options.names_gpu:
            return None
        return _with_remarks(_on_host(self.info, options, self.spare), [f"{self.backend.name}: {problem}"])


def place(info: ModelInfo, options: LoadOptions | None = None, *, spare: int = 0, freed: int = 0, tell: bool = False) -> Placement:
    """Decide which devices a model goes to, and in which residency. Nothing is read or brought anywhere.

    `options`: other ones than those that it was opened with. `spare`: bytes of RAM in use now that will be free by then; `freed`:
    the same of the GPU. `tell`: a plan that does not fit in RAM is no error, but says so. Raises OutOfMemoryError if not even a
    part fits, OptionError for options that mean nothing to the backend, BackendError if it cannot be used.
    """
    from lacewing.backends import choose_backend

    options = options or info.options
    wanted = model_requirements(info, options, freed)
    backend, remarks = choose_backend(options.backend, options.threads, adapter=options.adapter, required=wanted)
    if not backend.copies_weights:
        _refuse_gpu_options(options)
        return _with_remarks(_on_host(info, options, spare, backend, tell), remarks)
    try:
        return _with_remarks(_on_gpu(info, options, backend, spare, _budget(options, backend, freed)), remarks)
    except (BackendError, OutOfMemoryError) as error:
        if options.backend != "auto" or options.names_gpu:
            raise
        return _with_remarks(_on_host(info, options, spare, None, tell), [*remarks, f"{backend.name}: {error}"])


def _on_host(info: ModelInfo, options: LoadOptions, spare: int, backend: Backend | None = None, tell: bool = False) -> Placement:
    from lacewing.backends import init_backend

    chosen = backend or init_backend(CPU, options.threads)
    found = Placement(info, options, chosen, spare, cpu=chosen)
    return replace(found, plan=_plan(found, options, tell))


def _on_gpu(info: ModelInfo, options: LoadOptions, backend: Backend, spare: int, budget: MemoryBudget | None) -> Placement:
    """As a whole, or shared out with the CPU if it does not fit; with experts of all layers on both, if the CPU's are streamed."""
    asked = options.residency == "streamed"
    found = None if asked else _shared_out(info, options, backend, spare, budget)
    if found is not None and (found.host is None or found.plan.residency != "streamed"):
        return found
    if options.gpu_layers is None:
        try:
            spread = _shared_out(info, options, backend, spare, budget, spread=True)
        except OutOfMemoryError:  # more layers of experts need more slots
            spread = None
        if spread is not None and (spread.host is None or spread.plan.residency == "streamed"):
            return spread
    return found or _shared_out(info, options, backend, spare, budget)


def _shared_out(
    info: ModelInfo, options: LoadOptions, backend: Backend, spare: int, budget: MemoryBudget | None, *, spread: bool = False
) -> Placement:
    """Raises OutOfMemoryError."""
    from lacewing.backends import init_backend
    from lacewing.offload.cache import ExpertCacheBackend
    from lacewing.offload.cut import cut_program
    from lacewing.offload.plan import HOST, plan_offload
    from lacewing.offload.step import OffloadBackend

    found = plan_offload(info.spec.program, target_on(info, backend), budget, options.gpu_layers, spread=spread)
    if found is None:
        chunk = run_tokens(info, backend, None if budget is None else budget.nbytes)
        made = Placement(info, options, backend, spare, backend, budget=budget, chunk=chunk)
    else:
        cut = cut_program(found.program, found.devices)
        cache = [ExpertCacheBackend()] if found.level.shared else []
        cpu = init_backend(CPU, options.threads)
        both = OffloadBackend([backend, cpu, *cache], cut)
        made = Placement(info, options, both, spare, backend, cpu, found, cut.parts[HOST].program, budget)
    return replace(made, plan=_plan(made, options))


def _plan(placement: Placement, options: LoadOptions, tell: bool = False) -> MemoryPlan:
    """Raises OutOfMemoryError."""
    from lacewing.weights import this_machine

    info, offload = placement.info, placement.offload
    if placement.cpu is None:
        facts = placement.backend.facts()
        found = plan_on_device(
            requirements(info, placement.backend, stored=True, chunk=placement.chunk), facts.name, facts.memory_bytes
        )
        if options.residency == "streamed":
            found = replace(found, reasons=(*found.reasons, "the whole model is on the GPU, so nothing is streamed"))
        return found
    machine = this_machine()
    machine = replace(machine, available_bytes=machine.available_bytes + placement.spare)
    needed = requirements(info, placement.cpu, placement.host, resident=None if offload is None else offload.resident)
    found = plan_or_reason(needed, options, machine) if tell else plan(needed, options, machine)
    if offload is None:
        return found
    rows = [Row("on the GPU", offload.gpu.nbytes, offload.on_gpu, "memory")]
    if placement.budget is not None:
        rows.append(Row("GPU budget", placement.budget.nbytes, placement.budget.source))
    reasons = (*offload.reasons, *(f"on the CPU: {reason}" for reason in found.reasons))
    if found.slots is not None:
        reasons += (_tiers(offload, found),)
    return replace(found, kv_bytes=found.kv_bytes + offload.gpu.kv_bytes, rows=(*rows, *found.rows), reasons=reasons)


def _tiers(offload: OffloadPlan, plan: MemoryPlan) -> str:
    """Of a model whose experts are streamed beside a GPU: where an expert may be."""
    ram = 0 if plan.slots is None else plan.slots.layer
    above = offload.level.resident if offload.level.shared else 0
    left = max(0, offload.experts - above - ram)
    if not above:
        return f"of the {offload.experts} experts of a layer on the CPU {ram} are in RAM and {left} on the disk alone"
    return (
        f"of the {offload.experts} experts of a layer {above} are on the GPU, {ram} in RAM and {left} on the disk alone; "
        "those that are used most are on the GPU, and the CPU computes the others"
    )


def _with_remarks(placement: Placement, remarks: list[str]) -> Placement:
    plan = placement.plan
    return replace(placement, plan=replace(plan, reasons=(*plan.reasons, *remarks)))


def _budget(options: LoadOptions, backend: Backend, freed: int) -> MemoryBudget | None:
    from lacewing.offload.plan import MemoryBudget

    if options.gpu_memory_bytes is not None:
        return MemoryBudget(options.gpu_memory_bytes, "the option `gpu_memory`")
    free = backend.room_bytes()
    if free is None:
        return None
    return MemoryBudget(int(GPU_SHARE * (free + freed)), f"{GPU_SHARE:.0%} of the free memory of {backend.facts().name}")


def _refuse_gpu_options(options: LoadOptions) -> None:
    for name, value in (("`gpu_layers`", options.gpu_layers), ("`gpu_memory`", options.gpu_memory_bytes)):
        if value is not None:
            here = "auto found none for this model" if options.backend == "auto" else f"the backend is {options.backend}"
            raise OptionError(f"{name} is for a GPU, and {here}; leave it out, or use `backend='{GPU}'`")
