"""What goes where within a memory budget: a pure function, with its reasons and a table to show.

The budget is for weights, keys and values, and buffers; the interpreter and its libraries come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

from lacewing.errors import OutOfMemoryError
from lacewing.options import LoadOptions, format_bytes
from lacewing.weights.machine import Machine

AUTO_SHARE = 0.8  # of what is free may be filled without being asked to
_WHERE = {"eager": "own memory (eager)", "lazy": "mapped from the file (lazy)"}


@dataclass(frozen=True)
class Row:
    """One line of the table: what, bytes, and where or why."""

    name: str
    nbytes: int
    note: str


@dataclass(frozen=True)
class Plan:
    """The decision. `needed_bytes` is memory of our own; lazy weights count as the system's cache, not as ours."""

    residency: str
    needed_bytes: int
    budget_bytes: int
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]

    def instead(self, residency: str, reason: str) -> Plan:
        """With another residency, whatever the budget says."""
        weights = next(row.nbytes for row in self.rows if row.name == "weights")
        eager = (residency == "eager") - (self.residency == "eager")
        needed, notes = self.needed_bytes + eager * weights, {"weights": _WHERE[residency]}
        rows = tuple(
            Row(row.name, needed if row.name == "needed" else row.nbytes, notes.get(row.name, row.note)) for row in self.rows
        )
        return Plan(residency, needed, self.budget_bytes, rows, (reason,))


def plan(weight_bytes: int, active_bytes: int, kv_bytes: int, buffer_bytes: int, options: LoadOptions, machine: Machine) -> Plan:
    """Choose the residency. `active_bytes` are the weights read for one token.

    Raises OutOfMemoryError if keys, values and buffers alone exceed the budget, or eager weights that were asked for do.
    """
    budget, source = _budget(options, machine)
    fixed = kv_bytes + buffer_bytes
    if fixed > budget:
        raise OutOfMemoryError(
            f"keys and values ({format_bytes(kv_bytes)}) and buffers ({format_bytes(buffer_bytes)}) need {format_bytes(fixed)}, "
            f"but {source} gives {format_bytes(budget)}; choose a smaller context, or allow more memory"
        )
    if options.residency == "eager" and fixed + weight_bytes > budget:
        raise OutOfMemoryError(
            f"eager weights need {format_bytes(fixed + weight_bytes)} in all, but {source} gives {format_bytes(budget)}; "
            "choose residency lazy, which pages the weights in from the file, or allow more memory"
        )
    residency, reason = _choose(weight_bytes, active_bytes, fixed, budget, source, options)
    reasons = [reason]
    if residency == "lazy" and fixed + active_bytes > budget:
        active = format_bytes(active_bytes)
        reasons.append(f"a token reads {active} of weights, more than can stay in memory: the disk sets the speed")
    needed = fixed + (weight_bytes if residency == "eager" else 0)
    rows = (
        Row("weights", weight_bytes, _WHERE[residency]),
        Row("active weights", active_bytes, "read for each token"),
        Row("keys and values", kv_bytes, "own memory"),
        Row("buffers", buffer_bytes, "own memory"),
        Row("needed", needed, "own memory in all"),
        Row("budget", budget, source),
    )
    return Plan(residency, needed, budget, rows, tuple(reasons))


def _budget(options: LoadOptions, machine: Machine) -> tuple[int, str]:
    """Bytes, and what sets them."""
    if options.memory_bytes is not None and options.memory_bytes <= machine.available_bytes:
        return options.memory_bytes, "the memory option"
    return machine.available_bytes, machine.bound_by


def _choose(weight_bytes: int, active_bytes: int, fixed: int, budget: int, source: str, options: LoadOptions) -> tuple[str, str]:
    """Residency and the reason for it."""
    if options.residency != "auto":
        return options.residency, f"{options.residency}: asked for"
    share = 1.0 if options.memory_bytes == budget else AUTO_SHARE
    if 2 * active_bytes <= weight_bytes and 2 * weight_bytes > budget:  # a mixture of experts: most weights rest most of the time
        return "lazy", (
            f"lazy: of {format_bytes(weight_bytes)} a token reads {format_bytes(active_bytes)}, "
            f"and all of it would take more than half of what {source} gives ({format_bytes(budget)})"
        )
    total, room = format_bytes(fixed + weight_bytes), format_bytes(budget * share)
    part = "" if share == 1 else f"{share:.0%} of "
    if fixed + weight_bytes <= budget * share:
        return "eager", f"eager: everything takes {total}, and {part}{source} is {room}"
    return "lazy", f"lazy: everything would take {total}, but {part}{source} is {room}"
