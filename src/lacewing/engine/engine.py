"""The engine: requests in, tokens out, of many sequences that share one step and what has been run before."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from lacewing import errors
from lacewing.backends.step import Step
from lacewing.engine.nodes import common_prefix
from lacewing.engine.observers import Observer
from lacewing.engine.request import Cancelled, Request, Task
from lacewing.engine.runs import make_batch
from lacewing.engine.scheduler import LOGIT_BYTES, Scheduler
from lacewing.engine.sequence import Sequence as State
from lacewing.engine.stream import Stream
from lacewing.errors import ContextOverflowError, NumericError, OptionError, OutOfMemoryError
from lacewing.options import Progress, Sampling, format_bytes
from lacewing.weights import this_machine

__all__ = ["Cancelled", "Engine", "Request", "Stream", "common_prefix"]


class Engine:
    """Runs requests on a step, several at once where it has the rows; what was run before is found again in a prefix tree.

    `check` is called when a request begins and before it is said to have ended well, `quick_check` before each run, so that a file
    that became shorter is told instead of read beyond its end; what they raise fails the request and drops all that was run before.
    `state_bytes`: what pages and units may take, by default `pages.state_budget`.
    """

    def __init__(
        self,
        step: Step,
        vocab_size: int,
        context: int,
        check: Callable[[], None] = lambda: None,
        quick_check: Callable[[], None] | None = None,
        state_bytes: int | None = None,
    ):
        self.step, self.vocab_size, self.context = step, vocab_size, context
        self.chunk = step.limits.chunk
        self.scheduler = Scheduler(step, context, (quick_check or check, check), state_bytes)

    # requests

    def submit(self, request: Request, after: Stream | None = None) -> Stream:
        """Run it from now on, whenever somebody waits for a token of any request or calls `advance`. Never waits for a run.

        `after`: its prompt begins as this one does, so this one does not begin before that has been read. Raises as `generate`.
        """
        task = self._task(request)
        task.after = None if after is None else after.task
        task.background = True
        self.scheduler.submit(task)
        return Stream(self.scheduler, task)

    def advance(self) -> bool:
        """One run for all that can go on; False: nobody can any more, before somebody asks or fetches tokens."""
        with self.scheduler.turn:
            self.scheduler.advance()
            return self.scheduler.can_go_on()

    def generate(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        stop_ids: frozenset[int] = frozenset(),
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
        marks: Sequence[int] = (),
    ) -> Stream:
        """As `submit` of a `Request`, but nothing runs before the stream is iterated, and not long without being fetched.

        Raises OptionError for an empty prompt or ids out of the vocabulary, ContextOverflowError for a prompt that does not fit,
        and while iterated NumericError; what was run of such a request is forgotten.
        """
        return self.ask(Request(ids, sampling, stop_ids, cancelled, progress, marks))

    def ask(self, request: Request) -> Stream:
        """As `generate`."""
        return Stream(self.scheduler, self._task(request))

    def prefill(self, ids: Sequence[int], cancelled: Cancelled | None = None, progress: Progress | None = None) -> bool:
        """Run what is not held yet of `ids`; False when cancelled. Raises as `generate`."""
        stream = self.generate(ids, Sampling(max_tokens=0, temperature=0), frozenset(), cancelled, progress)
        for _ in stream:
            pass
        return stream.finish_reason != "cancelled"

    def embed(
        self,
        prompts: Sequence[Sequence[int]],
        pooling: str,
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
    ) -> list[np.ndarray]:
        """Hidden states after the final norm of each prompt, float32 (D,), or (T, D) without pooling; see `Request.pooling`.

        As many prompts run together as the step has rows. `progress` is told prompts done and in all. Raises as `generate`, and
        Cancelled.
        """
        nothing = Sampling(max_tokens=0, temperature=0)
        streams = [self.submit(Request(ids, nothing, cancelled=cancelled, pooling=pooling)) for ids in prompts]
        try:
            for number, stream in enumerate(streams):
                for _ in stream:
                    pass
                if stream.finish_reason == "cancelled":
                    raise errors.Cancelled("the embedding was cancelled")
                if progress is not None:
                    progress("embedding", number + 1, len(streams))
            return [stream.hidden for stream in streams]
        finally:
            for stream in streams:
                stream.close()

    def _task(self, request: Request) -> Task:
        return Task(replace(request, ids=self._checked(request.ids)), self.vocab_size)

    def _checked(self, ids: Sequence[int]) -> list[int]:
        try:
            ids = list(map(operator.index, ids))
        except TypeError:
            raise OptionError("a prompt must be a list of token ids, which are integers") from None
        if not ids:
            raise OptionError("the prompt is empty: it needs at least one token")
        if min(ids) < 0 or max(ids) >= self.vocab_size:
            bad = next(token for token in ids if not 0 <= token < self.vocab_size)
            raise OptionError(f"token id {bad} is outside this model's vocabulary of {self.vocab_size}")
        if len(ids) > self.context:
            raise ContextOverflowError(
                f"the prompt has {len(ids)} tokens, the context holds {self.context}; shorten it or load with a larger `context`"
            )
        return ids

    # between requests

    @property
    def cached(self) -> list[int]:
        """The ids that have been run of the sequence that ran last."""
        return self.scheduler.last

    @property
    def needs_marks(self) -> bool:
        """Whether prefixes can be taken up at some places only, so that `marks` of requests are of use."""
        return self.scheduler.tree.limited

    def held(self, ids: Sequence[int]) -> int:
        """How many of these a prompt that begins so would not have to run again."""
        with self.scheduler.turn:
            return self.scheduler.tree.find(ids, len(ids)).length

    def forget(self) -> None:
        """Drop all that was run before: the next prompt is run whole."""
        with self.scheduler.turn:
            self.scheduler.forget()

    def close(self) -> None:
        """End all requests, and hold nothing any more; before the step is closed."""
        self.scheduler.interrupt()
        with self.scheduler.turn:
            self.scheduler.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Between two runs, with nothing under way on the device: for work on the step or its weights."""
        with self.scheduler.turn:
            self.scheduler.end_ahead()
            yield

    def observe(self, observer: Observer) -> None:
        """Tell it after each run what the routers decided. A device goes on choosing tokens, but no longer ahead of the host."""
        with self.exclusive():
            self.scheduler.observers.add(observer)

    def unobserve(self, observer: Observer) -> None:
        """Raises ValueError for one that does not observe."""
        with self.exclusive():
            self.scheduler.observers.remove(observer)

    def verify(self) -> None:
        """Raise what `check` does; what was run before may then be wrong and is dropped."""
        self.scheduler.verify()

    def rebalance(self) -> None:
        """Let the step suit itself to what it has run, as before a request."""
        with self.exclusive():
            self.verify()
            self.step.rebalance()

    def responsive_chunk(self) -> int:
        """Prompt tokens that a run may take for a caller who may cancel."""
        return self.scheduler.responsive_chunk()

    # runs without a request

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 (T, V): row t holds the logits of the token after ids[: t + 1]. Raises as `generate` does."""
        ids = self._checked(ids)
        with self.scheduler.turn:
            self.forget()
            self.verify()
            needed, free = 4 * len(ids) * self.vocab_size, this_machine().available_bytes
            if needed > free:
                what = f"the logits of {len(ids)} positions take {format_bytes(needed)}, and {format_bytes(free)} are free"
                raise OutOfMemoryError(f"{what}; ask for fewer")
            out = np.empty((len(ids), self.vocab_size), np.float32)
            rows = max(1, min(self.chunk, LOGIT_BYTES // (4 * self.vocab_size)))
            with self._running(State(self.scheduler.pages)) as state:
                for start in range(0, len(ids), rows):
                    part = ids[start : start + rows]
                    out[start : start + len(part)] = self._run(state, part, np.arange(len(part)))
                if np.isnan(out).any():
                    raise NumericError("the model produced NaN logits", suspect=True).from_pack(self.scheduler.pack())
            return out

    def extend(self, ids: Sequence[int]) -> np.ndarray:
        """Run `ids` after the `cached` ones; float32 (V,), the logits after the last of them, valid until the next run."""
        with self.scheduler.turn:
            before, row = list(self.cached), np.empty(0, np.float32)
            with self._running(self.scheduler.tree.acquire(before, len(before))) as state:
                todo = [*before[len(state.ids) :], *ids]
                for start in range(0, len(todo), self.chunk):
                    part = todo[start : start + self.chunk]
                    row = self._run(state, part, np.array([len(part) - 1]))[0]
            return row

    @contextmanager
    def _running(self, state: State) -> Iterator[State]:
        """In a row of the step; afterwards it can be taken up, unless something failed."""
        whole = False
        try:
            self.scheduler.attach(state)
            yield state
            whole = True
        finally:
            self.scheduler.release(state, whole)
            if not whole:
                self.scheduler.forget()  # it may go on from what was broken already

    def _run(self, state: State, ids: list[int], outputs: np.ndarray) -> np.ndarray:
        """Float32 (R, V) of the rows `outputs` of `ids`, valid until the next run."""
        self.scheduler.verify(thorough=False)
        self.scheduler.reserve(state, len(ids))
        rows = self.step.run(make_batch(self.step, [(state, len(ids))], ids, outputs.astype(np.int32)))
        self.scheduler.tell([(state, len(ids))])
        self.scheduler.commit(state, ids)
        return rows
