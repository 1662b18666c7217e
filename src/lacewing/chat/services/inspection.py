"""What can be looked at while nothing is changed: the memory, the context, the prompt, and the answers and logits of others.

`verify`: residencies must agree bit by bit. Other backends round elsewhere: they may differ by `LIMIT` of the range of the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from lacewing import hub
from lacewing.api import Model
from lacewing.backends import known_backends
from lacewing.chat.services.evict import same_file
from lacewing.chat.services.swap import named
from lacewing.chat.session.formatter import VisibleHistory, open_formatter
from lacewing.chat.session.models import OnDevice, Parked
from lacewing.chat.session.overflow import fit
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import CPU_OPTIONS, Message
from lacewing.console.output import Columns
from lacewing.errors import (
    BackendError,
    Cancelled,
    LacewingError,
    NumericError,
    OptionError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from lacewing.options import counted, format_bytes
from lacewing.placement.background import interruptible
from lacewing.placement.info import open_headers
from lacewing.weights import this_machine
from lacewing.weights.machine import process_bytes

LIMIT = 0.05  # of the range, from the smallest to the largest logit
_TOKENS = 16
Row = tuple[str, str, str, str]  # setup, largest difference, likeliest tokens in common, verdict
_SHOWN = 20_000  # characters of a prompt


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
    form = formatter.format
    stops = [formatter.tokenizer.token_text(token) for token in sorted(form.stop_ids)] + [repr(stop) for stop in form.stops]
    return (
        f"{text}\n---\n{counted(len(ids), 'token')}, the first {kept} in the KV cache; template {formatter.template.name}, "
        f"stops at {', '.join(stops) or 'nothing'}"
    )


def compare(chat: Session, name: str, text: str | None) -> Columns:
    """Both answers. Raises what `/model` raises, and Cancelled."""
    messages, left = list(chat.messages), None
    if text is not None:
        messages.append({"role": "user", "content": text})
    else:
        while messages and messages[-1]["role"] != "user":
            left = str(messages.pop()["content"])
    if not messages:
        raise OptionError("there is no message to compare; send one first, or give a text")
    right, about = _other(chat, name, messages)
    heading = chat.loaded.short_name
    if left is None:
        left, speed = _answer(chat, chat.loaded, messages)
        heading += f" ({speed:.1f} tokens/s)"
    return Columns((heading, about), (left, right))


def _other(chat: Session, name: str, messages: list[Message]) -> tuple[str, str]:
    """The other model's answer, and its name with its speed. As for `/model`, "-" is the last one that was parked."""
    if name == "-":
        if not chat.parked:
            raise OptionError("no model is parked; /compare PATH asks another one")
        return _told(chat, chat.parked[0], messages)
    path = hub.path_of(named(chat, name), interruptible(chat.ui.progress, chat.ui.cancelled))
    parked = next((each for each in chat.parked if same_file(each, path)), None)
    if parked is not None:
        return _told(chat, parked, messages)
    opened = open_headers(path, dataclasses.replace(chat.options, residency="lazy"), chat.ui.cancelled)
    formatter = open_formatter(opened, [], chat.ui.cancelled)
    fit(formatter, messages, chat.settings, None)
    with Model(opened, chat.ui.progress, cancelled=chat.ui.cancelled) as model:
        return _told(chat, OnDevice(formatter, name, model), messages)


def _told(chat: Session, loaded: OnDevice | Parked, messages: list[Message]) -> tuple[str, str]:
    text, speed = _answer(chat, loaded, messages)
    return text, f"{loaded.short_name} ({speed:.1f} tokens/s)"


def _answer(chat: Session, loaded: OnDevice | Parked, messages: list[Message]) -> tuple[str, float]:
    """Text without thoughts, and tokens/s. Raises Cancelled when nothing came."""
    formatter, ui = loaded.formatter, chat.ui
    ids = fit(formatter, messages, chat.settings, None).ids
    answer = formatter.answer(loaded.model, ids, chat.settings, ui.cancelled, ui.progress)
    text = "".join(answer)
    if answer.finish_reason == "cancelled":
        raise Cancelled("the comparison was cancelled")
    return text, answer.stats.generate_rate


def verify(chat: Session) -> list[Row]:
    """A row for each setup. The current model is only looked at. Raises Cancelled."""
    ids = _ids(chat)
    backend = chat.model.backend.name
    rows: list[Row] = []
    with _open(chat, backend) as model:
        model.step.keep_experts()
        base, first = model.logits(ids), f"{backend}, lazy" if model.weights_on_host else backend
        rows.append((first, "", f"{len(ids)} of {len(ids)}", "the reference for the others"))
        rows.append(_row(f"{first} again", base, model.logits(ids), exact=True))
        for residency in _residencies(model):
            rows.append(_resident(chat, model, residency, ids, base))
    for name in known_backends():
        if name != backend:
            rows.append(_backend(chat, name, ids, base))
    return rows


def _ids(chat: Session) -> list[int]:
    """The last tokens that the model has seen, or some that any vocabulary has."""
    vocabulary = chat.model.spec.vocab_size
    seen = chat.model.engine.cached[-_TOKENS:]
    return seen if len(seen) == _TOKENS else [(7 * at * at + 11 * at + 3) % vocabulary for at in range(_TOKENS)]


def _open(chat: Session, backend: str) -> Model:
    changes: dict[str, Any] = {} if backend == chat.model.backend.name else dict(CPU_OPTIONS)
    changes |= {"backend": backend, "residency": "lazy", "context": 2 * _TOKENS}
    options = dataclasses.replace(chat.options, **changes)
    opened = open_headers(chat.model.path, options, chat.ui.cancelled, warm=False)
    return Model(opened, chat.ui.progress, cancelled=chat.ui.cancelled)


def _residencies(model: Model) -> tuple[str, ...]:
    """Those besides lazy: none if all weights are on a GPU; experts are streamed where the CPU computes some."""
    if not model.weights_on_host:
        return ()
    return ("streamed", "eager") if model.weights.can_stream else ("eager",)


def _resident(chat: Session, model: Model, residency: str, ids: list[int], base: Any) -> Row:
    name = f"{model.backend.name}, {residency}"
    try:
        model.set_residency(residency, chat.ui.progress, chat.ui.cancelled)
    except OutOfMemoryError as error:
        return name, "", "", f"skipped: {error}"
    return _row(name, base, model.logits(ids), exact=True)


def _backend(chat: Session, name: str, ids: list[int], base: Any) -> Row:
    try:
        with _open(chat, name) as model:
            return _row(name, base, model.logits(ids), exact=False)
    except (BackendError, UnsupportedModelError, OutOfMemoryError) as error:
        return name, "", "", f"not available: {error}"
    except NumericError as error:
        return name, "", "", f"FAILED, please report this: {error}"


def _row(name: str, base: Any, other: Any, *, exact: bool) -> Row:
    largest = float(abs(base - other).max())
    share = largest / (float(base.max() - base.min()) or 1.0)
    same = int((base.argmax(1) == other.argmax(1)).sum())
    if exact:
        verdict = "bitwise equal" if base.tobytes() == other.tobytes() else "DIFFERENT: please report this"
    else:
        agrees = share <= LIMIT  # False for NaN
        verdict = f"agrees, within {LIMIT:.0%} of the range" if agrees else f"FAR OFF, over {LIMIT:.0%}: please report this"
    return name, f"{largest:.3g} ({share:.2%} of the range)", f"{same} of {len(base)}", verdict
