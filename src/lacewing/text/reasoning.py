"""A model's thoughts and its answer, told apart in a stream of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lacewing.text.marks import first_of, partial

if TYPE_CHECKING:
    from lacewing.text.tokenizer import Tokenizer

TEXT, REASONING = "text", "reasoning"
EFFORTS = ("none", "minimal", "low", "medium", "high")  # to think, as callers say it
Pieces = list[tuple[str, str]]  # (TEXT or REASONING, text)

# Of a message; they name one thing: templates read the first, gpt-oss's the second.
THOUGHT_NAMES = ("reasoning_content", "thinking", "reasoning")

# How models enclose their thoughts. Only at the start of an answer: later on it is text that happens to look so.
TAGS = {
    "<think>": "</think>",
    "[THINK]": "[/THINK]",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<seed:think>": "</seed:think>",
    "<|channel>thought": "<channel|>",  # Gemma 4
    "<|inner_prefix|>": "<|inner_suffix|>",  # Apertus
}
# Harmony: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final
CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
_ENDS = (END, "<|return|>", "<|call|>", START, CHANNEL)
_HEADS = (*_ENDS, MESSAGE, "to=", "assistant")  # what a header begins with
_LONGEST_HEADER = 200  # characters; longer is no header


def thoughts_of(message: Mapping[str, Any]) -> str:
    """A message's thoughts, whatever they are called; "" without any."""
    return next((str(message[name]) for name in THOUGHT_NAMES if message.get(name)), "")


def opened(prompt: str) -> str | None:
    """The tag of thoughts that the prompt itself has opened at its end, as templates of R1 and QwQ do."""
    tail = prompt.rstrip()
    return next((tag for tag in TAGS if tail.endswith(tag)), None)


def closed(prompt: str) -> bool:
    """Whether the prompt itself has ended the thoughts, as templates do where thinking is switched off."""
    tail = prompt.rstrip()
    return any(tail.endswith(mark) for mark in TAGS.values())


def is_harmony(tokenizer: Tokenizer) -> bool:
    """Whether the model speaks in channels."""
    return {CHANNEL, MESSAGE} <= set(tokenizer.control_tokens)


def visible_marks(tokenizer: Tokenizer) -> dict[int, str]:
    """Control tokens that the splitter has to see in the text, by id."""
    marks = {*TAGS, *TAGS.values()} | ({MESSAGE, *_ENDS} if is_harmony(tokenizer) else set())
    found = {text: token for text, token in tokenizer.control_tokens.items() if text in marks or begins_thoughts(text)}
    return {token: text for text, token in found.items() if not tokenizer.decode([token])}


def begins_thoughts(text: str) -> bool:
    """Whether a control token is a tag that opens thoughts, or the beginning of one."""
    return len(text) > 2 and any(tag.startswith(text) for tag in TAGS)


