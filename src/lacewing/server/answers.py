"""The answers that one request asks for: which prompts, in which order they begin, and what has come of them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lacewing.errors import ContextOverflowError, LacewingError
from lacewing.server.feed import Choice, Feed

if TYPE_CHECKING:
    from lacewing.assistant.prompt import Prompt
    from lacewing.engine.request import Request
    from lacewing.options import Sampling
    from lacewing.server.context import Served
    from lacewing.server.events import Observers, Record


@dataclass(frozen=True)
class Job:
    """One answer that is wanted. Several to the same prompt stand together. `seconds`: that it may take once it has begun;
    `prompt_logprobs` and `pooling` as of the engine's requests."""

    prompt: Prompt
    sampling: Sampling
    seconds: float | None = None
    prompt_logprobs: int = 0
    pooling: str | None = None

    @property
    def request(self) -> Request:
        """For the engine."""
        request = self.prompt.request(self.sampling)
        return replace(request, prompt_logprobs=self.prompt_logprobs, pooling=self.pooling, responsive=True)


class Answers(Feed):
    """Runs jobs on a model. `who`: whose requests share a turn in the queue."""

    def __init__(
        self, served: Served, jobs: Sequence[Job], who: Hashable, patience: float, observers: Observers, record: Record, whole: bool
    ):
        super().__init__(observers, record, whole)
        self.jobs = jobs
        prompts = {key: place for place, key in enumerate(dict.fromkeys(id(job.prompt) for job in jobs))}
        for index, job in enumerate(jobs):
            self.choices.append(Choice(self, index, prompts[id(job.prompt)], job.prompt.decode(job.sampling)))
        self._served, self._who, self._patience = served, who, patience
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Returns when the first of them runs. Others to its prompt begin when that has been read, and find it in the cache."""
        first = self.choices[0]
        for choice, job, before in zip(self.choices[1:], self.jobs[1:], self.jobs, strict=False):
            if job.prompt is not before.prompt:
                first = choice
            self._tasks.add(asyncio.create_task(self._follow(choice, first)))
        await self._submit(self.choices[0])

    async def _follow(self, choice: Choice, first: Choice) -> None:
        if first is not choice:
            await first.begun.wait()
        try:
            await self._submit(choice, ahead=first is not choice)
        except LacewingError as error:
            choice.fail(error)

    async def _submit(self, choice: Choice, ahead: bool = False) -> None:
        job, worker = self.jobs[choice.index], self._served.worker
        choice.place = place = await worker.queue.enter(self._who, self._patience, ahead)
        try:
            choice.ticket = worker.submit(job.request, choice.decoder, choice, job.seconds)
        except BaseException:
            place.leave()
            raise

    def close(self) -> None:
        """Nobody wants the rest of any."""
        for task in self._tasks:
            task.cancel()
        for choice in self.choices:
            choice.cancel()


def check_length(prompt: Prompt, context: int, param: str) -> None:
    """Raises ContextOverflowError for a prompt after which nothing could be generated."""
    if len(prompt.ids) > context:
        raise PromptTooLongError(len(prompt.ids), context, param)


class PromptTooLongError(ContextOverflowError):
    """As OpenAI and llama-server tell it."""

    def __init__(self, tokens: int, context: int, param: str):
        # clients know it by words of these: litellm, and with it many agents
        super().__init__(
            f"the prompt is too long: this model's maximum context length is {context} tokens, and it has {tokens}; shorten it"
        )
        self.param = param
        self.more = {"n_prompt_tokens": tokens, "n_ctx": context}
