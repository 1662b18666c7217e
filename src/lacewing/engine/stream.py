"""The tokens of a request, for whoever asked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from lacewing.engine.collect import Pooled, PromptLogprobs
from lacewing.engine.request import Task
from lacewing.engine.sampling import Token
from lacewing.engine.scheduler import Scheduler
from lacewing.engine.stats import Stats
from lacewing.errors import OptionError


class Stream(Iterator[Token]):
    """Tokens as they come. Afterwards `finish_reason` is "stop", "length" or "cancelled"; `stats` grow while it runs.

    Whoever waits for a token makes the engine go on for everybody. A stream that is dropped is cancelled.
    """

    def __init__(self, scheduler: Scheduler, task: Task):
        self._reason: str | None = None
        self._scheduler, self.task = scheduler, task
        self._error_told = False

    @property
    def finish_reason(self) -> str | None:
        """None while there are tokens to come, and after an error."""
        return self._reason or (self.task.reason if self.done else None)

    @property
    def done(self) -> bool:
        """Whether no token will come any more."""
        return self.task.done and not self.task.tokens

    @property
    def begun(self) -> bool:
        """Whether it has had a row of the step; before, it waits for one."""
        return self.task.admitted

    @property
    def error(self) -> Exception | None:
        """Why it failed, if it did. Whoever iterates it has it raised."""
        return self.task.error if self.done else None

    @property
    def stats(self) -> Stats:
        return self.task.stats

    @property
    def prompt(self) -> tuple[Token, ...]:
        """Tokens of the prompt so far, with `Request.prompt_logprobs`; the first has no log-probability."""
        collector = self.task.collector
        return tuple(collector.tokens) if isinstance(collector, PromptLogprobs) else ()

    @property
    def hidden(self) -> np.ndarray:
        """Of a finished request with `Request.pooling`: hidden states after the final norm, float32 (D,), or (T, D) for "none"."""
        task = self.task
        if not isinstance(task.collector, Pooled) or task.reason != "stop":
            raise OptionError("hidden states are there when a request with `pooling` has ended well")
        return task.collector.result()

    def __repr__(self) -> str:
        return f"<Stream, {self.finish_reason or 'not finished'}>"

    def __next__(self) -> Token:
        task = self.task
        if not task.tokens and not task.done:
            self._wait()
        if task.tokens:
            task.left_at = time.perf_counter()  # also where it had not to wait: whoever fetches tokens is there
            return task.tokens.popleft()
        if task.error is not None and not self._error_told:
            self._error_told = True
            raise task.error
        raise StopIteration

    def take(self) -> list[Token]:
        """The tokens that are there now; nothing is run for them."""
        tokens = self.task.tokens
        if tokens:
            self.task.left_at = time.perf_counter()
        if len(tokens) == 1:  # nearly always where somebody drives the engine
            return [tokens.popleft()]
        return [tokens.popleft() for _ in range(len(tokens))]

    def _wait(self) -> None:
        """Until there is a token, or there will be none."""
        task, scheduler = self.task, self._scheduler
        task.waiting = True
        try:
            while not task.tokens and not task.done:
                with scheduler.turn:
                    if task.tokens or task.done:
                        break
                    if not task.submitted:
                        scheduler.submit(task)
                    scheduler.advance()
        finally:
            task.left_at = time.perf_counter()
            task.waiting = False

    def close(self) -> None:
        """Stop here, whichever thread waits for a token; what has been run can be taken up by others."""
        self.task.abandoned = True  # before the turn, so that a run that is interrupted is not run again
        self._scheduler.interrupt(self.task)
        self._end("cancelled")

    cancel = close

    def abandon(self, reason: str = "cancelled") -> None:
        """As `close`, but returns at once: it ends with that reason before the next run, and a run for it alone is given up."""
        self.task.leaving = reason
        self.task.abandoned = True
        self._scheduler.interrupt(self.task, alone=True)

    def settle(self) -> None:
        """End it now if it was abandoned. Between two runs; raises nothing, `error` says what went wrong."""
        if self.task.abandoned and not self.task.done:
            with self._scheduler.turn:
                self._scheduler.end(self.task, self.task.leaving)

    def end(self, reason: str) -> None:
        """Stop here because what was wanted is there, such as a stop string. Raises what makes the answer worthless."""
        self._end(reason)
        if self.task.error is not None and not self._error_told:
            self._error_told, self._reason = True, None
            raise self.task.error

    def _end(self, reason: str) -> None:
        with self._scheduler.turn:
            self._reason = self.finish_reason or reason
            self._scheduler.end(self.task, reason)

    def __del__(self) -> None:
        self.task.abandoned = True  # without the turn, which another thread may have: the next run ends it
