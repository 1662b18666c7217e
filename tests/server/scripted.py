"""A server whose model says what a test wants: the real one, bound to a text, token by token."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from tests.assistant.speaking import Spelling
from tests.server.serving import OneModel, Served


class ScriptedAssistant(Assistant):
    """`script`: what every answer says; None: whatever the model likes. `seen`: the messages and options of the last request."""

    script: str | None = None
    seen: Any = None

    def prompt(self, messages, options=None) -> Prompt:
        self.seen = messages, options
        prompt = super().prompt(messages, options)
        script = self.script
        return prompt if script is None else dataclasses.replace(prompt, constrain=lambda: Spelling(self.format.tokenizer, script))


class Scripted(OneModel):
    """A registry of one model with such an assistant."""

    def __init__(self, model, name: str = "tiny"):
        super().__init__(model, name)
        self.assistant = ScriptedAssistant(model.engine, model.tokenizer, model.template)

    @contextlib.asynccontextmanager
    async def use(self, name: str | None, progress: Any = None) -> AsyncIterator[Served]:
        async with super().use(name, progress) as served:
            served.worker.assistant = self.assistant
            yield served
