"""Bringing a model into memory: what may take long, for a thread other than the event loop's."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from lacewing.api import Model
from lacewing.assistant import templates
from lacewing.errors import Cancelled, OutOfMemoryError
from lacewing.options import LoadOptions, Progress
from lacewing.placement.background import interruptible
from lacewing.placement.info import ModelInfo, open_headers
from lacewing.placement.place import Placement
from lacewing.placement.room import put_aside
from lacewing.server.models.names import Source
from lacewing.server.models.served import Served

_EVERY = 0.1  # seconds between two reports of the same work
KV_SHARE = 0.25  # of the memory that is left may be for sequences besides the one whole context that is always there
KV_CONTEXTS = 4  # whole contexts that all sequences have at most, where nobody says more
_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
    """The result of `work`, done in a thread. Who is cancelled does not wait for it, and it goes on to its end."""
    return await asyncio.get_running_loop().run_in_executor(None, work)


def relay(loop: asyncio.AbstractEventLoop, report: Progress) -> Progress:
    """A `Progress` for any thread that reports in the event loop's, not too often."""
    last: dict[str, float] = {}
    lock = threading.Lock()

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        with lock:
            if done < total and now - last.get(what, 0.0) < _EVERY:
                return
            last[what] = now
        loop.call_soon_threadsafe(report, what, done, total)

    return tell


def open_source(source: Source, options: LoadOptions, progress: Progress, cancelled: Callable[[], bool]) -> ModelInfo:
    """Its headers; it is fetched first if it is not here. Raises LacewingError, also Cancelled."""
    path = source.fetch(interruptible(progress, cancelled))
    progress("reading the headers", 0, 1)
    return open_headers(path, options, cancelled)


def size_cache(info: ModelInfo, placement: Placement) -> None:
    """Decide how many positions all sequences have together, if nobody has: one whole context, and more where memory is left."""
    options = info.options
    if options.kv_tokens is not None or options.sequences == 1:
        return
    plan, context = placement.plan, info.spec.context
    left = max(0, plan.budget_bytes - plan.needed_bytes)
    more = int(KV_SHARE * left * context // max(1, plan.kv_bytes))
    most = min(options.sequences, KV_CONTEXTS) * context
    info.options = dataclasses.replace(options, kv_tokens=min(most, context + more))


def load(info: ModelInfo, progress: Progress, cancelled: Callable[[], bool], spare: int = 0) -> Model:
    """Into memory. Raises LacewingError, also Cancelled."""
    return Model(info, progress, cancelled=cancelled, spare=spare)


def unload(served: Served) -> None:
    """Out of memory; its requests end with an error."""
    served.worker.close()
    served.model.close()


def use_template(served: Served, choice: str, *, files: bool, force: bool = False) -> None:
    """For requests from now on. Raises TemplateError; without `force` also for special tokens that the vocabulary lacks."""
    info, tokenizer = served.model.info, served.model.tokenizer
    template = templates.open_template(choice, info, tokenizer, files=files)
    if not force and choice != templates.AUTO:
        templates.check_tokens(template, tokenizer)
    served.worker.use_template(template)


def check_template(info: ModelInfo, choice: str, *, files: bool) -> None:
    """Raises TemplateError for a choice that a model that is to be loaded cannot have."""
    templates.open_template(choice, info, info.tokenizer.result(), files=files)


def lay_aside(model: Model) -> bool:
    """See `put_aside`."""
    return put_aside(model, "it makes room for another model")


def keep_state(model: Model) -> tuple[list[int], bytes] | None:
    """What was run last, for a model that leaves its device; None: nothing, or it cannot be read any more."""
    try:
        ids, data = model.read_state()
    except Exception:  # drivers raise what they like
        return None
    return (ids, data) if ids else None


def make_resident(model: Model, residency: str, progress: Progress, cancelled: Callable[[], bool]) -> None:
    """Its weights eager or streamed again, if the system gives the memory after all."""
    with contextlib.suppress(OutOfMemoryError, Cancelled):
        model.set_residency(residency, progress, cancelled, force=True, reason="it is asked for again")
