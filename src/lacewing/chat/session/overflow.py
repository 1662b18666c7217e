"""When a conversation does not fit the context: stop, hide the oldest messages, or let the model summarise them.

Messages are only hidden from the model; the conversation keeps every one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lacewing.assistant.format import Tail
from lacewing.chat.session.formatter import ChatFormatter, VisibleHistory
from lacewing.chat.session.models import OnDevice
from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import Cancelled, ContextOverflowError
from lacewing.options import Sampling, counted

_ROOM = 0.75  # of the context may be filled after messages were hidden, so that it does not happen at every turn
SUMMARISE = (
    "Summarise the following conversation in one short paragraph. Keep names, numbers, decisions and open questions. "
    "Write only the summary.\n\n"
)

Summarise = Callable[[Sequence[Message], "str | None"], str]


@dataclass(frozen=True)
class Fit:
    """A prompt that fits, what the model sees of the conversation, and what a person should know."""

    ids: list[int]
    history: VisibleHistory
    notices: tuple[str, ...] = ()


def fit(
    formatter: ChatFormatter,
    messages: Sequence[Message],
    settings: Settings,
    summarise: Summarise | None,
    *,
    generation: bool = True,
    tail: Tail = (),
) -> Fit:
    """The prompt for the next answer, or for the rest of one that begins with `tail`.

    Raises ContextOverflowError by the policy, TemplateError. `summarise` None: only look whether it is possible; the summary
    is not changed.
    """

    def write(history: VisibleHistory) -> list[int]:
        return formatter.ids(messages, settings, history=history, generation=generation, tail=tail)

    history = formatter.history
    ids = write(history)
    spare = formatter.context - len(ids)
    if spare >= settings.reserve(formatter.context):
        return Fit(ids, history)
    if settings.overflow == "stop":
        if spare > 0:
            return Fit(ids, history, (f"the context has room for only {counted(spare, 'token')} of the answer",))
        raise ContextOverflowError(
            f"the conversation has {len(ids)} tokens, {1 - spare} more than the context of {formatter.context} can hold; "
            "/context drop-oldest or /context summarise makes room, /clear starts a new conversation"
        )
    hidden = _hide(formatter, messages, settings, write)
    if settings.overflow == "summarise" and summarise is not None and hidden > history.hidden:
        text = summarise(messages[history.hidden : hidden], history.summary)
        what, history = "summarised for the model", VisibleHistory(hidden, text)
    else:
        what = "summarised for the model" if history.summary and hidden == history.hidden else "hidden from the model"
        history = VisibleHistory(hidden, history.summary)
    ids = write(history)
    if len(ids) >= formatter.context:
        alone = "the last message and its answer" if tail else "the last message"
        remedy = "say something new" if tail else "shorten the message"
        raise ContextOverflowError(
            f"{alone} alone makes a prompt of {len(ids)} tokens, the context holds {formatter.context}: {remedy}"
        )
    if not hidden:
        return Fit(ids, history, (f"the context has room for only {counted(formatter.context - len(ids), 'token')} of the answer",))
    first = "the first message is" if hidden == 1 else f"the first {hidden} messages are"
    return Fit(ids, history, (f"the context is full: {first} {what}, the conversation keeps {'it' if hidden == 1 else 'them'}",))


def _hide(
    formatter: ChatFormatter, messages: Sequence[Message], settings: Settings, write: Callable[[VisibleHistory], list[int]]
) -> int:
    """How many messages to hide in all: turn by turn, until there is room, at most up to the last turn."""
    goal = int(formatter.context * _ROOM) - settings.reserve(formatter.context) // 2
    if settings.overflow == "summarise":
        goal -= summary_tokens(formatter.context)
    starts = [at for at, message in enumerate(messages) if message["role"] == "user" and at > formatter.history.hidden]
    for start in starts:
        if len(write(VisibleHistory(start, None))) <= goal:
            return start
    return starts[-1] if starts else formatter.history.hidden


def summary_tokens(context: int) -> int:
    """Tokens that a summary may have."""
    return max(16, min(256, context // 8))


def summarise(
    loaded: OnDevice,
    messages: Sequence[Message],
    before: str | None,
    cancelled: Callable[[], bool],
    progress: Callable[[str, int, int], None],
) -> str:
    """The model's own summary of messages and of what was summarised before. Raises Cancelled."""
    formatter, limit = loaded.formatter, summary_tokens(loaded.formatter.context)
    lines = ([f"Earlier: {before}"] if before else []) + [f"{each['role']}: {each['content']}" for each in messages]
    text, settings = "\n".join(lines), Settings(Sampling(temperature=0, max_tokens=limit), thinking=False)
    while True:
        ids = formatter.ids([{"role": "user", "content": SUMMARISE + text}], settings, history=VisibleHistory())
        if len(ids) + limit < formatter.context or not text:
            break
        text = text[: max(0, len(text) * 3 // 4 - 1)]
    if len(ids) >= formatter.context:
        raise ContextOverflowError(f"a context of {formatter.context} is too small for a summary; /context drop-oldest needs none")
    answer = formatter.answer(loaded.model, ids, settings, cancelled, progress)
    text = "".join(answer)
    if answer.finish_reason == "cancelled":
        raise Cancelled("the summary was cancelled; nothing was changed")
    return " ".join(text.split())


def clamp(history: VisibleHistory, messages: int) -> VisibleHistory:
    """After messages were removed from the end: the hidden ones must still exist, else nothing is hidden."""
    return replace(history) if history.hidden <= messages else VisibleHistory()