class ReasoningSplitter:
    """Takes text as it comes and gives it back as (kind, text), without the tags; holds back what may become a tag.

    `tag`: the one that the prompt has opened already.
    """

    ended = False  # it never says that nothing more is wanted

    def __init__(self, tag: str | None = None):
        self._close = TAGS[tag] if tag else ""
        self._state = REASONING if tag else "start"
        self._fresh = True  # nothing but space has come since the last tag
        self._held = ""

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    @property
    def open(self) -> bool:
        """As `Splitter.open`."""
        return self._state == TEXT and not self._fresh and not self._held

    @property
    def undecided(self) -> bool:
        """Whether thoughts may still begin."""
        return self._state == "start"

    @property
    def thinking(self) -> bool:
        """Whether what comes now belongs to the thoughts."""
        return self._state == REASONING

    def interrupt(self) -> Pieces:
        """What is held back; thoughts are over without their tag, as something else comes that never stands in them."""
        pieces = self.flush()
        self._state, self._fresh = TEXT, False
        return pieces

    @property
    def mark(self) -> str:
        """What ends the thoughts; "" before they have begun."""
        return self._close

    @property
    def in_mark(self) -> bool:
        """Whether the last characters may be the beginning of the mark that ends the thoughts."""
        return self.thinking and bool(partial(self._held, (self._close,)))

    def push(self, text: str) -> Pieces:
        """What is certain now."""
        self._held += text
        pieces: Pieces = []
        if self._state == "start" and not self._begin(final=False):
            return pieces
        if self._state == REASONING:
            pieces += self._thoughts()
        if self._state == TEXT:
            pieces += self._emit(TEXT, len(self._held))
        return pieces

    def flush(self, cut: bool = False) -> Pieces:
        """The rest, once no more text comes; whether a limit `cut` it makes no difference to thoughts."""
        self._begin(final=True)
        if self._state == REASONING:
            self._held = self._held.rstrip()
        return self._emit(self._state, len(self._held))

    def _begin(self, final: bool) -> bool:
        """Leave the state at the start; False while it is not clear how."""
        if self._state != "start":
            return True
        begin = self._held.lstrip()
        tag = next((tag for tag in TAGS if begin.startswith(tag)), None)
        if tag is None:
            if not final and any(tag.startswith(begin) for tag in TAGS):
                return False
            self._state, self._fresh = TEXT, False
        else:
            self._state, self._close, self._held = REASONING, TAGS[tag], begin[len(tag) :]
        return True

    def _thoughts(self) -> Pieces:
        end = self._held.find(self._close)
        if end < 0:
            keep = partial(self._held, (self._close,))
            return self._emit(REASONING, len(self._held[: len(self._held) - keep].rstrip()))
        rest = self._held[end + len(self._close) :]
        self._held = self._held[:end].rstrip()
        pieces = self._emit(REASONING, len(self._held))
        self._held, self._state, self._fresh = rest, TEXT, True
        return pieces

    def _emit(self, kind: str, count: int) -> Pieces:
        """The first `count` held characters, without space right after a tag."""
        text, self._held = self._held[:count], self._held[count:]
        if self._fresh:
            text = text.lstrip()
        self._fresh = self._fresh and not text
        return [(kind, text)] if text else []


class ChannelSplitter:
    """The same for harmony: what goes to the channel "final" is the answer, all else are thoughts."""

    ended = open = False

    def __init__(self) -> None:
        self._held, self._kind = "", TEXT
        self._header = True

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return len(self._held)

    def push(self, text: str) -> Pieces:
        self._held += text
        pieces: Pieces = []
        while self._held:
            part = self._read_header() if self._header else self._read_body()
            if part is None:
                break
            pieces += part
        return pieces

    @property
    def thinking(self) -> bool:
        """Whether what comes now belongs to the thoughts."""
        return not self._header and self._kind == REASONING

    def interrupt(self) -> Pieces:
        """What is held back, before something that belongs to no channel."""
        return self.flush()

    def flush(self, cut: bool = False) -> Pieces:
        text, self._held = self._held, ""
        return [] if self._header or not text else [(self._kind, text)]

    def _read_header(self) -> Pieces | None:
        """Up to the mark of the message; None while it is not whole."""
        header, mark, rest = self._held.partition(MESSAGE)
        begin = f"{header}{mark}".lstrip()
        if len(begin) <= _LONGEST_HEADER and any(begin.startswith(each[: len(begin)]) for each in _HEADS):
            if not mark:
                return None
            channel = header.rpartition(CHANNEL)[2].split()
            self._kind = TEXT if CHANNEL not in header or channel[:1] == ["final"] else REASONING
            self._held, self._header = rest, False
            return []
        self._kind, self._header = TEXT, False  # it speaks without channels
        if begin.startswith(CHANNEL):  # as long as it stays, it would begin the next header, again and again
            self._held = self._held.lstrip().removeprefix(CHANNEL)
        return []

    def _read_body(self) -> Pieces | None:
        at, mark = first_of(self._held, _ENDS)
        if not mark:
            count = len(self._held) - partial(self._held, _ENDS)
            text, self._held = self._held[:count], self._held[count:]
            return [(self._kind, text)] if text else None
        text = self._held[:at]
        self._held, self._header = self._held[at + (0 if mark == CHANNEL else len(mark)) :], True
        return [(self._kind, text)] if text else []
