"""Changing the model of a session: what can be checked is checked first, and nothing is given up before the new one is ready."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lacewing import hub
from lacewing.api import Model
from lacewing.chat.services.evict import (
    SwapPlan,
    change_residency,
    check_usable,
    drop_stale,
    evicted,
    plan_swap,
    replace_current,
    same_file,
    usable,
)
from lacewing.chat.session.events import Ui
from lacewing.chat.session.formatter import ChatFormatter, open_formatter
from lacewing.chat.session.models import Closed, OnDevice, Parked
from lacewing.chat.session.overflow import Fit, fit
from lacewing.chat.session.session import Session
from lacewing.errors import Cancelled, OptionError
from lacewing.formats.files import checkpoints_in
from lacewing.options import RESIDENCIES, LoadOptions, format_bytes
from lacewing.placement.background import interruptible
from lacewing.placement.info import ModelInfo, open_headers
from lacewing.weights.memory import give_back


@dataclass
class Swap:
    """One change of the model. The steps are methods in the order in which they run.

    Whatever one of them raises, the session keeps its model, or says by type that it is closed; see `evict`.
    """

    session: Session
    name: str
    options: LoadOptions
    notices: list[str] = field(default_factory=list)
    was: str = ""  # residency of the current weights, before they were made lazy for the new ones

    @property
    def ui(self) -> Ui:
        return self.session.ui

    def run(self) -> OnDevice:
        """The new model, with the conversation read."""
        path = self.find()
        info = self.open_header(path)
        formatter = self.open_text(info)
        self.check_history(formatter)
        plan = self.make_room(info)
        with self.shrunk(plan), evicted(self.session, plan.placement, self.notices):
            loaded = OnDevice(formatter, self.name, self.load(info, plan))
            try:
                self.read_history(loaded)
            except BaseException:
                loaded.model.close()
                raise
        self.commit(loaded, plan)
        return loaded

    def find(self) -> Path:
        """The file; fetched now if it is the name of a model that is not here."""
        return hub.path_of(self.name, interruptible(self.ui.progress, self.ui.cancelled))

    def open_header(self, path: Path) -> ModelInfo:
        """Architecture, config and weights are checked by this."""
        return open_headers(path, self.options, self.ui.cancelled)

    def open_text(self, info: ModelInfo) -> ChatFormatter:
        return open_formatter(info, self.notices, self.ui.cancelled)

    def check_history(self, formatter: ChatFormatter) -> None:
        """Check that the conversation can be rendered for this model, before anything is loaded."""
        if self.session.messages:
            self.fit(formatter)

    def fit(self, formatter: ChatFormatter) -> Fit:
        session = self.session
        # a conversation that ends with an answer is read without the markup of the next one
        waiting = session.messages[-1]["role"] == "user"
        return fit(formatter, session.messages, session.settings, None, generation=waiting)

    def make_room(self, info: ModelInfo) -> SwapPlan:
        """How it fits beside the models that are here, or instead of them. Raises OutOfMemoryError."""
        current = self.session.current
        return plan_swap(info, current if isinstance(current, OnDevice) else None, self.session.parked)

    @contextlib.contextmanager
    def shrunk(self, plan: SwapPlan) -> Iterator[None]:
        """The current weights are lazy meanwhile, if that is needed; what they were again if the change fails."""
        current = self.session.current
        if not plan.shrink or isinstance(current, Closed) or current.model.weights.residency == "lazy":
            yield
            return
        model = current.model
        self.was = model.weights.residency
        model.set_residency("lazy", force=True)
        try:
            yield
        except BaseException:
            if self.session.current is current:
                with contextlib.suppress(Exception):  # lazy weights give the same answers
                    model.set_residency(self.was, self.ui.progress, force=True)
            raise

    def load(self, info: ModelInfo, plan: SwapPlan) -> Model:
        info.options = plan.placement.options  # of the memory option what the other models leave
        if plan.drop_current:
            self.notices.append("the memory does not hold both models, so the weights are lazy; /eager reads them into RAM")
            info.options = dataclasses.replace(info.options, residency="lazy")
        return Model(info, self.ui.progress, cancelled=self.ui.cancelled, spare=plan.spare)

    def read_history(self, loaded: OnDevice) -> None:
        """The KV cache of the conversation."""
        read_history(loaded, self.session, self.notices)

    def commit(self, loaded: OnDevice, plan: SwapPlan) -> None:
        """Nothing here fails any more: what cannot be parked is closed."""
        if plan.drop_parked:
            self.session.drop_parked()
        replace_current(self.session, loaded, keep=not plan.drop_current, was=self.was)


def read_history(loaded: OnDevice, session: Session, notices: list[str]) -> None:
    """Make the prompt of the conversation, and run what the KV cache of the model does not hold of it. Raises Cancelled."""
    ui = session.ui
    if not loaded.formatter.sees(session.messages):
        return
    waiting = session.messages[-1]["role"] == "user"
    maker = session.summariser(loaded)
    fitted = fit(loaded.formatter, session.messages, session.settings, maker, generation=waiting)
    engine = loaded.model.engine
    held = engine.held(fitted.ids) == len(fitted.ids)
    if not held and not engine.prefill(fitted.ids, ui.cancelled, ui.progress):
        raise Cancelled("processing the conversation was cancelled; nothing was changed")
    loaded.formatter.history = fitted.history
    notices += fitted.notices


def change_model(session: Session, name: str, **changes: Any) -> list[str]:
    """Bring the session to another model; what a person should know of it. `name` "-" goes back to the last parked one, and the
    short name of a model that is here means that one.

    `changes`: fields of LoadOptions. Raises LacewingError; the session then has the model that it had, or, if that could not
    come back to its device, says that it is closed.
    """
    old = session.current
    if name == "-":
        if not session.parked:
            raise OptionError("no model is parked; /model PATH loads another one")
        target: Parked | None = session.parked[0]
        if not compatible(session.parked[0], changes):
            return change_model(session, session.parked[0].name, **changes)
    else:
        name = named(session, name)
        path = hub.path_of(name, interruptible(session.ui.progress, session.ui.cancelled))
        if isinstance(old, OnDevice) and same_file(old, path) and compatible(old, changes) and usable(old):
            wanted = changes.get("residency")
            return change_residency(session, wanted) if wanted else [f"{name} is the current model"]
        fitting = (each for each in session.parked if same_file(each, path) and compatible(each, changes))
        target = next(filter(usable, fitting), None)
    notices: list[str] = []
    if (choice := old.formatter.choice) != "auto":
        notices.append(f"the template {choice} is still set for {old.short_name} only; /template {choice} sets it here too")
    if target is not None:
        lines = [f"back to {describe(unpark(session, target, changes, notices))}"]
    else:
        options = dataclasses.replace(session.options, **changes, residency_is_default="residency" not in changes)
        loaded = Swap(session, name, options, notices).run()
        drop_stale(session, loaded)
        give_back()  # what opening took for a while lies between what stays
        lines = [f"now {describe(loaded)}", *dict.fromkeys([*loaded.model.plan.reasons, *loaded.model.notices])]
    return [*lines, *notices, *_told_of(session, old)]


def named(session: Session, name: str) -> str:
    """The name or the path of the model that `name` is short for: one that is here, or a file beside the current one, as lists
    and notices show them; else `name`.

    A path that exists, or a name that can be fetched, means itself.
    """
    with contextlib.suppress(OSError):  # what cannot be looked at is told by whoever opens it
        if hub.is_reference(name) or Path(name).exists():
            return name
    beside = {path.name: str(path) for path in checkpoints_in(session.current.info.checkpoint.path.parent)}
    return next((each.name for each in (session.current, *session.parked) if each.short_name == name), beside.get(name, name))


def _told_of(session: Session, old: OnDevice | Closed) -> list[str]:
    """What became of the model before."""
    if isinstance(old, Closed):
        return []
    if any(each.model is old.model for each in session.parked):
        return [f"{old.short_name} is parked, /model - goes back to it"]
    return [f"{old.short_name} could not be parked and was closed"]


def compatible(loaded: OnDevice | Parked, changes: Mapping[str, Any]) -> bool:
    """Whether a model that is here already runs as asked for; its residency can be changed."""
    backend, adapter, context = (changes.get(name) for name in ("backend", "adapter", "context"))
    if backend not in (None, "auto", loaded.model.backend.name) or adapter not in (None, loaded.model.options.adapter):
        return False
    for name in ("gpu_layers", "gpu_memory_bytes"):
        if name in changes and changes[name] != getattr(loaded.model.options, name):
            return False
    return context in (None, loaded.model.spec.context)


def unpark(session: Session, target: Parked, changes: Mapping[str, Any], notices: list[str]) -> OnDevice:
    """Back to a model that is here: only what was said meanwhile is read. If anything fails, it stays parked."""
    check_usable(target)
    loaded = OnDevice(target.formatter, target.name, target.model, target.routing, before_lazy=target.before_lazy)
    read_history(loaded, session, notices)
    wanted = changes.get("residency")
    if wanted in RESIDENCIES[1:] and loaded.model.weights_on_host:
        loaded.model.set_residency(wanted, session.ui.progress, session.ui.cancelled)
    elif target.was != "lazy":
        again = "/eager reads them into RAM again" if target.was == "eager" else "/stream streams its experts again"
        notices.append(f"parking made its weights lazy; {again}")
    session.parked.remove(target)
    replace_current(session, loaded)
    return loaded


def describe(loaded: OnDevice) -> str:
    """A model in a line."""
    model = loaded.model
    return (
        f"{model.spec.name} ({model.spec.architecture}, {format_bytes(model.weights.nbytes)}, {model.weights.residency}, "
        f"{model.backend.name}, context {model.spec.context}, template {loaded.formatter.template.name})"
    )
