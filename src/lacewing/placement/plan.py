"""The memory plan: what goes where within a memory budget. A pure function, with its reasons and a table to show.

The budget is for weights, KV cache and buffers; the interpreter and its libraries come on top.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lacewing.errors import OptionError, OutOfMemoryError
from lacewing.options import LoadOptions, bytes_at_least, format_bytes
from lacewing.weights.experts.expected import even_bytes
from lacewing.weights.experts.source import LayerSlots, SlotCount, least_slots, slots_within
from lacewing.weights.machine import Machine

AUTO_SHARE = 0.8  # of what is free may be filled without being asked to
_WHERE = {
    "eager": "RAM (eager)",
    "lazy": "mapped from the file (lazy)",
    "streamed": "RAM except experts, which are read as the router selects them (streamed)",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: what, bytes, and where or why."""

    name: str
    nbytes: int
    note: str
    decides: str = ""  # "memory": what must fit; "speed": what a token waits for


@dataclass(frozen=True)
class MemoryRequirements:
    """Bytes of a model, known from its headers. `active_bytes` are the weights read for one token.

    `expert_bytes`: of all weights those that a router chooses from; `active_expert_bytes`: those of the chosen experts.
    `copied_bytes`: of copies that the CPU makes of some weights, wherever these are. `mixtures`: those that can be streamed.
    `table_bytes`: beside the weights, of tables that stay in their files. `by_row_bytes`: RAM that streaming saves since it leaves
    matrices on the disk of which a token reads a row.
    """

    weight_bytes: int
    active_bytes: int
    kv_bytes: int
    buffer_bytes: int
    expert_bytes: int = 0
    active_expert_bytes: int = 0
    copied_bytes: int = 0
    mixtures: tuple[LayerSlots, ...] = ()
    table_bytes: int = 0
    by_row_bytes: int = 0

    @property
    def trunk_bytes(self) -> int:
        """Weights that streaming keeps in RAM."""
        return self.weight_bytes - sum(layer.stack_bytes for layer in self.mixtures) - self.by_row_bytes

    @property
    def fixed_bytes(self) -> int:
        """RAM that does not depend on where weights are."""
        return self.kv_bytes + self.buffer_bytes + self.copied_bytes

    @property
    def device_bytes(self) -> int:
        """All of it in the memory of a GPU."""
        return self.kv_bytes + self.buffer_bytes + self.weight_bytes

    def streamed_bytes(self, room: int) -> int:
        """Weights that come from the disk for each token, on the average, when `room` bytes of weights can stay in memory.

        What every token reads stays first; of the experts, which are taken to be used alike, stays what then has room. For the
        part that is read in turn from beginning to end this is the least there can be: a cache that forgets the oldest does worse.
        """
        always = self.active_bytes - self.active_expert_bytes
        if room <= always or not self.expert_bytes:
            return max(0, self.active_bytes - room) if room < self.weight_bytes else 0
        missing = max(0, self.expert_bytes - (room - always))
        return self.active_expert_bytes * missing // self.expert_bytes


@dataclass(frozen=True)
class MemoryPlan:
    """The decision. `needed_bytes` is RAM; lazy weights count as the system's cache, not as ours. `kv_bytes`: of
    one sequence of the whole context."""

    residency: str
    needed_bytes: int
    budget_bytes: int
    kv_bytes: int
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]
    slots: SlotCount | None = None  # of streamed experts
    mixtures: tuple[LayerSlots, ...] = ()  # that these are of

    def instead(self, residency: str, reason: str) -> MemoryPlan:
        """With another residency, whatever the budget says."""
        found = {row.name: row.nbytes for row in self.rows}
        in_ram = found["weights"] if self.residency == "eager" else found.get("trunk", 0) + found.get("slots", 0)
        needed = self.needed_bytes - in_ram + (found["weights"] if residency == "eager" else 0)
        notes = {"weights": _WHERE[residency]}
        rows = tuple(
            replace(row, nbytes=needed if row.name == "needed" else row.nbytes, note=notes.get(row.name, row.note))
            for row in self.rows
            if row.name not in ("resident", "streamed", "trunk", "embedding", "slots")  # which were for the other one
        )
        return replace(self, residency=residency, needed_bytes=needed, rows=rows, reasons=(reason,), slots=None, mixtures=())


