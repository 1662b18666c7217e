"""What is where in memory, and lazy or eager weights of the current model, changed while it runs."""

from __future__ import annotations

from collections.abc import Iterator

from lacewing.chat.session.session import Session
from lacewing.errors import OptionError, OutOfMemoryError
from lacewing.options import counted, format_bytes
from lacewing.weights import this_machine
from lacewing.weights.machine import process_bytes


def change_residency(session: Session, wanted: str, force: bool = False) -> list[str]:
    """What changed, in lines; nothing does if all weights are on a GPU.

    Raises OutOfMemoryError, Cancelled; the old residency is then still there.
    """
    if wanted not in ("lazy", "eager"):
        raise OptionError(f"residency is {wanted!r}; it must be lazy or eager")
    model, ui = session.model, session.ui
    if not model.weights_on_host:
        return [f"the weights are on {model.backend.facts().name}; lazy and eager are about weights in RAM, so nothing was read"]
    before = model.weights.residency
    if before == wanted:
        return [f"the weights are already {wanted}"]
    held = model.memory_bytes
    try:
        model.set_residency(wanted, ui.progress, ui.cancelled, force=force)
    except OutOfMemoryError as error:
        raise OutOfMemoryError(f"{error}; nothing was changed (/eager --force tries it anyway)") from None
    return [
        f"weights {before} -> {wanted}; RAM {format_bytes(held)} -> {format_bytes(model.memory_bytes)}",
        _speed(session, before, wanted),
        "the conversation and its KV cache are kept; answers are bitwise the same",
    ]


def _speed(session: Session, before: str, wanted: str) -> str:
    """What is known of the speed to expect."""
    model = session.model
    known = session.rates.get((str(model.path), wanted))
    if known:
        return f"expected speed: {known:.1f} tokens/s, as measured before with {wanted} weights"
    measured = session.rates.get((str(model.path), before))
    now = f"{measured:.1f} tokens/s, as with {before} weights" if measured else "about the same"
    if wanted == "eager":
        return f"expected speed: {now} or better: no page is read from the disk, and their order in memory may be better"
    if model.spec.active_bytes > this_machine().available_bytes:
        return f"expected speed: that of the disk, because a token reads {format_bytes(model.spec.active_bytes)} of weights"
    return f"expected speed: {now} or somewhat less, while the system keeps the file in its cache"


def table(chat: Session) -> Iterator[tuple[str, str, str]]:
    """(what, bytes, note)"""
    model = chat.model
    for row in model.plan.rows:
        yield row.name, format_bytes(row.nbytes), row.note
    yield "weights now", format_bytes(model.weights.anonymous_bytes), f"RAM ({model.weights.residency})"
    yield "KV cache", format_bytes(model.step.state_bytes), f"{len(model.engine.cached)} of {model.spec.context} tokens used"
    for each in chat.parked:
        yield (
            f"parked: {each.short_name}",
            format_bytes(each.touched_bytes),
            f"{counted(len(each.model.engine.cached), 'token')} in its KV cache",
        )
    machine = this_machine()
    yield "process", format_bytes(process_bytes()), "resident, including mapped pages and libraries"
    yield "still free", format_bytes(machine.available_bytes), machine.bound_by
    for reason in model.plan.reasons:
        yield "", "", reason
