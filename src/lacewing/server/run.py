"""A server from its start to its end: sockets, the event loop, the application behind its checks, signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from lacewing.console.output import is_quiet, is_verbose, print_text
from lacewing.options import Progress
from lacewing.server.app import create_app
from lacewing.server.gate import Gate
from lacewing.server.logs import Requests
from lacewing.server.logs import configure as configure_logs
from lacewing.server.metrics import Metrics, MetricsEndpoint
from lacewing.server.models.names import Catalogue
from lacewing.server.models.registry import Registry
from lacewing.server.models.served import Served
from lacewing.server.options import ServerOptions
from lacewing.server.protocol import configure
from lacewing.server.responses.state import state_of
from lacewing.server.responses.store import Store
from lacewing.server.security import guarded
from lacewing.server.security.binding import Binding, bind
from lacewing.server.tracing import from_environment as tracing_from_environment
from lacewing.server.worker import Worker
from lacewing.weights.memory import keep_large_blocks_apart

Announce = Callable[[Binding, Catalogue], None]  # called when clients can connect
Ready = Callable[[Served], None]  # called when the first model answers

_HANGS = 20.0  # seconds after which closing a model is given up
_TICK, _LAST_TICKS = 1.0, 0.1  # seconds between two looks at whether to end; once a signal has come
_PARTING = 1.0  # seconds in which answers that are cut tell their clients so


def serve(options: ServerOptions, announce: Announce, ready: Ready, progress: Progress | None = None) -> None:
    """Serve until a signal says to end. `progress` is told of loading the first model; requests wait for it meanwhile.

    Raises OptionError, and LacewingError where a port may not be had or the first model cannot be loaded.
    """
    catalogue = Catalogue(options)
    binding = bind(options)
    try:
        keep_large_blocks_apart()
        level = logging.WARNING if is_quiet() else logging.DEBUG if is_verbose() else logging.INFO
        undo = configure_logs(options.log_format, level)
        try:
            asyncio.run(_serve(options, catalogue, binding, announce, ready, progress))
        finally:
            undo()
    finally:
        binding.close()


async def _serve(
    options: ServerOptions, catalogue: Catalogue, binding: Binding, announce: Announce, ready: Ready, progress: Progress | None
) -> None:
    registry = Registry(catalogue, options, Worker)
    metrics, tracing = Metrics(registry, options.expert_metrics), tracing_from_environment()
    registry.on_loaded(metrics.watch)
    requests = Requests(metrics.responded)
    observers = [metrics, requests, *([] if tracing is None else [tracing])]
    api = create_app(registry, options, observers, Store.of(options))
    gate = Gate(api)
    app = guarded(MetricsEndpoint(gate, metrics), options, binding)
    app = requests.around(app if tracing is None else tracing.around(app))
    server = Server(configure(app, options), gate, registry, options)
    serving = asyncio.create_task(server.serve(list(binding.sockets)))
    try:
        announce(binding, catalogue)
        if not options.on_demand:
            served = await _first(registry.preload(progress), serving)
            if served is not None:
                ready(served)
        await serving
    finally:
        server.stop()
        await serving
        await _end(registry)
        await state_of(api).close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)


async def _end(registry: Registry) -> None:
    """A driver or a disk that hangs does not keep the process."""
    try:
        await asyncio.wait_for(registry.close(), _HANGS)
    except TimeoutError:
        print_text("lacewing: a model could not be closed in time", sys.stderr)
        os._exit(1)  # its threads would be waited for


async def _first(work: Any, serving: asyncio.Task[None]) -> Served | None:
    """What comes of the work; None where nobody is served any more before it is done."""
    loading = asyncio.create_task(work)
    await asyncio.wait({loading, serving}, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        loading.cancel()
        return None
    found: Served | None = await loading
    return found


class Server(uvicorn.Server):
    """Ends in order: a first signal lets answers finish and takes no new requests, for `shutdown_seconds` at most; a second one
    ends them now, and a third one waits for nothing. Health can be asked meanwhile, so that a balancer sees it."""

    def __init__(self, config: uvicorn.Config, gate: Gate, registry: Registry, options: ServerOptions):
        super().__init__(config)
        self._gate, self._registry, self._seconds = gate, registry, options.shutdown_seconds
        self._signals = 0
        self._until: float | None = None
        self._cut: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    async def main_loop(self) -> None:
        """As uvicorn's, whose ten ticks a second take time from the engine. The first signal is seen at once."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK if self._until is None else _LAST_TICKS):
                    await self._changed.wait()
            self._changed.clear()

    def stop(self) -> None:
        """End as soon as can be, in the event loop's thread."""
        self.should_exit = True
        self._changed.set()

    async def on_tick(self, counter: int) -> bool:
        if await super().on_tick(counter) or self.force_exit:
            return True
        if self._until is None:
            return False
        self._registry.news.end()  # who watches models is no answer to wait for
        if self._gate.active and time.monotonic() >= self._until and self._cut is None:
            self._cut = asyncio.create_task(self._registry.close())  # their clients are told so
            self._until = time.monotonic() + _PARTING
        return not self._gate.active or (self._cut is not None and time.monotonic() >= self._until)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._gate.draining = self._registry.draining = True
        if self._signals == 1:
            self._until = time.monotonic() + self._seconds
        elif self._cut is None:
            self._until = time.monotonic()
        else:
            os._exit(128 + sig)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._changed.set)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn would raise the signal again at the end, and so end with another exit code than 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
        numbers = [number for name in names if (number := getattr(signal, name, None)) is not None]
        before = {each: signal.getsignal(each) for each in numbers}
        ours = [each for each, handler in before.items() if handler is not signal.SIG_IGN]
        for each in ours:
            signal.signal(each, self.handle_exit)
        try:
            yield
        finally:
            for each in ours:
                signal.signal(each, before[each])
