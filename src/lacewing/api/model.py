"""The Python API: a model that answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from lacewing.api.device import DeviceModel
from lacewing.assistant.answer import Answer, run_all
from lacewing.assistant.format import Message
from lacewing.assistant.grammar.choices import bind
from lacewing.assistant.options import ChatArguments, TextArguments, make_chat_options, make_text_options
from lacewing.assistant.prompt import Prompt
from lacewing.assistant.reply import Assistant
from lacewing.errors import TemplateError
from lacewing.options import Progress, Sampling
from lacewing.placement.info import ModelInfo

if TYPE_CHECKING:
    import numpy as np

    from lacewing.assistant.asynchronous import AsyncAnswer, AsyncAnswers
    from lacewing.assistant.grammar.source import Grammar
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
        self._answers: AsyncAnswers | None = None

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
        **options: Unpack[TextArguments],
    ) -> Answer:
        """The continuation of a raw text, piece by piece; the options are the fields of `Sampling`, and one of `json`,
        `json_schema`, `regex` and `grammar` that the text must follow.

        `special`: spellings of control tokens in the prompt become these tokens, as fill-in-the-middle and prompts with markup
        of their own need it; never set it for text from others.
        """
        grammar, sampling = make_text_options(options)
        self._last = self._text_prompt(prompt, special, grammar).answer(self.engine, sampling, cancelled, progress)
        return self._last

    @overload
    def generate(self, prompt: str, *, special: bool = False, **options: Unpack[TextArguments]) -> str: ...

    @overload
    def generate(
        self, prompt: list[str] | tuple[str, ...], *, special: bool = False, **options: Unpack[TextArguments]
    ) -> list[str]: ...

    def generate(
        self, prompt: str | list[str] | tuple[str, ...], *, special: bool = False, **options: Unpack[TextArguments]
    ) -> str | list[str]:
        """The continuation of a raw text, or those of several; `special` as for `stream`, the other options are the fields of
        `Sampling`. `load` with `sequences` to run several together."""
        if isinstance(prompt, str):
            return "".join(self.stream(prompt, special=special, **options))
        grammar, sampling = make_text_options(options)
        prompts = [self._text_prompt(each, special, grammar) for each in prompt]
        answers = [Answer(self.engine.submit(each.request(sampling)), each.decode(sampling)) for each in prompts]
        run_all(self.engine, answers)
        self._last = answers[-1] if answers else self._last
        return ["".join(answer) for answer in answers]

    async def agenerate(
        self, prompt: str | list[str] | tuple[str, ...], *, special: bool = False, **options: Unpack[TextArguments]
    ) -> str | list[str]:
        """As `generate`, for event loops. Whoever is cancelled while waiting cancels what it waits for."""
        from lacewing.assistant.asynchronous import texts

        prompts = (prompt,) if isinstance(prompt, str) else prompt
        found = await texts([self.astream(each, special=special, **options) for each in prompts])
        return found[0] if isinstance(prompt, str) else found

    def astream(self, prompt: str, *, special: bool = False, **options: Unpack[TextArguments]) -> AsyncAnswer:
        """As `stream`, for `async for`; errors of the prompt come with the first piece."""
        grammar, sampling = make_text_options(options)
        return self._asynchronous.answer(lambda: (self._text_prompt(prompt, special, grammar), sampling))

    def _text_prompt(self, text: str, special: bool, grammar: Grammar | None) -> Prompt:
        self._check()
        tokenizer = self.tokenizer
        constrain = bind(grammar, tokenizer, self.engine.vocab_size, tokenizer.stop_ids, start=False)
        return Prompt.of_text(tokenizer, tokenizer.encode_prompt(text, markup=special), constrain)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ChatArguments],
    ) -> Answer:
        """The answer to a conversation, piece by piece: strings of text, with the thoughts beside it (`Delta.reasoning`).

        The other options are the fields of `ChatOptions` and of `Sampling`, and one of `json`, `json_schema`, `regex` and `grammar`
        that the answer must follow behind its thoughts. Raises GrammarError for one that cannot be followed.
        """
        chosen, sampling = make_chat_options(options)
        self._check()
        self._last = self.assistant.reply(messages, sampling, cancelled, progress, chosen)
        return self._last

    def answers(
        self,
        messages: Sequence[Message],
        count: int,
        *,
        cancelled: Callable[[], bool] | None = None,
        progress: Progress | None = None,
        **options: Unpack[ChatArguments],
    ) -> list[Answer]:
        """As `chat`, several answers to one conversation, which is read once; they run together if the model was loaded with
        `sequences`. With a seed, the first has it and each of the others the next one."""
        chosen, sampling = make_chat_options(options)
        self._check()
        found = self.assistant.prompt(messages, chosen).answers(self.engine, count, sampling, cancelled, progress)
        self._last = found[-1]
        return found

    def achat(self, messages: Sequence[Message], **options: Unpack[ChatArguments]) -> AsyncAnswer:
        """As `chat`, for `async for`; errors of the conversation come with the first piece.

        Many may run at the same time, as many together as `load` was told `sequences`; one thread runs all of them. A task that is
        cancelled while it waits for a piece cancels its answer.
        """
        chosen, sampling = make_chat_options(options)

        def prepare() -> tuple[Prompt, Sampling]:
            self._check()
            return self.assistant.prompt(messages, chosen), sampling

        return self._asynchronous.answer(prepare)

    @property
    def _asynchronous(self) -> AsyncAnswers:
        from lacewing.assistant.asynchronous import AsyncAnswers
        from lacewing.assistant.driver import Driver

        if self._answers is None or self._answers.driver.engine is not self.engine:
            self._answers = AsyncAnswers(Driver(self.engine))
        return self._answers

    def close(self) -> None:
        """Free the memory. The model cannot be used afterwards, unless `return_to_device` brings it back."""
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.driver.close()
        super().close()
