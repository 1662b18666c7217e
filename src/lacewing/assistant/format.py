"""How one model speaks under one template: what ends its answers, and how its thoughts and its text are told apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from lacewing.assistant.decoder import AnswerDecoder, PlainSplitter, Splitter
from lacewing.assistant.either import EitherConstraint
from lacewing.assistant.following import ChannelFollower, Follower, TaggedFollower
from lacewing.assistant.options import ChatOptions
from lacewing.assistant.thinking import ThinkingConstraint
from lacewing.assistant.tools.use import ToolRequest, ToolUse
from lacewing.engine.engine import Engine, common_prefix
from lacewing.errors import OptionError, TemplateError
from lacewing.text.reasoning import (
    CHANNEL,
    MESSAGE,
    TAGS,
    ChannelSplitter,
    ReasoningSplitter,
    closed,
    is_harmony,
    opened,
    thoughts_of,
    visible_marks,
)

if TYPE_CHECKING:
    from lacewing.engine.constraint import Constraint
    from lacewing.options import Sampling
    from lacewing.text.effort import EffortVariables
    from lacewing.text.template import ChatTemplate
    from lacewing.text.tokenizer import Tokenizer

Message = Mapping[str, Any]
Tail = Sequence[tuple[str, bool]]  # (text, trusted) after the prompt


class Resumed(NamedTuple):
    """An answer that goes on: the part of it that follows the prompt, the tag of thoughts that is open behind it, and whether the
    thoughts are over."""

    tail: list[tuple[str, bool]]
    tag: str | None
    answering: bool


class ChatFormat:
    """A tokenizer with a template. `stop_ids` and `stops` end an answer; `marks`: control tokens that a splitter has to see."""

    def __init__(self, tokenizer: Tokenizer, template: ChatTemplate):
        from lacewing.text.lint import stops_of

        self.tokenizer, self.template = tokenizer, template
        self.stop_ids, self.stops = stops_of(template, tokenizer)
        self.harmony = is_harmony(tokenizer)
        self.marks = visible_marks(tokenizer)

    def opened(self, ids: Sequence[int]) -> str | None:
        """The tag of thoughts at the end of a prompt."""
        return opened(self.tokenizer.decode(ids[-24:], special=True))

    @cached_property
    def effort(self) -> EffortVariables:
        """What the template reads of the effort to think."""
        from lacewing.text.effort import EffortVariables

        return EffortVariables(self.template)

    @cached_property
    def tools(self) -> ToolUse:
        """How the model uses tools under this template."""
        return ToolUse(self.tokenizer, self.template)

    def follower(
        self, ids: Sequence[int], tag: str | None, *, answering: bool = False, request: ToolRequest | None = None
    ) -> Follower:
        """What tells where in the answer to a prompt a model is. `tag`: open at its end; `answering`: thoughts are over; `request`:
        the tools that it may call, in its thoughts too if it need not."""
        if self.harmony:
            return ChannelFollower(self.tokenizer, answering, request is not None)
        over = answering or (tag is None and closed(self.tokenizer.decode(ids[-24:], special=True)))
        calls = self.tools.begins if request is not None and not request.must else ()
        return TaggedFollower(self.tokenizer, tag, over, self.visible(request), calls)

    def constrain(
        self,
        vocab_size: int,
        options: ChatOptions,
        ids: Sequence[int],
        tag: str | None,
        *,
        answering: bool = False,
        request: ToolRequest | None = None,
    ) -> Callable[[], Constraint] | None:
        """What bounds the thoughts of an answer and the text behind them; None if nothing does. The last as for `follower`.

        Where the text is bound, and tools may be called instead, the answer is one or the other, and the calls are bound as well.
        Raises GrammarError, and OptionError for a model whose strict calls and text cannot be bound together.
        """
        budget, either = options.reasoning_budget, options.constraint is not None and request is not None and not request.must
        if request is not None and request.bound and either and self.tools.whole:
            raise OptionError("this model cannot have both a text that is bound and strict tools; leave one of them out")
        bound = request is not None and (request.bound or (either and not self.tools.whole))
        calls = self.tools.compiled(request, vocab_size, free=not (request.must or either)) if request and bound else None
        if budget is None and options.reasoning_effort == "none" and not self.effort.can_be_off:
            budget = 0
        if budget is None and options.constraint is None and calls is None:
            return None

        def make() -> Constraint:
            follower = self.follower(ids, tag, answering=answering, request=request)
            inner = options.constraint() if callable(options.constraint) else None
            if calls is not None:
                called = calls.follow(self.stop_ids, start=not answering)
                inner = EitherConstraint([called, inner]) if either and inner is not None else called
            whole = calls is not None and self.tools.whole
            return ThinkingConstraint(self.tokenizer, vocab_size, follower, budget, inner, whole, stop_ids=self.stop_ids)

        return make

    def splitter(self, tag: str | None, *, answering: bool = False, request: ToolRequest | None = None) -> Splitter:
        """For an answer; `tag`, `answering` and `request` as for `follower`."""
        if answering and request is None:
            return PlainSplitter()
        splitter = ChannelSplitter() if self.harmony else ReasoningSplitter(tag)
        if request is None:
            return splitter
        if answering:
            splitter.interrupt()
        return self.tools.splitter(request, splitter)

    def visible(self, request: ToolRequest | None = None) -> dict[int, str]:
        """Control tokens that a splitter has to see, by id."""
        return self.marks if request is None else self.marks | {token: mark for mark, token in self.tools.tokens.items()}

    def resume(self, message: Message, tag: str | None) -> Resumed:
        """How a message of the assistant goes on, behind a prompt that has opened a tag."""
        thoughts, content = thoughts_of(message), message.get("content") or ""
        if self.harmony:
            return Resumed([(f"{CHANNEL}final{MESSAGE}", True), (content, False)], None, True)
        if not (thoughts or tag):
            return Resumed([(content, False)], None, True)
        begin = tag or "<think>"
        tail = [("" if tag else f"{begin}\n", True), (thoughts, False)]
        if not content:
            return Resumed(tail, begin, False)
        return Resumed([*tail, (f"\n{TAGS[begin]}\n\n", True), (content, False)], None, True)

    def decoder(
        self, splitter: Splitter, sampling: Sampling, begun: Message | None = None, request: ToolRequest | None = None
    ) -> AnswerDecoder:
        """`begun`: the message that the answer goes on with; `request`: the tools that it may call."""
        return AnswerDecoder(
            self.tokenizer, splitter, continuation=begun is not None, visible=self.visible(request), stops=sampling.stop,
            markup_stops=self.stops, repeat_guard=sampling.repeat_guard, begun=begun,
        )  # fmt: skip

    def shared(
        self, engine: Engine, beginnings: Iterable[Sequence[Message]], ids: Sequence[int], **options: Any
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
                start = self.template.encode(begun, self.tokenizer, add_generation_prompt=False, **options)
            except TemplateError:
                continue
            found.add(common_prefix(start, ids))
        return tuple(sorted(found))