def plan(needs: MemoryRequirements, options: LoadOptions, machine: Machine) -> MemoryPlan:
    """Choose the residency.

    Raises OutOfMemoryError if KV cache and buffers alone exceed the budget, or eager or streamed weights that were asked for do;
    OptionError for streamed weights of a model, or on a backend, that has none.
    """
    if options.residency == "streamed" and not needs.mixtures:
        raise OptionError(
            "only mixtures of experts are streamed, as far as the CPU computes their experts; "
            "choose `residency='lazy'` or `residency='eager'`"
        )
    budget, source = _budget(options, machine)
    fixed = needs.fixed_bytes
    if least_bytes(needs, options) > budget:
        raise OutOfMemoryError(_refusal(needs, options, machine))
    slots = _slots(needs, options, budget)
    residency, reason = _choose(needs, slots, budget, source, options)
    reasons = [reason]
    if residency == "lazy" and fixed + needs.active_bytes > budget:
        active = format_bytes(needs.active_bytes)
        reasons.append(f"a token reads {active} of weights, more than can stay in memory: the disk sets the speed")
    if residency != "streamed":
        slots = None
    in_ram = needs.trunk_bytes + slots.nbytes if slots else needs.weight_bytes if residency == "eager" else 0
    rows = _rows(needs, residency, fixed + in_ram, budget, source, slots)
    streamed = needs.mixtures if slots is not None else ()
    return MemoryPlan(residency, fixed + in_ram, budget, needs.kv_bytes, rows, tuple(reasons), slots, streamed)


def least_bytes(needs: MemoryRequirements, options: LoadOptions) -> int:
    """RAM below which `plan` refuses."""
    if options.residency == "eager":
        return needs.fixed_bytes + needs.weight_bytes
    if options.residency == "streamed" and needs.mixtures:
        return needs.fixed_bytes + needs.trunk_bytes + least_slots(needs.mixtures).nbytes
    return needs.fixed_bytes


def _refusal(needs: MemoryRequirements, options: LoadOptions, machine: Machine) -> str:
    """What is needed, what there is, and what would do."""
    least, (budget, source) = least_bytes(needs, options), _budget(options, machine)
    instead = ["a smaller context"]
    if options.residency == "eager":
        problem = f"eager weights need {format_bytes(least)} in all"
        lazy = "`residency='lazy'`, which pages the weights in from the file"
        instead = [lazy] if needs.fixed_bytes <= budget else instead
    elif options.residency == "streamed":
        problem = f"streaming needs {format_bytes(least)} at least, for what every token reads and the experts of one token"
        instead += ["`residency='lazy'`"] if needs.fixed_bytes <= budget else []
    else:
        keys, buffers = format_bytes(needs.kv_bytes), format_bytes(needs.buffer_bytes + needs.copied_bytes)
        problem = f"the KV cache ({keys}) and buffers ({buffers}) need {format_bytes(least)}"
    size = bytes_at_least(least)
    more = f"allow `memory='{size}'`" if least <= machine.available_bytes else f"make {size} of memory free"
    return f"{problem}, but {source} gives {format_bytes(budget)}; choose {', '.join(instead)}, or {more}"


def _slots(needs: MemoryRequirements, options: LoadOptions, budget: int) -> SlotCount | None:
    """That the budget has room for; None: too few, or the experts are not streamed."""
    if not needs.mixtures:
        return None
    share = 1.0 if options.residency == "streamed" or options.memory_bytes == budget else AUTO_SHARE
    return slots_within(needs.mixtures, int(budget * share) - needs.fixed_bytes - needs.trunk_bytes)


def plan_or_reason(needs: MemoryRequirements, options: LoadOptions, machine: Machine) -> MemoryPlan:
    """`plan` for people who only want to know: what cannot be is no error, but the residency "none" with the reason."""
    try:
        return plan(needs, options, machine)
    except OutOfMemoryError as error:
        budget, source = _budget(options, machine)
        needed = least_bytes(needs, options)
        return MemoryPlan(
            "none", needed, budget, needs.kv_bytes, _rows(needs, "lazy", needed, budget, source), (f"it does not fit: {error}",)
        )


def plan_on_device(needs: MemoryRequirements, device: str, memory_bytes: int | None) -> MemoryPlan:
    """Everything in the memory of a GPU (None: of unknown size); the file is mapped while weights are brought there.

    Raises OutOfMemoryError if the GPU's whole memory is too small.
    """
    needed = needs.device_bytes
    if memory_bytes is not None and needed > memory_bytes:
        raise OutOfMemoryError(
            f"the model takes {format_bytes(needed)}, and {device} has {format_bytes(memory_bytes)}; "
            "choose a smaller context, a smaller quant or the CPU"
        )
    there = f"memory of {device}"
    rows = (
        Row("weights", needs.weight_bytes, there, "memory"),
        *_tables(needs),
        Row("active weights", needs.active_bytes, "read for each token", "speed"),
        Row("KV cache", needs.kv_bytes, there, "memory"),
        Row("buffers", needs.buffer_bytes, there),
        Row("needed", needed, f"{there} in all", "memory"),
        Row("budget", memory_bytes or needed, there if memory_bytes else f"{there}, whose size is not known"),
    )
    return MemoryPlan(
        "lazy", needed, memory_bytes or needed, needs.kv_bytes, rows, (f"weights are copied to {device}; the file is only mapped",)
    )


