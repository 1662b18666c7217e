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
from lacewing.chat.services import memory
from lacewing.chat.services.evict import vacated
from lacewing.chat.session.events import Face
from lacewing.chat.session.formatter import Loaded, Voice, open_voice
from lacewing.chat.session.overflow import Fit, fit
from lacewing.chat.session.session import Session
from lacewing.errors import Cancelled, LacewingError, ModelFormatError, OptionError, OutOfMemoryError
from lacewing.options import LoadOptions, format_bytes
from lacewing.placement.background import interruptible
from lacewing.placement.info import CHUNK, ModelInfo, open_headers
from lacewing.placement.plan import Plan
from lacewing.weights.memory import give_back

MAX_PARKED = 2  # models kept beside the current one


@dataclass(frozen=True)
class Room:
    """How a new model fits: its plan, and what has to be given up for it."""

    plan: Plan
    spare: int  # bytes counted as free that are in use now
    shrink: bool = False  # the current weights become lazy before the new ones are read
    drop_parked: bool = False
    drop_current: bool = False  # the current model cannot be parked


@dataclass
class Swap:
    """One change of the model. The steps are methods in the order in which they run; each leaves the session as it was."""

    session: Session
    name: str
    options: LoadOptions
    notices: list[str] = field(default_factory=list)

    @property
    def face(self) -> Face:
        return self.session.face

    def run(self) -> Loaded:
        """The new model, with the conversation read. Raises LacewingError; the session is then whole."""
        path = self.find()
        opened = self.open_header(path)
        voice = self.open_text(opened)
        self.check_history(voice)
        room = self.make_room(opened)
        with self.shrunk(room), vacated(self.session, opened, self.notices):
            model = self.load(opened, room)
            loaded = Loaded(model, voice, self.name)
            try:
                self.read_history(loaded)
            except BaseException:
                loaded.close()
                raise
        self.commit(loaded, room)
        return loaded

    def find(self) -> Path:
        """The file; fetched now where it is the name of a model that is not here."""
        return path_of(self.name, self.face)

    def open_header(self, path: Path) -> ModelInfo:
        """Architecture, config and weights are checked by this."""
        return open_headers(path, self.options, self.face.cancelled)

    def open_text(self, opened: ModelInfo) -> Voice:
        return open_voice(opened, self.notices, self.face.cancelled)

    def check_history(self, voice: Voice) -> None:
        """Whether the conversation can be told to this model, before anything is loaded."""
        if self.session.messages:
            self.fit(voice, None)

    def fit(self, voice: Voice, loaded: Loaded | None) -> Fit:
        session = self.session
        maker = session.summariser(loaded) if loaded else None
        # a conversation that ends with an answer is read without the markup of the next one
        waiting = session.messages[-1]["role"] == "user"
        return fit(voice, session.messages, session.settings, maker, generation=waiting)

    def make_room(self, opened: ModelInfo) -> Room:
        """How it fits beside, or else instead of, what is here. Raises OutOfMemoryError."""
        return find_room(opened, self.session.loaded, self.session.parked)

    @contextlib.contextmanager
    def shrunk(self, room: Room) -> Iterator[None]:
        """The current weights are lazy meanwhile, where that is needed; eager again if the change fails."""
        loaded = self.session.loaded
        model, before = loaded.model, loaded.model.weights.residency
        if room.shrink and before == "eager":
            model.set_residency("lazy", force=True)
            loaded.was_eager = True
        try:
            yield
        except BaseException:
            loaded.was_eager = False
            if model.weights.residency != before:
                with contextlib.suppress(LacewingError):  # lazy weights answer just the same
                    model.set_residency(before, self.face.progress, force=True)
            raise

    def load(self, opened: ModelInfo, room: Room) -> Model:
        if room.drop_current:
            self.notices.append("there was no room for both models: the weights are lazy, /eager reads them in")
            opened.options = dataclasses.replace(opened.options, residency="lazy")
        return Model(opened, self.face.progress, cancelled=self.face.cancelled, spare=room.spare)

    def read_history(self, loaded: Loaded) -> None:
        """Keys and values of the conversation."""
        read_history(loaded, self.session, self.notices)

    def commit(self, loaded: Loaded, room: Room) -> None:
        """Nothing here fails any more: what cannot be parked is closed."""
        session = self.session
        if room.drop_parked:
            session.drop_parked()
        park(session, session.loaded, keep=not room.drop_current)
        session.loaded = loaded


