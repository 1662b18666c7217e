"""When a conversation does not fit the context: stop, hide the oldest messages, or let the model summarise them.

Messages are only hidden from the model; the conversation keeps every one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lacewing.chat.session.formatter import Loaded, Tail, View, Voice
from lacewing.chat.session.settings import Message, Settings
from lacewing.errors import Cancelled, ContextOverflowError
from lacewing.options import Sampling

_ROOM = 0.75  # of the context may be filled after messages were hidden, so that it does not happen at every turn
_ASK = (
    "Summarise the following conversation in one short paragraph. Keep names, numbers, decisions and open questions. "
    "Write only the summary.\n\n"
)

Summarise = Callable[[Sequence[Message], "str | None"], str]


@dataclass(frozen=True)
class Fit:
    """A prompt that fits, what the model sees of the conversation, and what a person should know."""

    ids: list[int]
    view: View
    notices: tuple[str, ...] = ()


def fit(
    voice: Voice,
    messages: Sequence[Message],
    settings: Settings,
    summarise: Summarise | None,
    *,
    generation: bool = True,
    tail: Tail = (),
) -> Fit:
    """The prompt for the next answer, or for the rest of one that begins with `tail`.

    Raises ContextOverflowError by the policy, TemplateError. `summarise` None: only look whether it is possible; the summary
    is left as it was.
    """

    def write(view: View) -> list[int]:
        return voice.ids(messages, settings, view=view, generation=generation, tail=tail)

    view = voice.view
    ids = write(view)
    spare = voice.context - len(ids)
    if spare >= settings.reserve(voice.context):
        return Fit(ids, view)
    if settings.overflow == "stop":
        if spare > 0:
            return Fit(ids, view, (f"only {spare} tokens of the context are left for the answer",))
        raise ContextOverflowError(
            f"the conversation has {len(ids)} tokens, {len(ids) - voice.context + 1} more than fit the context of {voice.context}; "
            "/context drop-oldest or /context summarise makes room, /clear begins anew"
        )
    hidden = _hide(voice, messages, settings, write)
    if settings.overflow == "summarise" and summarise is not None and hidden > view.hidden:
        text = summarise(messages[view.hidden : hidden], view.summary)
        what, view = "summarised for the model", View(hidden, text)
    else:
        what = "summarised for the model" if view.summary and hidden == view.hidden else "hidden from the model"
        view = View(hidden, view.summary)
    ids = write(view)
    if len(ids) >= voice.context:
        alone = "the last message and its answer" if tail else "the last message"
        remedy = "say something new" if tail else "shorten the message"
        raise ContextOverflowError(
            f"{alone} alone makes a prompt of {len(ids)} tokens; the context holds {voice.context}: {remedy}"
        )
    if not hidden:
        return Fit(ids, view, (f"only {voice.context - len(ids)} tokens of the context are left for the answer",))
    return Fit(ids, view, (f"the context is full: the first {hidden} messages are {what}, the conversation keeps them",))


def _hide(voice: Voice, messages: Sequence[Message], settings: Settings, write: Callable[[View], list[int]]) -> int:
    """How many messages to hide in all: turn by turn, until there is room, at most up to the last turn."""
    goal = int(voice.context * _ROOM) - settings.reserve(voice.context) // 2
    if settings.overflow == "summarise":
        goal -= summary_tokens(voice.context)
    starts = [at for at, message in enumerate(messages) if message["role"] == "user" and at > voice.view.hidden]
    for start in starts:
        if len(write(View(start, None))) <= goal:
            return start
    return starts[-1] if starts else voice.view.hidden


def summary_tokens(context: int) -> int:
    """Tokens that a summary may have."""
    return max(16, min(256, context // 8))


def summarise(
    loaded: Loaded,
    messages: Sequence[Message],
    before: str | None,
    cancelled: Callable[[], bool],
    progress: Callable[[str, int, int], None],
) -> str:
    """The model's own summary of messages and of what was summarised before. Raises Cancelled."""
    voice, limit = loaded.voice, summary_tokens(loaded.voice.context)
    lines = ([f"Earlier: {before}"] if before else []) + [f"{each['role']}: {each['content']}" for each in messages]
    text, settings = "\n".join(lines), Settings(Sampling(temperature=0, max_tokens=limit), thinking=False)
    while True:
        ids = voice.ids([{"role": "user", "content": _ASK + text}], settings, view=View())
        if len(ids) + limit < voice.context or not text:
            break
        text = text[: max(0, len(text) * 3 // 4 - 1)]
    if len(ids) >= voice.context:
        raise ContextOverflowError(f"a context of {voice.context} is too small for a summary; /context drop-oldest needs none")
    stream, splitter = voice.stream(loaded.model, ids, settings, cancelled, progress), voice.splitter(ids)
    pieces = [piece for delta in stream for piece in splitter.push(delta)] + splitter.flush()
    if stream.finish_reason == "cancelled":
        raise Cancelled("the summary was cancelled; the conversation is as it was")
    return " ".join("".join(text for kind, text in pieces if kind == "text").split())


def clamp(view: View, messages: int) -> View:
    """After messages were taken away from the end: what is hidden must still be there, even if nothing else is."""
    return replace(view) if view.hidden <= messages else View()
