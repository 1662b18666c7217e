"""Making room in memory: what has to be given up for another model, models that are parked, the one that leaves a GPU, and
weights that become lazy or eager.

A parked model keeps its KV cache, so that going back to it is quick. A GPU has no room for two large models: the current one
leaves it for the next, and comes back if the change fails. If the GPU does not take it back, because it is lost or others have
filled it, it goes on with the CPU, and says so. If that fails as well, whatever the reason, the session has it as `Closed`: the
conversation stays, and /model loads it again or another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lacewing.api import Model
from lacewing.chat.session.models import Closed, OnDevice, Parked, reason
from lacewing.chat.session.session import Session
from lacewing.chat.session.settings import CPU_OPTIONS
from lacewing.errors import ModelFormatError, OptionError, OutOfMemoryError
from lacewing.options import RESIDENCIES, format_bytes
from lacewing.placement.info import ModelInfo
from lacewing.placement.place import Placement
from lacewing.placement.plan import MemoryPlan
from lacewing.placement.room import Level, first_fit, is_short, put_aside
from lacewing.weights import this_machine


@dataclass(frozen=True)
class SwapPlan:
    """How a new model fits: where it goes, and what has to be given up for it."""

    placement: Placement
    spare: int  # bytes counted as free that are in use now
    shrink: bool = False  # the current weights become lazy before the new ones are read
    drop_parked: bool = False
    drop_current: bool = False  # the current model cannot be parked

    @property
    def plan(self) -> MemoryPlan:
        return self.placement.plan


def plan_swap(info: ModelInfo, current: OnDevice | None, parked: list[Parked]) -> SwapPlan:
    """The first that works: beside all; with lazy current weights; without the parked models; instead of the current one.

    A model that goes to the GPU as a whole needs no RAM; what is there now leaves it in time (`evict`). Raises OutOfMemoryError.
    """
    eager, own, touched = 0, 0, 0
    if current is not None:
        eager, own, touched = current.model.weights.anonymous_bytes, current.model.memory_bytes, current.touched_bytes
    aside = sum(each.model.memory_bytes for each in parked)
    freed = sum(each.model.device_bytes for each in (*parked, *([current] if current is not None else [])))
    levels: tuple[tuple[Level, dict[str, bool]], ...] = (
        (Level(0, aside + own, freed), {}),
        (Level(eager, aside + own - eager, freed), {"shrink": True}),
        (Level(eager + aside, own - eager, freed), {"shrink": True, "drop_parked": True}),
        (Level(eager + aside + touched, 0, freed, for_speed=False), {"shrink": True, "drop_parked": True, "drop_current": True}),
    )
    index, placement = first_fit(info, [level for level, _ in levels])
    level, cost = levels[index]
    return SwapPlan(placement, level.spare, **cost)


MAX_PARKED = 2  # models kept beside the current one


def replace_current(session: Session, target: OnDevice, *, keep: bool = True, was: str = "") -> None:
    """Make another model the current one. The one before is parked, or closed if it may not be kept or cannot be parked.

    Nothing fails here: whatever happens to the old model, the session has the new one. `was`: the residency of the
    old model's weights before somebody made them lazy.
    """
    old, session.current = session.current, target
    if isinstance(old, Closed):
        old.was.close()
    elif not keep or not _park(session, old, was):
        old.model.close()
    while len(session.parked) > MAX_PARKED:
        session.parked.pop().model.close()


def _park(session: Session, old: OnDevice, was: str) -> bool:
    """Whether it could be: its weights are lazy then."""
    model = old.model
    was = was or model.weights.residency
    if not put_aside(model, "it was parked"):
        return False
    before = old.before_lazy if was == "lazy" else was
    session.parked.insert(0, Parked(old.formatter, old.name, model, old.routing, was, before_lazy=before))
    return True


def drop_stale(session: Session, opened: OnDevice) -> None:
    """Close parked models whose file has become the one that was opened now."""
    for each in [each for each in session.parked if same_file(each, opened.model.path) and not usable(each)]:
        session.parked.remove(each)
        each.model.close()


def same_file(one: OnDevice | Parked | Closed, path: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.info.checkpoint.path.samefile(path)
    return False


def usable(one: OnDevice | Parked) -> bool:
    """Whether the file of a model is still what it was opened from; eager weights too are of the file that was."""
    with contextlib.suppress(ModelFormatError):
        one.model.weights.check_files(eager=True)
        return True
    return False


def check_usable(one: Parked) -> None:
    """Raise ModelFormatError if a parked model's file has changed since."""
    try:
        one.model.weights.check_files()
    except ModelFormatError as error:
        raise ModelFormatError(one.model.path, f"{error.problem} (/model with its path does)") from None