def _rows(
    needs: MemoryRequirements, residency: str, needed: int, budget: int, source: str, slots: SlotCount | None = None
) -> tuple[Row, ...]:
    """The table: weights in all and for a token, how much of them stays in memory and how much does not, then all else."""
    if slots is not None:
        resident = sum(min(slots.layer, layer.experts) * layer.stack_bytes // layer.experts for layer in needs.mixtures)
        room, streamed = needs.trunk_bytes + resident, even_bytes(needs.mixtures, slots)
    else:
        room = needs.weight_bytes if residency == "eager" else max(0, min(needs.weight_bytes, budget - needs.fixed_bytes))
        streamed = 0 if residency == "eager" else needs.streamed_bytes(room)
    rows = [Row("weights", needs.weight_bytes, _WHERE[residency], "memory"), *_tables(needs)]
    if needs.expert_bytes:
        rows.append(Row("experts", needs.expert_bytes, "of these weights; a router chooses some for each token"))
    rows.append(Row("active weights", needs.active_bytes, "read for each token", "speed"))
    if needs.expert_bytes:
        rows.append(Row("active experts", needs.active_expert_bytes, "of these weights; the chosen ones"))
    alike = ", if all experts are used alike" if needs.expert_bytes else ""
    disk = f"from the disk for each token{alike}" if streamed else "nothing comes from the disk once it has been read"
    return (
        *rows,
        *_slot_rows(needs, slots),
        Row("resident", room, "weights that can stay in memory" if residency == "lazy" else "weights in memory"),
        Row("streamed", streamed, disk, "speed" if streamed else ""),
        Row("KV cache", needs.kv_bytes, "RAM", "memory"),
        Row("buffers", needs.buffer_bytes, "RAM"),
        *([Row("copies", needs.copied_bytes, "RAM; weights that are read across their rows")] if needs.copied_bytes else ()),
        Row("needed", needed, "RAM in all", "memory"),
        Row("budget", budget, source),
    )


def _slot_rows(needs: MemoryRequirements, slots: SlotCount | None) -> tuple[Row, ...]:
    if slots is None:
        return ()
    most = max(layer.experts for layer in needs.mixtures)
    shared = f"and {slots.shared} for what passes through"
    return (
        Row("trunk", needs.trunk_bytes, "of these weights; what every token reads, in RAM"),
        *([Row("embedding", needs.by_row_bytes, "stays on the disk; a token reads a row")] if needs.by_row_bytes else ()),
        Row("slots", slots.nbytes, f"RAM for {slots.layer} of {most} experts of each layer, {shared}", "memory"),
    )


def _tables(needs: MemoryRequirements) -> tuple[Row, ...]:
    return (Row("tables", needs.table_bytes, "mapped from the file; a token reads a row"),) if needs.table_bytes else ()


def _budget(options: LoadOptions, machine: Machine) -> tuple[int, str]:
    """Bytes, and what sets them."""
    if options.memory_bytes is not None and options.memory_bytes <= machine.available_bytes:
        return options.memory_bytes, "the memory option"
    return machine.available_bytes, machine.bound_by


def _choose(needs: MemoryRequirements, slots: SlotCount | None, budget: int, source: str, options: LoadOptions) -> tuple[str, str]:
    """Residency and the reason for it."""
    if options.residency != "auto":
        return options.residency, f"{options.residency}: asked for"
    weight_bytes, active_bytes, fixed = needs.weight_bytes, needs.active_bytes, needs.fixed_bytes
    share = 1.0 if options.memory_bytes == budget else AUTO_SHARE
    total, room = format_bytes(fixed + weight_bytes), format_bytes(budget * share)
    part = "" if share == 1 else f"{share:.0%} of "
    if slots is not None and fixed + weight_bytes > budget * share:
        return "streamed", f"streamed: everything would take {total}, but {part}{source} is {room}"
    if 2 * active_bytes <= weight_bytes and 2 * weight_bytes > budget:  # a mixture of experts: most weights rest most of the time
        return "lazy", (
            f"lazy: of {format_bytes(weight_bytes)} a token reads {format_bytes(active_bytes)}, "
            f"and all of it would take more than half of what {source} gives ({format_bytes(budget)})"
        )
    if fixed + weight_bytes <= budget * share:
        return "eager", f"eager: everything takes {total}, and {part}{source} is {room}"
    return "lazy", f"lazy: everything would take {total}, but {part}{source} is {room}"
