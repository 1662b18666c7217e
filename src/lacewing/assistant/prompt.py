"""All that is known of an answer before the engine is asked: the ids, what ends it, and what its tokens are decoded with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.assistant.answer import Answer
from lacewing.assistant.decoder import AnswerDecoder
from lacewing.engine.engine import Cancelled, Engine, Request
from lacewing.errors import OptionError
from lacewing.options import shown_value

if TYPE_CHECKING:
    from lacewing.engine.constraint import Constraint
    from lacewing.options import Progress, Sampling
    from lacewing.text.tokenizer import Tokenizer

MAX_ANSWERS = 128  # to one prompt


@dataclass(frozen=True)
class Prompt:
    """`shared`: lengths of prefixes of `ids` that other prompts will share. `decode` makes the decoder of one answer, `constrain`
    what its tokens must follow; the same prompt can be answered several times."""

    ids: Sequence[int]
    stop_ids: frozenset[int]
    decode: Callable[[Sampling], AnswerDecoder]
    shared: tuple[int, ...] = ()
    constrain: Callable[[], Constraint] | None = None

    @classmethod
    def of_text(cls, tokenizer: Tokenizer, ids: Sequence[int], constrain: Callable[[], Constraint] | None = None) -> Prompt:
        """Of a raw text that is to be continued."""

        def decode(sampling: Sampling) -> AnswerDecoder:
            return AnswerDecoder(tokenizer, continuation=True, stops=sampling.stop, repeat_guard=sampling.repeat_guard)

        return cls(ids, tokenizer.stop_ids, decode, constrain=constrain)

    def request(self, sampling: Sampling, cancelled: Cancelled | None = None, progress: Progress | None = None) -> Request:
        """For the engine, of one answer."""
        constraint = None if self.constrain is None else self.constrain()
        stop_ids = frozenset[int]() if sampling.ignore_eos else self.stop_ids
        return Request(self.ids, sampling, stop_ids, cancelled, progress, self.shared, constraint=constraint)

    def answer(
        self, engine: Engine, sampling: Sampling, cancelled: Cancelled | None = None, progress: Progress | None = None
    ) -> Answer:
        """As it is iterated. Raises as `Engine.generate`, and OptionError for stop strings that cannot be."""
        decoder = self.decode(sampling)
        return Answer(engine.ask(self.request(sampling, cancelled, progress)), decoder)

    def answers(
        self, engine: Engine, count: int, sampling: Sampling, cancelled: Cancelled | None = None, progress: Progress | None = None
    ) -> list[Answer]:
        """So many answers, which run at the same time once anybody waits for one of them; the prompt is read once.

        With a seed, each has the next one. Raises as `answer`.
        """
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_ANSWERS:
            raise OptionError(f"{shown_value(count)} answers are wanted; it must be an integer from 1 to {MAX_ANSWERS}")
        samplings = [
            sampling if sampling.seed is None else dataclasses.replace(sampling, seed=(sampling.seed + place) % 2**63)
            for place in range(count)
        ]
        decoders = [self.decode(each) for each in samplings]
        first, *others = [self.request(each, cancelled, progress) for each in samplings]
        streams = [engine.submit(first)]
        streams += [engine.submit(each, after=streams[0]) for each in others]
        return [Answer(stream, decoder) for stream, decoder in zip(streams, decoders, strict=True)]
