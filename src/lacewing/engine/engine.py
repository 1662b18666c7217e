"""The engine: runs a step over a prompt in chunks, then token by token, and remembers what its slot already holds."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from lacewing.backends.step import Step
from lacewing.engine.observers import Observer, Observers
from lacewing.engine.sampling import Sampler, Token
from lacewing.engine.stats import Stats, rate
from lacewing.errors import ContextOverflowError, NumericError, OptionError, OutOfMemoryError
from lacewing.options import Progress, Sampling, format_bytes
from lacewing.weights import this_machine

Cancelled = Callable[[], bool]
_PATIENCE = 0.4  # seconds between two questions whether the caller has cancelled
_SMALLEST = 64  # tokens of a run in which the weights are still used well
_LOGIT_BYTES = 64 << 20  # rows of logits wanted of one run, at most


class Engine:
    """One sequence in one slot of a step. Threads take turns, a token each; each turn may cost the other its cached prefix.

    `cached` are the ids whose keys and values stand in the slot; a next prompt that begins alike runs only its rest.
    `check` is called before each run, so that a file that became shorter is told instead of read beyond its end, and before a
    generation is said to have ended well; what it raises fails the generation and drops the cached prefix.
    """

    def __init__(self, step: Step, vocab_size: int, context: int, slot: int = 0, check: Callable[[], None] | None = None):
        self.check = check
        self.step, self.vocab_size, self.context, self.slot = step, vocab_size, context, slot
        self.chunk = step.limits.chunk
        self._turn = threading.RLock()
        self._pace = 0.0  # tokens/s of the last long run
        self.cached: list[int] = []
        self.owner: object = None  # the generation that ran last
        self.observers = Observers(step)

    def forget(self) -> None:
        """Drop the cached prefix: the next prompt is run whole."""
        self.cached, self.owner = [], None

    def observe(self, observer: Observer) -> None:
        """Tell it after each run what the routers decided. A device goes on choosing tokens, but no longer ahead of the host."""
        with self._turn:
            self.owner = None if not self.observers else self.owner  # what a device has run ahead was not watched
            self.observers.add(observer)

    def unobserve(self, observer: Observer) -> None:
        """Raises ValueError for one that does not observe."""
        with self._turn:
            self.observers.remove(observer)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 (T, V): row t holds the logits of the token after ids[: t + 1]. Raises as `generate` does."""
        ids = self._checked(ids)
        with self._turn:
            return self._logits(ids)

    def _logits(self, ids: list[int]) -> np.ndarray:
        self.forget()
        needed, free = 4 * len(ids) * self.vocab_size, this_machine().available_bytes
        if needed > free:
            raise OutOfMemoryError(
                f"the logits of {len(ids)} positions take {format_bytes(needed)}, and {format_bytes(free)} are free; ask for fewer"
            )
        out = np.empty((len(ids), self.vocab_size), np.float32)
        rows = max(1, min(self.chunk, _LOGIT_BYTES // (4 * self.vocab_size)))
        for start in range(0, len(ids), rows):
            part = ids[start : start + rows]
            out[start : start + len(part)] = self._run(part, np.arange(len(part)))
        if np.isnan(out).any():
            self.forget()
            raise NumericError("the model produced NaN logits; the checkpoint may be damaged (compare its checksum)")
        return out

    def responsive_chunk(self) -> int:
        """Prompt tokens that a run may take for a caller who may cancel: about `_PATIENCE` seconds' worth."""
        return min(self.chunk, max(_SMALLEST, int(self._pace * _PATIENCE) // _SMALLEST * _SMALLEST))

    def extend(self, ids: Sequence[int]) -> np.ndarray:
        """Run `ids` after what the slot holds; float32 (V,), the logits after the last of them, valid until the next run."""
        with self._turn:
            row, self.owner = np.empty(0, np.float32), None
            for start in range(0, len(ids), self.chunk):
                part = list(ids[start : start + self.chunk])
                row = self._run(part, np.array([len(part) - 1]))[0]
            return row

    def prefill(self, ids: Sequence[int], cancelled: Cancelled | None = None, progress: Progress | None = None) -> bool:
        """Bring the slot to hold `ids`, running what it does not hold yet; False when cancelled. Raises as `generate`."""
        generation = self.generate(ids, Sampling(max_tokens=0, temperature=0), frozenset(), cancelled, progress)
        for _ in generation:
            pass
        return generation.finish_reason != "cancelled"

    def generate(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        stop_ids: frozenset[int] = frozenset(),
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
    ) -> Generation:
        """An iterator of tokens after the prompt `ids`; nothing runs before it is iterated.

        A stop id ends it and is not among the tokens. `cancelled` is asked between chunks and tokens; `progress` is told
        prompt tokens done and in all. Raises OptionError for an empty prompt or ids out of the vocabulary,
        ContextOverflowError for a prompt that does not fit, and while iterated NumericError, which also drops the cached prefix.
        """
        return Generation(self, self._checked(ids), Sampler(sampling, self.vocab_size), stop_ids, cancelled, progress)

    def _checked(self, ids: Sequence[int]) -> list[int]:
        try:
            ids = [operator.index(token) for token in ids]
        except TypeError:
            raise OptionError("a prompt must be a list of token ids, which are integers") from None
        if not ids:
            raise OptionError("the prompt is empty: it needs at least one token")
        bad = next((token for token in ids if not 0 <= token < self.vocab_size), None)
        if bad is not None:
            raise OptionError(f"token id {bad} is outside this model's vocabulary of {self.vocab_size}")
        if len(ids) > self.context:
            raise ContextOverflowError(
                f"the prompt has {len(ids)} tokens, the context holds {self.context}; shorten it or load with a larger --context"
            )
        return ids

    def verify(self) -> None:
        """Raise what `check` does; the cached prefix may then be wrong and is dropped."""
        if self.check is not None:
            try:
                self.check()
            except BaseException:
                self.forget()
                raise

    def settle(self) -> None:
        """Before a request, and after a long prompt: let the step suit itself to what it has run."""
        if isinstance(self.step, Adapts):
            self.verify()
            self.step.adapt()

    def _run(self, ids: list[int], outputs: np.ndarray) -> np.ndarray:
        """Run `ids` after the cached ones; float32 (R, V) of the rows `outputs`, valid until the next run."""
        self.verify()
        count, start = len(ids), len(self.cached)
        positions = np.arange(start, start + count, dtype=np.int32)
        slots = np.full(count, self.slot, np.int32)
        began = time.perf_counter()
        rows = self.step.run(np.array(ids, np.int32), slots, positions, outputs.astype(np.int32))
        if count >= _SMALLEST:
            self._pace = rate(count, time.perf_counter() - began)
        self.observers.tell(start, count)
        self.cached += ids  # only now: a run that failed leaves the slot's tail unknown, but not its head
        return rows


class Generation(Iterator[Token]):
    """Tokens as they come. Afterwards `finish_reason` is "stop", "length" or "cancelled"; `stats` grow while it runs."""

    def __init__(
        self,
        engine: Engine,
        ids: list[int],
        sampler: Sampler,
        stop_ids: frozenset[int],
        cancelled: Cancelled | None,
        progress: Progress | None,
    ):
        self.finish_reason: str | None = None
        self.stats = Stats(prompt_tokens=len(ids))
        self._engine, self._history, self._sampler, self._stop_ids = engine, ids, sampler, stop_ids
        self._cancelled, self._progress = cancelled, progress
        self._ahead: Iterator[int] | None = None  # the step's own greedy choices, where it makes them
        self._tokens = self._steps()

    def __next__(self) -> Token:
        with self._engine._turn:
            return next(self._tokens)

    def close(self) -> None:
        """Stop here; what has been run stays cached."""
        self._tokens.close()
        self.finish_reason = self.finish_reason or "cancelled"

    def end(self, reason: str) -> None:
        """Stop here because what was wanted is there, such as a stop string."""
        self._finish(reason)
        self._tokens.close()

    def _steps(self) -> Generator[Token, None, None]:
        began = time.perf_counter()
        row = self._prefill()
        self.stats.prompt_seconds = time.perf_counter() - began
        if self._sampler.sampling.max_tokens == 0:
            if self.finish_reason is None:
                self._finish("length")
            return
        token = None if row is None else self._pick(row)
        try:
            while token is not None:
                if token.id in self._stop_ids:
                    self._finish("stop")
                    return
                self._history.append(token.id)
                self.stats.generated_tokens += 1
                if self.stats.generated_tokens == 1:
                    self.stats.first_token_seconds = self.stats.prompt_seconds
                yield token
                if self.stats.generated_tokens == 1 and self.stats.prompt_tokens - self.stats.reused_tokens >= _SMALLEST:
                    self._engine.settle()  # so long a prompt tells what its answer will want
                token = self._next(token.id)
        finally:
            self._leave()

    def _prefill(self) -> np.ndarray | None:
        """Run what of the history is not cached; the last row of logits, or None when cancelled.

        Also after another generation used the slot in between.
        """
        engine, ids = self._engine, self._history
        reused = min(common_prefix(engine.cached, ids), len(ids) - 1)  # the last id always runs: its logits are wanted
        del engine.cached[reused:]
        engine.owner = self
        if not self.stats.generated_tokens:
            self.stats.reused_tokens = reused
            engine.settle()
        row, start = None, reused
        while start < len(ids):
            if self._stopped():
                return None
            part = ids[start : start + (engine.responsive_chunk() if self._cancelled else engine.chunk)]
            start += len(part)
            rows = engine._run(part, np.array([len(part) - 1] if start == len(ids) else []))
            row = rows[0] if start == len(ids) else None
            if self._progress is not None:
                self._progress("reading the prompt", start, len(ids))
        return row

    def _next(self, last: int) -> Token | None:
        """The token after `last`, which has not been run yet; None when the context is full or the caller cancelled."""
        if self._stopped():
            return None
        engine, limit = self._engine, self._sampler.sampling.max_tokens
        room = engine.context - len(engine.cached)
        left = room if limit is None else min(room, limit - self.stats.generated_tokens)
        if left <= 0:
            self._finish("length")
            return None
        began = time.perf_counter()
        if engine.owner is not self:
            self._leave()
            row = self._prefill()
        elif self._sampler.takes_largest and isinstance(engine.step, FeedsBack):
            greedy = engine.step.greedy
            return self._on_device(lambda: self._fed_back(greedy, last, left), last, began)
        elif isinstance(engine.step, FindsCandidates) and 0 < self._sampler.candidates <= engine.step.most_candidates:
            find = engine.step.candidates
            return self._on_device(lambda: self._sampler.pick_among(find(last, engine.slot, len(engine.cached))), last, began)
        else:
            row = engine._run([last], np.zeros(1))[0]
        self.stats.generate_seconds += time.perf_counter() - began
        return None if row is None else self._pick(row)

    def _fed_back(self, greedy: Callable[..., Iterator[int]], last: int, left: int) -> Token:
        """As `_next`, chosen by the device itself."""
        if self._ahead is None:
            self._ahead = greedy(last, self._engine.slot, len(self._engine.cached), left)
        return Token(next(self._ahead))

    def _on_device(self, choose: Callable[[], Token], last: int, began: float) -> Token:
        """As `_next`, where the device makes the choice or finds the largest logits for it."""
        engine = self._engine
        try:
            token = choose()
            engine.observers.tell(len(engine.cached), 1)
        except NumericError:
            engine.forget()
            raise
        engine.cached.append(last)
        self.stats.generate_seconds += time.perf_counter() - began
        return token

    def _leave(self) -> None:
        """What the device makes ahead is no longer wanted."""
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Generator):
            ahead.close()

    def _finish(self, reason: str) -> None:
        """The end that nobody asked for; not reached where the weights turn out to have changed meanwhile."""
        self._engine.verify()
        self.finish_reason = reason

    def _pick(self, row: np.ndarray) -> Token:
        began = time.perf_counter()
        try:
            return self._sampler.pick(row, self._history)
        except NumericError:
            self._engine.forget()  # its keys and values may be poisoned
            raise
        finally:
            if self.stats.generated_tokens:
                self.stats.generate_seconds += time.perf_counter() - began
            else:
                self.stats.prompt_seconds += time.perf_counter() - began

    def _stopped(self) -> bool:
        if self._cancelled is not None and self._cancelled():
            self.finish_reason = "cancelled"
            return True
        return False


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest prefix that both share."""
    shared = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        shared += 1
    return shared
