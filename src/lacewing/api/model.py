"""The Python API: a model that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from lacewing.api.device import DeviceModel
from lacewing.assistant.answer import Answer
from lacewing.assistant.format import Message
from lacewing.assistant.options import ChatArguments, make_chat_options
from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from lacewing.errors import TemplateError
from lacewing.options import Progress, SamplingArguments, make_sampling
from lacewing.placement.info import ModelInfo

if TYPE_CHECKING:
    import numpy as np

    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer


class EmbedArguments(TypedDict, total=False):
    """The keyword arguments of `Model.embed`, all optional."""

    pooling: str | None
    normalise: bool
    dimensions: int | None
    cancelled: Callable[[], bool] | None
    progress: Progress | None


class Model(DeviceModel):
    """A model ready to run: one conversation at a time, not for several threads at once. Made by `load`."""

    def __init__(
        self, info: ModelInfo, progress: Progress | None = None, *, cancelled: Callable[[], bool] | None = None, spare: int = 0
    ):
        super().__init__(info, progress, cancelled=cancelled, spare=spare)
        self._last: Answer | None = None
        self._assistant: Assistant | None = None

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises TokenizerError when the checkpoint has none that can be read."""
        return self._info.tokenizer.result()

    @property
    def template(self) -> ChatTemplate:
        """Raises TemplateError when the checkpoint has none."""
        return self._info.template.result()

    @property
    def has_template(self) -> bool:
        """Whether `chat` works."""
        try:
            return bool(self.template)
        except TemplateError:
            return False

    @property
    def assistant(self) -> Assistant:
        """Conversations to prompts and answers. Raises TokenizerError, TemplateError."""
        if self._assistant is None or self._assistant.engine is not self.engine:
            self._assistant = Assistant(self.engine, self.tokenizer, self.template)
        return self._assistant

    @property
    def stats(self) -> dict[str, float]:
        """Counters of the last generation."""
        return self._last.stats.as_dict() if self._last else {}

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Float32 (T, V): row t are the logits of the token after ids[: t + 1]. Needs no tokenizer."""
        return self.engine.logits(ids)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text alone, without BOS; `special` as for `stream`."""
        return self.tokenizer.encode_markup(text) if special else self.tokenizer.encode(text)

    def detokenize(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; `special`: with the spellings of control tokens."""
        return self.tokenizer.decode(ids, special=special)

    def render(self, messages: Sequence[Message], **options: Any) -> str:
        """The prompt that a conversation becomes, as text; the options are variables of the template, such as `tools`,
        `enable_thinking` and `add_generation_prompt`. Raises TemplateError."""
        return self.template.render(messages, **options)

    @property
    def pooling(self) -> str:
        """How `embed` pools where nothing is said: as the checkpoint was trained to, else "last". Raises UnsupportedModelError."""
        from lacewing.assistant.embedding import POOLING
        from lacewing.models.pooling import pooling_of

        return pooling_of(self._info.checkpoint) or POOLING

    @overload
    def embed(self, texts: str, **options: Unpack[EmbedArguments]) -> np.ndarray: ...

    @overload
    def embed(self, texts: list[str] | tuple[str, ...], **options: Unpack[EmbedArguments]) -> list[np.ndarray]: ...

    def embed(self, texts: str | list[str] | tuple[str, ...], **options: Unpack[EmbedArguments]) -> np.ndarray | list[np.ndarray]:
        """Vectors for texts, from the hidden states after the final norm: of one text float32 (D,), of several a list of these.

        `pooling`: "last" token, "mean" of all, or "none", which gives (T, D); by default `pooling` of the model. `normalise`: to
        length 1, by default. `dimensions`: so many of the first values alone. `load` with `sequences` to run several together.
        """
        from lacewing.assistant.embedding import embed

        chosen: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        pooling = chosen.pop("pooling", None) or self.pooling
        self._check()
        found = embed(self.engine, self.tokenizer, [texts] if isinstance(texts, str) else texts, pooling, **chosen)
        return found[0] if isinstance(texts, str) else found

    def stream(
        self,
        prompt: str,
        *,
        special: bool = False,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        **sampling: Unpack[SamplingArguments],
    ) -> Answer:
        """The continuation of a raw text, piece by piece; the options are the fields of `Sampling`.

        `special`: spellings of control tokens in the prompt become these tokens, as fill-in-the-middle and prompts with markup
        of their own need it; never set it for text from others.
        """
        options, tokenizer = make_sampling(dict(sampling)), self.tokenizer
        self._check()
        ids = tokenizer.encode_prompt(prompt, markup=special)
        self._last = Prompt.of_text(tokenizer, ids).answer(self.engine, options, cancelled, progress)
        return self._last

    def generate(self, prompt: str, *, special: bool = False, **sampling: Unpack[SamplingArguments]) -> str:
        """The continuation of a raw text; `special` as for `stream`, the other options are the fields of `Sampling`."""
        return "".join(self.stream(prompt, special=special, **sampling))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ChatArguments],
    ) -> Answer:
        """The answer to a conversation, piece by piece: strings of text, with the thoughts beside it (`Delta.reasoning`).

        The other options are the fields of `ChatOptions` and of `Sampling`.
        """
        chosen, sampling = make_chat_options(options)
        self._check()
        self._last = self.assistant.reply(messages, sampling, cancelled, progress, chosen)
        return self._last
