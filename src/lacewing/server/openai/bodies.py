"""What requests for answers have in common: typed fields, each with its limits, and the `Sampling` that they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from lacewing.options import Sampling
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.fields import REFUSED, Refused, check_refused

MAX_CHOICES = 8
MAX_STOPS, MAX_STOP = 16, 256  # strings, characters of one
MAX_BIASES = 1024
NEVER = -1e9  # the bias of a token that is not wanted at all

StopString = Annotated[str, StringConstraints(min_length=1, max_length=MAX_STOP)]
Stops = StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class Body(BaseModel):
    """A body in JSON. Values are not converted, but for integers where a number is wanted; null is the default."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    refused: ClassVar[Mapping[str, Refused]] = REFUSED

    @classmethod
    def parsed(cls, body: bytes) -> Self:
        """Raises pydantic's ValidationError, and RequestError for fields that are refused."""
        found = cls.model_validate_json(body)
        check_refused(found.model_extra, cls.refused)
        return found


class ModelBody(Body):
    """A body that names a model."""

    model: str | None = Field(None, description="a name of `/v1/models`; without it, the server's first model")

    @property
    def streamed(self) -> bool:
        return False


class NamedModelBody(ModelBody):
    """A body that has to name a model, as OpenAI's API wants it; a server of several would have to guess."""

    model: str = Field(min_length=1, description="a name of `/v1/models`")


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool | None = Field(None, description="a last chunk without choices tells `usage`")


class AnswerFields(ModelBody):
    """How an answer is made, whatever it answers."""

    stream: bool | None = Field(None, description="server-sent events instead of one JSON object")
    stream_options: StreamOptions | None = Field(None, description="`include_usage`")
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(None, description="answers to one prompt, 1 to 8")
    max_tokens: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="-1 or none: to the end of the context")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="0 takes the likeliest token; default 0.8")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default 0.95")
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(None, description="default 40; 0 or -1: off")
    min_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="default 0.05; 0: off")
    presence_penalty: Penalty | None = Field(None, description="-2 to 2; default 0")
    frequency_penalty: Penalty | None = Field(None, description="-2 to 2; default 0")
    repeat_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = Field(None, description="default 1: off")
    repeat_last_n: Annotated[int, Field(ge=-1, lt=2**31)] | None = Field(
        None, description="tokens that penalties look at; default 64; -1: all"
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = Field(
        None, description="the same seed gives the same answer, whatever else is served; -1: random"
    )
    stop: Stops | None = Field(None, description="a string or at most 16, of 256 characters each; they are not part of the answer")
    logit_bias: dict[str, float | bool] | list[tuple[int | str, float | bool]] | None = Field(
        None, description="token id to -100 ... 100; `false`: never; also a list of [id, bias], as llama-server has it"
    )
    ignore_eos: bool | None = Field(None, description="end by `max_tokens` and `stop` only")
    repeat_guard: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="tokens that an answer may do nothing but repeat itself for, before it is ended; default 640; 0: off"
    )
    timings_per_token: bool | None = Field(None, description="`timings` in each chunk")
    t_max_predict_ms: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description='the answer ends with "length" once it took so long'
    )

    @field_validator("logit_bias")
    @classmethod
    def _check_bias(cls, value: Any) -> Any:
        if value is not None and len(value) > MAX_BIASES:
            raise ValueError(f"has {len(value)} entries; at most {MAX_BIASES} are accepted")
        return value

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def seconds(self) -> float | None:
        """That an answer may take."""
        return None if self.t_max_predict_ms is None else self.t_max_predict_ms / 1000

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    def sampling(self, max_tokens: int | None, logprobs: int) -> Sampling:
        """Raises RequestError."""
        options: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "min_p": self.min_p,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "repeat_penalty": self.repeat_penalty,
            "repeat_window": self.repeat_last_n,
            "seed": None if self.seed is None else self.seed if self.seed >= -1 else self.seed & (2**63 - 1),
            "max_tokens": max_tokens,
            "ignore_eos": self.ignore_eos,
            "repeat_guard": self.repeat_guard,
        }
        given = {name: value for name, value in options.items() if value is not None}
        return Sampling(**given, stop=self.stops, logit_bias=self._biases(), logprobs=logprobs)

    def seeded(self, sampling: Sampling) -> list[Sampling]:
        """For each of the `n` answers: with seeds in a row, so that they differ."""
        count, seed = self.n or 1, sampling.seed
        return [sampling if seed is None else replace(sampling, seed=(seed + index) % 2**63) for index in range(count)]

    def _biases(self) -> dict[int, float]:
        given = self.logit_bias
        pairs = given.items() if isinstance(given, dict) else given or ()
        found = {}
        for token, bias in pairs:
            if isinstance(token, str) and not (token.isascii() and token.isdecimal() and len(token) < 12):
                raise RequestError(
                    f"`logit_bias` names {token!r}; it must be the id of a token", "logit_bias", code="invalid_value"
                )
            if bias is True or (bias is not False and not -100 <= bias <= 100):
                message = f"the bias of token {token} must be a number from -100 to 100, or false"
                raise RequestError(f"`logit_bias`: {message}", "logit_bias", code="invalid_value")
            found[int(token)] = NEVER if bias is False else float(bias)
        return found


class AnswerBody(AnswerFields):
    """Fields of chat and completions alike."""

    model: str = Field(min_length=1, description="a name of `/v1/models`")


ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh"]
