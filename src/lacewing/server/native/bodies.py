"""Requests of llama-server's own API for continuations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from lacewing.server.openai.bodies import AnswerFields
from lacewing.server.openai.completions import MAX_PROMPTS, MAX_TOP, TokenId
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.messages import Given

MAX_EXTRA = 256  # files beside the one that is filled in

Mixed = Annotated[list[str | TokenId], Field(min_length=1)]


class NativeFields(AnswerFields):
    """How texts are continued."""

    n_predict: Annotated[int, Field(ge=-2, lt=2**31)] | None = Field(
        None, description="as `max_tokens`, and goes before it; 0: the prompt is read into the cache alone"
    )
    n_probs: Annotated[int, Field(ge=0, le=MAX_TOP)] | None = Field(None, description="0 to 20 likeliest tokens beside each one")
    return_tokens: bool | None = Field(None, description="`tokens` has the ids of the answer; in a stream it always has")
    json_schema: dict[str, Any] | None = Field(None, description="a schema that the text follows")
    grammar: str | None = Field(None, description="a grammar that the text follows, in GBNF or Lark")

    @property
    def limit(self) -> int | None:
        """Tokens of an answer; None: to the end of the context."""
        wanted = self.max_tokens if self.n_predict is None else self.n_predict
        return None if wanted is None or wanted < 0 else wanted

    @property
    def several(self) -> bool:
        """Whether the answer is a list."""
        return False

    def check(self) -> None:
        """Raises RequestError for what is not supported."""
        if self.n not in (None, 1):
            raise RequestError("`n` is not supported here: send several prompts, or ask /v1/completions", "n")


class CompletionBody(NativeFields):
    """What is to be continued."""

    prompt: str | Annotated[list[str | TokenId | Mixed], Field(min_length=1)] = Field(
        description="a text, token ids, a list of both, or a list of several such prompts; spellings of control tokens become "
        "these tokens, so never put text from others there"
    )

    @property
    def several(self) -> bool:
        return isinstance(self.prompt, list) and (
            any(isinstance(each, list) for each in self.prompt) or all(isinstance(each, str) for each in self.prompt)
        )

    @property
    def prompts(self) -> list[list[str | int]]:
        """Each in pieces. Raises RequestError."""
        prompt: Any = self.prompt
        if isinstance(prompt, str):
            return [[prompt]]
        if not self.several:
            return [prompt]
        if len(prompt) > MAX_PROMPTS:
            raise RequestError(f"{len(prompt)} prompts are too many; at most {MAX_PROMPTS}", "prompt", code="invalid_value")
        return [each if isinstance(each, list) else [each] for each in prompt]


class Extra(Given):
    """Another file of the project."""

    filename: str = ""
    text: str


class InfillBody(NativeFields):
    """A text whose middle is wanted."""

    input_prefix: str = Field(description="what stands before")
    input_suffix: str = Field(description="what stands behind")
    input_extra: Annotated[list[Extra], Field(max_length=MAX_EXTRA)] | None = Field(
        None, description='other files of the project: {"filename", "text"}'
    )
    prompt: str | None = Field(None, description="how the middle begins")
