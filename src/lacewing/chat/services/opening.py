"""Which models are here; opening a session with one, and going on with it on the CPU if a GPU fails during an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

from lacewing import hub
from lacewing.api import Model
from lacewing.chat.client.connection import Connection
from lacewing.chat.services import files, swap, templates
from lacewing.chat.services.evict import plan_swap
from lacewing.chat.session.conversation import Conversation
from lacewing.chat.session.events import Ui
from lacewing.chat.session.models import Closed, OnDevice
from lacewing.chat.session.remote import RemoteSession
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import CPU_OPTIONS, Settings
from lacewing.errors import BackendError, Cancelled, LacewingError, OptionError, OutOfMemoryError
from lacewing.formats.files import checkpoints_in
from lacewing.options import LoadOptions, Sampling, format_bytes
from lacewing.placement.background import interruptible
from lacewing.placement.info import ModelInfo, open_headers
from lacewing.weights.memory import keep_large_blocks_apart


@dataclass(frozen=True)
class Beginning:
    """What a chat begins with: a system message, a template, files in front of the first message, a saved conversation."""

    system: str | None = None
    template: str | None = None
    attachments: tuple[str, ...] = ()
    load: str | None = None


def open_session(
    name: str,
    options: LoadOptions,
    sampling: Sampling | None = None,
    ui: Ui | None = None,
    first: Beginning | None = None,
) -> Session:
    """A session with a model, which is fetched when it is a name that is not here. Raises LacewingError."""
    ui, first = ui or Ui(), first or Beginning()
    if first.load is not None:
        files.check(first.load)  # before the model: a name may be mistyped
    keep_large_blocks_apart()
    path = hub.path_of(name, interruptible(ui.progress, ui.cancelled))
    model = Model(open_headers(path, options, ui.cancelled), ui.progress, cancelled=ui.cancelled)
    try:
        session = Session(model, Settings(sampling or Sampling()), ui=ui, name=name)
        _begin(session, first)
    except BaseException:
        model.close()
        raise
    session.options = options
    session.fall_back = partial(fall_back, session)
    return session


def open_remote(
    connection: Connection, name: str | None, sampling: Sampling | None = None, ui: Ui | None = None, first: Beginning | None = None
) -> RemoteSession:
    """A session with a model of a server, by default the server's first. Raises LacewingError; the connection is then closed."""
    first = first or Beginning()
    try:
        if first.template is not None:
            raise OptionError("a server chooses the template; /template asks a Lacewing server for another one")
        if first.load is not None:
            files.check(first.load)
        session = RemoteSession(connection, name, Settings(sampling or Sampling()), ui)
        _begin(session, first)
    except BaseException:
        connection.close()
        raise
    return session


def _begin(session: Conversation, first: Beginning) -> None:
    """What a person should know of it becomes notices. What the command line sets goes before what a session has saved."""
    given = session.settings.sampling
    if first.load is not None:
        session.notices += files.load(session, first.load)
        changed = {each.name: getattr(given, each.name) for each in fields(given) if getattr(given, each.name) != each.default}
        session.settings = session.settings.with_sampling(**{name: value for name, value in changed.items() if value or value == 0})
    if first.system is not None:
        session.change(system=first.system or None)
    if first.template is not None and isinstance(session, Session):
        session.notices += templates.change_template(session, first.template, force=True)
        if missing := templates.missing_tokens(session.formatter.template, session):
            session.notices.append(f"the vocabulary lacks {', '.join(missing)}, which the model reads as plain text")
    session.attachments += first.attachments


def fall_back(session: Session, error: BackendError) -> list[str]:
    """Bring the session to the CPU; what a person should know of it. Raises the error again if the person does not want that."""
    failed = session.loaded
    if not failed.model.backend.copies_weights:
        raise error
    if not session.ui.confirm(f"{error}\ncontinue with {failed.short_name} on the CPU?"):
        raise error
    lines = swap.change_model(session, failed.name, **CPU_OPTIONS)
    for each in [one for one in session.parked if one.model.backend.copies_weights]:  # they were on the device as well
        session.parked.remove(each)
        each.model.close()
    return [lines[0], "the models on the GPU were closed; the answer starts again"]


_MOST = 60  # files that are looked at


def model_names(chat: Session) -> list[str]:
    """What /model may be given, for completion: names of ours, fetched ones, and checkpoints of this folder."""
    parked = ["-", *(each.short_name for each in chat.parked)] if chat.parked else []
    return list(dict.fromkeys([*parked, *hub.known_names(), *map(str, checkpoints_in(Path()))]))


def list_models(chat: Session) -> Iterator[tuple[str, str, str, str, str, str]]:
    """(mark, name, size, quant, architecture, fit) of each model that is here, and of known names that are not."""
    current, models = chat.current.info.checkpoint.path, (*chat.parked, chat.current)
    marks = {each.model.path.resolve(): "parked" for each in chat.parked}
    marks[current.resolve()] = "closed" if isinstance(chat.current, Closed) else "*"
    short = Counter(each.short_name for each in models)
    here = {
        (path := each.info.checkpoint.path).resolve(): (path, each.short_name if short[each.short_name] == 1 else each.name)
        for each in models
    }
    places = dict(here)  # first, so that no large folder crowds them out
    places |= {path.resolve(): (path, path.name) for path in checkpoints_in(current.parent)}
    places |= {path.resolve(): (path, str(path)) for path in checkpoints_in(Path())} | here
    places |= {cached.path.resolve(): (cached.path, cached.name) for cached in hub.list_models()}
    for place, (path, name) in list(places.items())[:_MOST]:
        if chat.ui.cancelled():
            raise Cancelled("listing the models was cancelled")
        yield marks.get(place, ""), name, *_facts(chat, path)
    for name in sorted(set(hub.NAMED) - {cached.name for cached in hub.list_models()}):
        yield "", name, "", "", "", f"not fetched: {hub.NAMED[name].about}"


def _facts(chat: Session, path: Path) -> tuple[str, str, str, str]:
    """Size, quant, architecture, fit; the problem if it cannot be opened."""
    try:
        opened = ModelInfo(path, replace(chat.options, residency_is_default=True), warm=False)
    except LacewingError as error:
        return "", "", "", f"cannot be used: {error}"
    nbytes = sum(tensor.nbytes for tensor in opened.spec.tensors.values())
    facts = format_bytes(nbytes), opened.quant, opened.spec.architecture
    try:
        current = chat.current if isinstance(chat.current, OnDevice) else None
        return *facts, f"fits ({plan_swap(opened, current, chat.parked).placement.summary})"
    except (BackendError, OutOfMemoryError) as error:
        return *facts, f"does not fit: {error}"
