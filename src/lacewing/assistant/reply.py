"""Conversations to answers: template, tokenizer and engine in a row. Shared by the server and the API."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lacewing.assistant.answer import Answer
from lacewing.assistant.decoder import AnswerDecoder
from lacewing.assistant.format import ChatFormat, Message
from lacewing.assistant.grammar.choices import bind
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.prompt import Prompt
from lacewing.assistant.tools.use import ToolRequest
from lacewing.engine.engine import Cancelled, Engine
from lacewing.errors import OptionError, TemplateError

if TYPE_CHECKING:
    from lacewing.options import Progress, Sampling
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

MARKED = 4  # earlier messages of the user at whose ends a windowed or recurrent model can resume, the newest


class Assistant:
    """Answers conversations with one engine. The engine's cached prefix makes the next turn of a conversation cheap."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, template: ChatTemplate):
        self.engine, self.format = engine, ChatFormat(tokenizer, template)

    def prompt(self, messages: Sequence[Message], options: ChatOptions | None = None) -> Prompt:
        """Of `messages`, each with "role" and "content". Raises TemplateError, OptionError, GrammarError."""
        options, form = options or ChatOptions(), self.format
        if isinstance(messages, Sequence) and not len(messages):
            raise TemplateError("the conversation is empty: it needs at least one message")
        begun: Message | None = None
        if options.continue_final:
            if messages[-1].get("role") != "assistant" or len(messages) == 1:
                raise OptionError("the last message must be the assistant's, after others, for the answer to continue it")
            messages, begun = messages[:-1], messages[-1]
        request = ToolRequest.of(options)
        bound = bind(options.constraint, form.tokenizer, self.engine.vocab_size, form.stop_ids, start=begun is None)
        options = dataclasses.replace(options, constraint=bound)
        given = self._variables(options) | form.tools.variables(request)
        conversation = form.tools.messages(messages, request)
        ids = form.template.encode(conversation, form.tokenizer, **given)
        tag = form.opened(ids)
        answering = False
        if begun is not None:
            tail, tag, answering = form.resume(begun, tag)
            ids = form.template.encode(conversation, form.tokenizer, tail=tail, **given)

        def decode(sampling: Sampling) -> AnswerDecoder:
            return form.decoder(form.splitter(tag, answering=answering, request=request), sampling, begun, request)

        system = list(itertools.takewhile(lambda each: each.get("role") == "system", messages))
        ends = [place + 1 for place, each in enumerate(messages) if each.get("role") == "user"][-1 - MARKED : -1]
        beginnings = [system, *(messages[:end] for end in ends)]  # the end of the last one is that of the prompt
        shared = form.shared(self.engine, (form.tools.messages(each, request) for each in beginnings if each), ids, **given)
        constrain = form.constrain(self.engine.vocab_size, options, ids, tag, answering=answering, request=request)
        return Prompt(ids, form.stop_ids, decode, shared, constrain)

    def reply(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        cancelled: Cancelled | None = None,
        progress: Progress | None = None,
        options: ChatOptions | None = None,
    ) -> Answer:
        """The answer to `messages`. Raises TemplateError, ContextOverflowError, OptionError."""
        return self.prompt(messages, options).answer(self.engine, sampling, cancelled, progress)

    def _variables(self, options: ChatOptions) -> dict[str, Any]:
        """For the template. A caller's own take precedence over what the effort says."""
        given = {} if options.reasoning_effort is None else self.format.effort.of(options.reasoning_effort)
        return {**given, **options.template_arguments}
