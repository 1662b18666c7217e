"""What fills the memory and the context, the prompt as it is, and lazy or eager weights, changed while the model runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from lacewing.chat.session.formatter import VisibleHistory
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.errors import LacewingError, OptionError, OutOfMemoryError
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


def memory_rows(chat: Session) -> Iterator[tuple[str, str, str]]:
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


_SHOWN = 20_000  # characters of a prompt


def context_rows(chat: Session) -> list[tuple[str, str, str]]:
    """(what, tokens, share of the context), as the next answer finds it: what the policy is about to hide is hidden."""
    formatter, history = chat.formatter, next_history(chat)
    system, rest = count(chat, history)
    left = formatter.context - system - rest
    reserve = min(chat.settings.reserve(formatter.context), max(left, 0))
    found = [
        ("system", system),
        ("history", rest),
        ("reserved for the answer", reserve),
        ("free", max(left - reserve, 0)),
        ("context", formatter.context),
    ]
    lines = [(name, f"{tokens:,}", f"{tokens / formatter.context:.1%}") for name, tokens in found]
    if left <= 0:
        remedy = "/context drop-oldest, /context summarise or /clear makes room"
        if chat.settings.overflow != "stop":  # the policy cannot help: the rest has to be visible
            remedy = "a shorter system message or last message, or /clear, makes room"
        lines.append(("too many for an answer", f"{1 - left:,}", remedy))
    if history.hidden:
        done = "summarised" if history.summary else "dropped"
        if history != formatter.history:
            done = "by the next answer, which summarises them" if chat.settings.overflow == "summarise" else "by the next answer"
        lines.append((f"hidden from the model: {counted(history.hidden, 'message')}", "", done))
    return lines


def next_history(chat: Session) -> VisibleHistory:
    """What the model will see of the conversation; unchanged if nothing fits."""
    formatter = chat.formatter
    if not formatter.sees(chat.messages):
        return formatter.history
    try:
        return fit(formatter, chat.messages, chat.settings, None).history
    except LacewingError:
        return formatter.history


def count(chat: Session, history: VisibleHistory) -> tuple[int, int]:
    """Tokens of system message, summary and instructions, and tokens of the rest of the prompt."""
    formatter, settings = chat.formatter, chat.settings
    plain = dataclasses.replace(settings, system=None, code=False)
    shown = chat.messages[history.hidden :]
    try:
        if not shown:
            return _length(formatter.visible([], settings, dataclasses.replace(history, hidden=0)), chat), 0
        whole = len(formatter.ids(chat.messages, settings, history=history))
        rest = len(formatter.ids(chat.messages, plain, history=VisibleHistory(history.hidden)))
    except LacewingError:  # the template refuses it
        return _length(formatter.visible([], settings, dataclasses.replace(history, hidden=0)), chat), _length(shown, chat)
    return max(whole - rest, 0), min(rest, whole)


def _length(messages: list[dict[str, str]], chat: Session) -> int:
    return sum(len(chat.formatter.tokenizer.encode(each["content"])) for each in messages)


def prompt(chat: Session) -> str:
    """The prompt with its control tokens, and facts about it."""
    if not chat.formatter.sees(chat.messages):
        raise OptionError("the model has not seen anything of the conversation yet; send a message first")
    formatter, engine = chat.formatter, chat.model.engine
    ids = fit(formatter, chat.messages, chat.settings, None).ids
    kept = engine.held(ids)
    text = formatter.tokenizer.decode(ids, special=True)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN // 2]}\n[...]\n{text[-_SHOWN // 2 :]}"
    stops = [formatter.tokenizer.token_text(token) for token in sorted(formatter.stop_ids)] + [
        repr(stop) for stop in formatter.stops
    ]
    return (
        f"{text}\n---\n{counted(len(ids), 'token')}, the first {kept} in the KV cache; template {formatter.template.name}, "
        f"stops at {', '.join(stops) or 'nothing'}"
    )
