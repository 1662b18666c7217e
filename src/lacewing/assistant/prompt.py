"""All that is known of an answer before the engine is asked: the ids, what ends it, and what its tokens are decoded with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.assistant.answer import Answer
from lacewing.assistant.decoder import AnswerDecoder
from lacewing.engine.engine import Cancelled, Engine, Request

if TYPE_CHECKING:
    from lacewing.options import Progress, Sampling
    from lacewing.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """`shared`: lengths of prefixes of `ids` that other prompts will share. `decode` makes the decoder of one answer; the same
    prompt can be answered several times."""

    ids: Sequence[int]
    stop_ids: frozenset[int]
    decode: Callable[[Sampling], AnswerDecoder]
    shared: tuple[int, ...] = ()

    @classmethod
    def of_text(cls, tokenizer: Tokenizer, ids: Sequence[int]) -> Prompt:
        """Of a raw text that is to be continued."""

        def decode(sampling: Sampling) -> AnswerDecoder:
            return AnswerDecoder(tokenizer, continuation=True, stops=sampling.stop, repeat_guard=sampling.repeat_guard)

        return cls(ids, tokenizer.stop_ids, decode)

    def request(self, sampling: Sampling, cancelled: Cancelled | None = None, progress: Progress | None = None) -> Request:
        """For the engine."""
        return Request(self.ids, sampling, self.stop_ids, cancelled, progress, self.shared)

    def answer(
        self, engine: Engine, sampling: Sampling, cancelled: Cancelled | None = None, progress: Progress | None = None
    ) -> Answer:
        """As it is iterated. Raises as `Engine.generate`, and OptionError for stop strings that cannot be."""
        decoder = self.decode(sampling)
        return Answer(engine.generate(self.ids, sampling, self.stop_ids, cancelled, progress, self.shared), decoder)
