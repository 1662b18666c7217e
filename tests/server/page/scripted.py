"""A whole server whose models say what a test wants: the registry, the routes, the checks and the streams are the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

from lacewing.engine.sampling import Token
from lacewing.engine.stats import Stats
from lacewing.options import LoadOptions
from lacewing.server.app import create_app
from lacewing.server.models.names import Catalogue
from lacewing.server.models.registry import Registry
from lacewing.server.options import ServerOptions
from lacewing.server.protocol import configure
from lacewing.server.security import guarded
from lacewing.server.security.binding import Binding
from lacewing.server.worker import End, Worker


@dataclass
class Script:
    """What models say: the answers in their order, then `usual`. `pause`: seconds between two pieces of `piece` tokens. `held`: an
    answer waits after its first piece for as long.

    `prompts`: what each answer was asked with.
    """

    answers: list[str] = field(default_factory=list)
    usual: str = "Yes."
    pause: float = 0.0
    piece: int = 40
    held: bool = False
    prompts: list[str] = field(default_factory=list)

    def next(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.answers.pop(0) if self.answers else self.usual


class Said:
    """An answer that is said: a ticket, and its own handle."""

    def __init__(self, decoder: Any, sink: Any, ids: list[int], script: Script, stats: Stats):
        self.stats, self.handle = stats, self
        self._decoder, self._sink, self._ids, self._script = decoder, sink, ids, script
        self._began = time.perf_counter()
        self._task = asyncio.get_running_loop().create_task(self._say())

    def cancel(self) -> None:
        self._task.cancel()

    async def _say(self) -> None:
        reason = "stop"
        try:
            for at in range(0, len(self._ids), self._script.piece):
                await asyncio.sleep(self._script.pause)
                deltas = [delta for token in self._ids[at : at + self._script.piece] for delta in self._decoder.push(Token(token))]
                self.stats.generated_tokens = min(at + self._script.piece, len(self._ids))
                self.stats.generate_seconds = time.perf_counter() - self._began
                self._sink.push(deltas, None)
                while self._script.held:
                    await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            reason = "cancelled"
        deltas = self._decoder.finish(reason)
        self._sink.push(deltas, End(self._decoder.finish_reason, self.stats))


class ScriptedWorker(Worker):
    """Reads the prompt as any worker, and says what its script has."""

    script: Script

    def submit(self, request: Any, decoder: Any, sink: Any, seconds: float | None = None) -> Any:
        tokenizer = self._model.tokenizer
        text = self.script.next(tokenizer.decode(request.ids, special=True))
        stats = Stats(prompt_tokens=len(request.ids), prompt_seconds=0.01, first_token_seconds=0.01)
        return Said(decoder, sink, tokenizer.encode_markup(text), self.script, stats)


@contextlib.contextmanager
def serving(folder: Path, script: Script, **options: Any) -> Iterator[str]:
    """The address of a server of the checkpoints in `folder`, in a thread of this process."""
    worker = type("Worker", (ScriptedWorker,), {"script": script})
    with serving_with(worker, ServerOptions(models_dir=folder, on_demand=True, load=LoadOptions(sequences=2), **options)) as url:
        yield url


@contextlib.contextmanager
def serving_with(worker: Any, options: ServerOptions) -> Iterator[str]:
    """The same with any worker and options."""
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    ready, servers = threading.Event(), []

    async def run() -> None:
        registry = Registry(Catalogue(options), options, worker)
        app = guarded(create_app(registry, options), options, Binding("127.0.0.1", port, False, (bound,)))
        server = uvicorn.Server(configure(app, options))
        servers.append(server)
        serving = asyncio.create_task(server.serve([bound]))
        while not server.started:
            await asyncio.sleep(0.01)
        ready.set()
        await serving
        await registry.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(30)
        yield f"http://127.0.0.1:{port}"
    finally:
        servers[0].should_exit = servers[0].force_exit = True
        thread.join()
        bound.close()
