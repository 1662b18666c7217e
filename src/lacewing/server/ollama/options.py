"""`options` and the other fields that Ollama's requests have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from lacewing.assistant.grammar.source import Grammar
from lacewing.options import Sampling
from lacewing.server.openai.bodies import ModelBody
from lacewing.server.openai.errors import RequestError
from lacewing.server.openai.fields import Refused, check_refused

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+")
_LONGEST = 64  # characters of a duration
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SAMPLER = "this sampler is not supported"
REFUSED: Mapping[str, Refused] = {
    "typical_p": Refused((1,), _SAMPLER),
    "tfs_z": Refused((1,), _SAMPLER),
    "mirostat": Refused((0,), _SAMPLER),
}
IGNORED: Mapping[str, str] = {
    "num_batch, num_gpu, main_gpu, num_thread, use_mmap, use_mlock, low_vram, f16_kv, vocab_only, numa": "the server decides",
    "num_keep": "contexts are never shifted",
    "draft_num_predict": "there is no draft model",
    "mirostat_tau, mirostat_eta, penalize_newline": "belong to samplers that there are not",
}


def _whole(value: Any) -> Any:
    """A number of JavaScript that is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


class Options(BaseModel):
    """How tokens are chosen, and how many."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    num_ctx: Annotated[Whole, Field(ge=1)] | None = Field(
        None,
        description="tokens of prompt and answer together, if that is less than the context; the model is not loaded anew for it",
    )
    num_predict: Annotated[Whole, Field(ge=-2, lt=2**31)] | None = Field(
        None, description="tokens; -1 and -2: to the end of the context"
    )
    temperature: float | None = Field(None, description="0 takes the likeliest token; default 0.8")
    top_k: Whole | None = Field(None, description="default 40; 0: off")
    top_p: float | None = Field(None, description="default 0.95")
    min_p: float | None = Field(None, description="default 0.05; 0: off")
    repeat_penalty: float | None = Field(None, description="default 1: off; so is 0, which Open WebUI sends")
    repeat_last_n: Whole | None = Field(None, description="tokens that penalties look at; default 64; -1: all")
    presence_penalty: float | None = Field(None, description="default 0")
    frequency_penalty: float | None = Field(None, description="default 0")
    seed: Whole | None = Field(None, description="the same seed gives the same answer, whatever else is served; below 0: random")
    stop: str | list[str] | None = Field(None, description="at most 16 strings; they are not part of the answer")

    def sampling(self, logprobs: int, room: int) -> Sampling:
        """`room`: tokens that an answer may have. Raises OptionError."""
        seed, wanted = self.seed, self.num_predict
        given = {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "repeat_penalty": self.repeat_penalty or None,
            "repeat_window": self.repeat_last_n,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
            "seed": None if seed is None else -1 if seed < 0 else seed % 2**63,
        }
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        limit = room if wanted is None or wanted < 0 else min(wanted, room)
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return Sampling(**chosen, max_tokens=limit, stop=stops, logprobs=logprobs)


_NONE = Options.model_validate({})


class OllamaBody(ModelBody):
    """A model, and how long it stays."""

    model: str = Field(min_length=1, description="a name of `/api/tags`, with `:latest` or without")
    options: Options | None = Field(None, description="see below")
    keep_alive: float | str | None = Field(
        None, description='how long the model stays in memory without a request: seconds, "5m", -1 for ever, 0 not at all'
    )

    @classmethod
    def parsed(cls, body: bytes) -> Self:
        found = cls.model_validate_json(body)
        check_refused(found.chosen.model_extra, REFUSED)
        found.seconds()
        return found

    @property
    def chosen(self) -> Options:
        return self.options or _NONE

    def seconds(self) -> float | None:
        """Of `keep_alive`; infinity: for ever. Raises RequestError."""
        given = self.keep_alive
        if given is None:
            return None
        found = float(given) if isinstance(given, (int, float)) else parse_duration(given)
        return math.inf if found < 0 else found


class AnswerBody(OllamaBody):
    """Fields of chat and generate alike."""

    stream: bool | None = Field(None, description="lines of JSON; default true")
    format: Literal["json", ""] | dict[str, Any] | None = Field(None, description='"json", or a schema that the text follows')
    think: bool | Literal["low", "medium", "high", "max"] | None = Field(
        None, description="whether, or how hard, the model thinks; default: as its template does. Thoughts are `thinking`"
    )
    truncate: bool | None = Field(
        None,
        description="of a conversation that is too long, the oldest turns are left out, and `dropped_messages` in the last line "
        "says how many messages; default true. Otherwise it is refused",
    )
    logprobs: bool | None = Field(None, description="of each token of the visible text")
    top_logprobs: Annotated[Whole, Field(ge=0, le=20)] | None = Field(None, description="0 to 20; needs `logprobs`")

    @property
    def streamed(self) -> bool:
        return self.stream is not False

    @property
    def top(self) -> int | None:
        """None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def grammar(self) -> Grammar | None:
        """Raises GrammarError."""
        if not self.format and self.format != {}:
            return None
        return Grammar.json_object() if self.format == "json" else Grammar.json_schema(self.format)

    @property
    def effort(self) -> str | None:
        """As `ChatOptions` takes it."""
        if self.think is None:
            return None
        if isinstance(self.think, bool):
            return "medium" if self.think else "none"
        return "high" if self.think == "max" else self.think


def parse_duration(text: str) -> float:
    """Seconds of what Go calls a duration, such as "1h30m", or of a number. Raises RequestError."""
    if len(text) <= _LONGEST and _NUMBER.fullmatch(text):
        return float(text)
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise RequestError(
            f"`keep_alive` is {text[:_LONGEST]!r}; it must be seconds, or a duration such as 5m or 1h30m",
            "keep_alive",
            code="invalid_value",
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return -seconds if match[1] == "-" else seconds