def path_of(name: str, face: Face) -> Path:
    """The file or folder of a model that a person named; fetched when it is not here. Raises DownloadError, Cancelled."""
    if hub.is_reference(name) and not Path(name).exists() and hub.find(name) is None:
        from lacewing.hub.pull import pull

        return pull(name, interruptible(face.progress, face.cancelled)).path
    return hub.resolve(name)


def read_history(loaded: Loaded, session: Session, notices: list[str]) -> None:
    """Make the prompt of the conversation, and run what the model's slot does not hold of it. Raises Cancelled."""
    face = session.face
    if not loaded.voice.sees(session.messages):
        return
    waiting = session.messages[-1]["role"] == "user"
    maker = session.summariser(loaded)
    fitted = fit(loaded.voice, session.messages, session.settings, maker, generation=waiting)
    engine = loaded.model.engine
    held = engine.held(fitted.ids) == len(fitted.ids)
    if not held and not engine.prefill(fitted.ids, face.cancelled, face.progress):
        raise Cancelled("reading the conversation was cancelled")
    loaded.voice.view = fitted.view
    notices += fitted.notices


def find_room(opened: ModelInfo, current: Loaded, parked: list[Loaded]) -> Room:
    """The first that works: beside all; with lazy current weights; without the parked models; instead of the current one."""
    weights = sum({part.ranges: part.nbytes for part in opened.spec.tensors.values()}.values())
    eager = current.model.weights.anonymous_bytes
    aside = sum(each.model.memory_bytes for each in parked)
    levels: tuple[tuple[int, int, dict[str, bool]], ...] = (
        (0, aside + current.model.memory_bytes, {}),
        (eager, aside + current.model.memory_bytes - eager, {"shrink": True}),
        (eager + aside, current.model.memory_bytes - eager, {"shrink": True, "drop_parked": True}),
        (eager + aside + current.touched_bytes, 0, {"shrink": True, "drop_parked": True, "drop_current": True}),
    )
    found: Room | None = None
    problem: OutOfMemoryError | None = None
    for spare, kept, cost in levels:
        try:
            plan = opened.plan(weights, CHUNK, _within(opened.options, kept), spare)
        except OutOfMemoryError as error:
            problem = error
            continue
        room = Room(plan, spare, **cost)
        if plan.residency == "eager" or opened.options.residency == "lazy" or "drop_parked" in cost:
            return found or room if plan.residency == "lazy" else room
        found = found or room
    if found is None:
        raise problem or OutOfMemoryError("no memory is left")
    return found


def _within(options: LoadOptions, kept: int) -> LoadOptions:
    """The memory option, less what stays in use."""
    if options.memory_bytes is None:
        return options
    left = options.memory_bytes - kept
    if left < 1:
        raise OutOfMemoryError(
            f"of the memory option of {format_bytes(options.memory_bytes)}, the models that are here use {format_bytes(kept)}"
        )
    return dataclasses.replace(options, memory_bytes=left)


