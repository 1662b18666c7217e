"""Where in its answer a model is: among its thoughts, in the answer itself, or in the markup between. Told token by token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from lacewing.text.reasoning import CHANNEL, END, MESSAGE, START, TAGS, TEXT, ReasoningSplitter, begins_thoughts

if TYPE_CHECKING:
    from lacewing.text.tokenizer import Tokenizer

UNDECIDED = "undecided"  # thoughts may begin here, or the answer
THINKING = "thinking"
MARKUP = "markup"  # between messages
ANSWER = "answer"
CALL = "call"  # what goes to a tool: neither thought nor answer

_CLOSINGS = {"</think>": "\n</think>\n\n"}  # as models write it; others: the mark alone


class Follower(Protocol):
    """`phase`: of the next token. `rest`: text of the last token that stands behind the mark with which thoughts ended."""

    phase: str
    rest: str

    def push(self, token: int) -> None: ...

    def openings(self) -> Sequence[int]:
        """Tokens with which thoughts may begin, where that is undecided."""

    def closing(self) -> Sequence[int]:
        """The tokens that end the thoughts; none while they cannot end, within a character or a mark."""

    def steer(self, spent: bool, strict: bool) -> tuple[Sequence[int], Sequence[int]]:
        """Within markup: (tokens that may come next, tokens that must come in this order); nothing: the model decides.

        `spent`: there may be no more thoughts; `strict`: nothing but thoughts, calls and an answer may come.
        """


class TaggedFollower:
    """Of models that put thoughts between a pair of tags. `tag`: the one that the prompt has opened; `over`: there will be none,
    because the prompt has ended them. `marks`: control tokens that count as text; `calls`: what begins a call, also in thoughts."""

    def __init__(
        self, tokenizer: Tokenizer, tag: str | None = None, over: bool = False, marks: Mapping[int, str] | None = None,
        calls: Sequence[str] = (),
    ):  # fmt: skip
        self._tokenizer, self._marks, self._calls = tokenizer, marks or {}, calls
        self._text = tokenizer.stream(continuation=True)
        self._splitter = ReasoningSplitter(tag)
        self.phase = ANSWER if over else THINKING if tag else UNDECIDED
        self.rest = ""
        self._begun = ""  # before it is decided
        self._seen = ""  # the end of the thoughts, as long as a mark
        self._openings = [token for text, token in tokenizer.control_tokens.items() if begins_thoughts(text)]

    def push(self, token: int) -> None:
        self.rest = ""
        if self.phase in (ANSWER, CALL):
            return
        text = self._text.push(token) + self._marks.get(token, "")
        pieces = self._splitter.push(text)
        if self._splitter.undecided:
            self._begun += text
            self.phase = MARKUP if token in self._openings else self.phase
        elif self._splitter.thinking:
            self.phase = CALL if self._begins_call(text) else THINKING
        else:
            self.rest = "".join(text for kind, text in pieces if kind == TEXT) if self.phase == THINKING else ""
            self.phase = ANSWER

    def _begins_call(self, text: str) -> bool:
        if not self._calls:
            return False
        self._seen = self._seen[-max(map(len, self._calls)) :] + text
        return any(mark in self._seen for mark in self._calls)

    def openings(self) -> Sequence[int]:
        return self._openings if not self._begun.strip() else ()

    def closing(self) -> Sequence[int]:
        if self._text.incomplete or self._splitter.in_mark:
            return ()
        mark = self._splitter.mark
        return _following(self._tokenizer, mark, _CLOSINGS.get(mark, mark))

    def steer(self, spent: bool, strict: bool) -> tuple[Sequence[int], Sequence[int]]:
        begun = self._begun.lstrip()
        rest = next((tag[len(begun) :] for tag in TAGS if tag.startswith(begun)), "")
        return (), _following(self._tokenizer, begun, rest) if strict else ()


class ChannelFollower:
    """Of harmony. `answering`: the prompt has opened the channel "final". `tools`: there are some that may be called."""

    rest = ""

    def __init__(self, tokenizer: Tokenizer, answering: bool = False, tools: bool = False):
        control = tokenizer.control_tokens
        self._tokenizer = tokenizer
        self._channel, self._message, self._start, self._end = (control[mark] for mark in (CHANNEL, MESSAGE, START, END))
        self._role = tokenizer.encode("assistant")
        self._names = {name: tokenizer.encode(name) for name in ("analysis", "final", "commentary")}
        self._tools = tools
        self._text = tokenizer.stream(continuation=True)
        self._header: list[int] = [self._start, *self._role]
        self.phase = ANSWER if answering else MARKUP

    def push(self, token: int) -> None:
        if token in (self._start, self._channel, self._end) and self.phase != MARKUP:
            self._header, self.phase = [], MARKUP
        self._text.push(token)
        if self.phase != MARKUP:
            return
        self._header.append(token)
        if token != self._message:
            return
        header = self._tokenizer.decode(self._header, special=True)
        channel = header.rpartition(CHANNEL)[2].removesuffix(MESSAGE).split()[:1] if CHANNEL in header else ["final"]
        call = "to=" in header
        self.phase = CALL if call else THINKING if channel == ["analysis"] else ANSWER if channel == ["final"] else CALL

    def openings(self) -> Sequence[int]:
        return ()

    def closing(self) -> Sequence[int]:
        return () if self._text.incomplete else (self._end, self._start, *self._role, self._channel)

    def steer(self, spent: bool, strict: bool) -> tuple[Sequence[int], Sequence[int]]:
        header = self._header
        behind = header[len(header) - header[::-1].index(self._channel) :] if self._channel in header else None
        names = [name for name in self._names if not (name == "analysis" and spent) and (name != "commentary" or self._tools)]
        if behind == []:
            return ([self._names[name][0] for name in names], ()) if spent or strict else ((), ())
        if not strict:
            return (), ()
        if behind is None:
            whole = [self._start, *self._role, self._channel]
            begun = header[1:] if header[:1] == [self._end] else header
            return (), whole[len(begun) :] if begun == whole[: len(begun)] else ()
        known = next((ids for name, ids in self._names.items() if name != "commentary" and behind == ids[: len(behind)]), None)
        return (), () if known is None else (*known[len(behind) :], self._message)


def _following(tokenizer: Tokenizer, mark: str, text: str) -> list[int]:
    """The ids of trusted text within an answer, whose start gets no space of its own."""
    before, whole = tokenizer.encode_markup(mark), tokenizer.encode_markup(mark + text)
    return whole[len(before) :] if whole[: len(before)] == before else tokenizer.encode_markup(text)