@contextlib.contextmanager
def evicted(session: Session, placement: Placement, notices: list[str]) -> Iterator[None]:
    """Parked models on the GPU are closed, and the current one leaves it, as far as the next one needs their room there."""
    on_gpu = [one for one in (session.current, *session.parked) if not isinstance(one, Closed) and one.model.device_bytes]
    if not on_gpu or placement.gpu is None:
        yield
        return
    backend, needed = on_gpu[0].model.backend, placement.device_bytes

    for each in [one for one in on_gpu if isinstance(one, Parked)]:
        if is_short(backend, needed):
            session.parked.remove(each)
            each.model.close()
            notices.append(f"the parked model {each.short_name} was closed to make room on the GPU")
    current = on_gpu[0]
    if not isinstance(current, OnDevice) or not is_short(backend, needed):
        yield
        return
    session.current = closed = Closed(current.formatter, current.name, current.model, "it left the GPU for another model")
    try:
        current.model.close()
        yield
    except BaseException:
        _bring_back(session, closed)
        raise


def _bring_back(session: Session, closed: Closed) -> None:
    """To the GPU, else to the CPU, else it stays closed. A file that has become another one is not read with the old headers."""
    model, progress = closed.was, session.ui.progress
    try:
        model.return_to_device(progress)
        session.current = OnDevice(closed.formatter, closed.name, model)
    except ModelFormatError as error:
        _stay_closed(session, closed, reason(error))
    except Exception as error:  # drivers raise what they like
        model.close()
        try:
            info = ModelInfo(model.path, dataclasses.replace(model.options, **CPU_OPTIONS))
            session.current = OnDevice(closed.formatter, closed.name, Model(info, progress))
            session.notices.append(f"{closed.short_name} could not go back to the GPU ({reason(error)}); it is on the CPU now")
        except Exception as second:
            _stay_closed(session, closed, f"it could not go back to the GPU ({reason(error)}), nor to the CPU ({reason(second)})")


def _stay_closed(session: Session, closed: Closed, problem: str) -> None:
    closed.problem = problem
    session.notices.append(str(closed.error))


def change_residency(session: Session, wanted: str, force: bool = False) -> list[str]:
    """What changed, in lines; nothing does if all weights are on a GPU.

    Raises OutOfMemoryError, Cancelled; the old residency is then still there.
    """
    if wanted not in RESIDENCIES[1:]:
        raise OptionError(f"residency is {wanted!r}; it must be lazy, eager or streamed")
    model, ui = session.model, session.ui
    if not model.weights_on_host:
        return [f"the weights are on {model.backend.facts().name}; {wanted} is about weights in RAM, so nothing was read"]
    before = model.weights.residency
    if before == wanted:
        return [f"the weights are already {wanted}"]
    held = model.memory_bytes
    try:
        model.set_residency(wanted, ui.progress, ui.cancelled, force=force)
    except OutOfMemoryError as error:
        force_it = " (/eager --force tries it anyway)" if wanted == "eager" else ""
        raise OutOfMemoryError(f"{error}; nothing was changed{force_it}") from None
    if wanted == "lazy":
        session.loaded.before_lazy = before
    same = "answers are bitwise the same"
    if model.step.cache_statistics is not None:
        same += " while the same experts are on the GPU"
    return [
        f"weights {before} -> {wanted}; RAM {format_bytes(held)} -> {format_bytes(model.memory_bytes)}",
        _speed(session, before, wanted),
        f"the conversation and its KV cache are kept; {same}",
    ]


def toggle_lazy(session: Session, force: bool = False) -> list[str]:
    """Lazy weights, or if they are lazy what they were before. Raises what `change_residency` raises."""
    is_lazy = session.model.weights.residency == "lazy"
    return change_residency(session, session.loaded.before_lazy if is_lazy else "lazy", force)


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
    if wanted == "streamed":
        read = next((row.nbytes for row in model.plan.rows if row.name == "streamed"), 0)
        if not read:
            return f"expected speed: {now} once the experts have been read, because all of them fit in RAM"
        return f"expected speed: that of the disk; a token reads {format_bytes(read)} from it, less where experts are used again"
    if model.spec.active_bytes > this_machine().available_bytes:
        return f"expected speed: that of the disk, because a token reads {format_bytes(model.spec.active_bytes)} of weights"
    return f"expected speed: {now} or somewhat less, while the system keeps the file in its cache"