def change_model(session: Session, name: str, **changes: Any) -> list[str]:
    """Bring the session to another model; what a person should know of it. `name` "-" goes back to the last parked one.

    `changes`: fields of LoadOptions.
    """
    options = dataclasses.replace(session.options, **changes)
    old = session.loaded
    if name == "-":
        if not session.parked:
            raise OptionError("no model is parked; /model PATH changes to another one")
        target: Loaded | None = session.parked[0]
        if not compatible(session.parked[0], changes):
            return change_model(session, session.parked[0].name, **changes)
    else:
        path = path_of(name, session.face)
        if same_file(old, path) and compatible(old, changes) and usable(old):
            wanted = changes.get("residency")
            return memory.change_residency(session, wanted) if wanted else [f"{name} is the current model"]
        fitting = (each for each in session.parked if same_file(each, path) and compatible(each, changes))
        target = next(filter(usable, fitting), None)
    notices: list[str] = []
    if old.voice.choice != "auto":
        notices.append(
            f"the template {old.voice.choice} stays with {old.short_name}; /template {old.voice.choice} sets it here as well"
        )
    if target is not None:
        unpark(session, target, changes, notices)
        lines = [f"back to {describe(target)}"]
    else:
        work = Swap(session, name, options, notices)
        target = work.run()
        drop_stale(session, target)
        give_back()  # what opening took for a while lies between what stays
        lines = [f"now {describe(target)}", *dict.fromkeys([*target.model.plan.reasons, *target.model.notices])]
    stays = (
        f"{old.short_name} is parked, /model - goes back to it" if old in session.parked else f"{old.short_name} could not be kept"
    )
    return [*lines, *notices, stays]


def compatible(loaded: Loaded, changes: Mapping[str, Any]) -> bool:
    """Whether a model that is here already runs as asked for; its residency can be changed."""
    backend, adapter, context = (changes.get(name) for name in ("backend", "adapter", "context"))
    if backend not in (None, "auto", loaded.model.backend.name) or adapter not in (None, loaded.model.options.adapter):
        return False
    for name in ("gpu_layers", "gpu_memory_bytes"):
        if name in changes and changes[name] != getattr(loaded.model.options, name):
            return False
    return context in (None, loaded.model.spec.context)


def unpark(session: Session, target: Loaded, changes: Mapping[str, Any], notices: list[str]) -> None:
    """Back to a model that is here: only what was said meanwhile is read."""
    check_usable(target)
    read_history(target, session, notices)
    wanted = changes.get("residency")
    if wanted in ("lazy", "eager"):
        target.model.set_residency(wanted, session.face.progress, session.face.cancelled)
    elif target.was_eager:
        notices.append("its weights are lazy since it was parked; /eager reads them in again")
    target.was_eager = False
    session.parked.remove(target)
    park(session, session.loaded, keep=True)
    session.loaded = target


def park(session: Session, loaded: Loaded, keep: bool) -> None:
    """Weights lazy, keys and values kept; or closed, where that fails or is not wanted."""
    keep = keep and loaded.model.on_device
    try:
        if keep:
            loaded.was_eager |= loaded.model.weights.residency == "eager"
            loaded.model.set_residency("lazy", force=True, reason="it was parked")
            loaded.model.weights.release()
    except LacewingError:
        keep = False
    if not keep:
        loaded.close()
        return
    session.parked.insert(0, loaded)
    while len(session.parked) > MAX_PARKED:
        session.parked.pop().close()


def describe(loaded: Loaded) -> str:
    """A model in a line."""
    model = loaded.model
    return (
        f"{model.spec.name} ({model.spec.architecture}, {format_bytes(model.weights.nbytes)}, {model.weights.residency}, "
        f"{model.backend.name}, context {model.spec.context}, template {loaded.voice.template.name})"
    )


def same_file(loaded: Loaded, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return loaded.model.path.samefile(path)
    return False


def usable(loaded: Loaded) -> bool:
    """Whether the file of a model is still what it was opened from; eager weights too are of the file that was."""
    with contextlib.suppress(ModelFormatError):
        loaded.model.weights.check_files(eager=True)
        return True
    return False


def drop_stale(session: Session, opened: Loaded) -> None:
    """Let go of parked models whose file has become the one that was opened now."""
    for each in [each for each in session.parked if same_file(each, opened.model.path) and not usable(each)]:
        session.parked.remove(each)
        each.close()


def check_usable(loaded: Loaded) -> None:
    """Raise ModelFormatError if a parked model's file has changed since."""
    try:
        loaded.model.weights.check_files()
    except ModelFormatError as error:
        raise ModelFormatError(loaded.model.path, f"{error.problem} (give its path to /model again)") from None
