"""Messages to a stream of text: template, tokenizer and engine in a row. Shared by the chat and the API."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lacewing.assistant.streams import TextStream
from lacewing.engine.engine import Cancelled, Engine, common_prefix
from lacewing.errors import TemplateError

if TYPE_CHECKING:
    from lacewing.options import Progress, Sampling
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

Message = Mapping[str, Any]

MARKED = 4  # earlier messages of the user at whose ends a windowed or recurrent model can resume, the newest


class Assistant:
    """Answers conversations with one engine. The engine's cached prefix makes the next turn of a conversation cheap."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate):
        self.engine, self.tokenizer, self.template = engine, tokenizer, template

    def reply(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
    ) -> TextStream:
        """The answer to `messages`, each with "role" and "content". Raises TemplateError, ContextOverflowError."""
        if isinstance(messages, Sequence) and not len(messages):
            raise TemplateError("the conversation is empty: it needs at least one message")
        ids = self.template.encode(messages, self.tokenizer)
        system = list(itertools.takewhile(lambda each: each.get("role") == "system", messages))
        ends = [place + 1 for place, each in enumerate(messages) if each.get("role") == "user"][-1 - MARKED : -1]
        beginnings = [system, *(messages[:end] for end in ends)]  # the end of the last one is that of the prompt
        shared = shared_prefixes(self.engine, self.template, self.tokenizer, beginnings, ids)
        return TextStream(self.engine, self.tokenizer, ids, sampling, cancelled, progress, shared=shared)


def shared_prefixes(
    engine: Engine,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    beginnings: Sequence[Sequence[Message]],
    ids: Sequence[int],
    **options: Any,
) -> tuple[int, ...]:
    """How many of a prompt's ids are due to each beginning of its conversation; nothing if the engine finds any prefix."""
    found = set()
    for begun in beginnings if engine.needs_marks else ():
        if not begun:
            continue
        if begun[-1].get("role") == "system":
            # a message of the user stands behind them, which many templates want, and into which some write the system's
            begun = [*begun, {"role": "user", "content": ""}]
        try:
            found.add(common_prefix(template.encode(begun, tokenizer, add_generation_prompt=False, **options), ids))
        except TemplateError:
            continue
    return tuple(sorted(found))
