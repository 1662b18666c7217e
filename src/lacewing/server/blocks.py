"""An answer as the blocks that newer APIs write: thoughts, texts and calls, each of them begun, continued and ended."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from lacewing.assistant.tools.json_calls import whole
from lacewing.server.openai.types import new_id

if TYPE_CHECKING:
    from lacewing.assistant.deltas import CallDelta, Delta
    from lacewing.engine.sampling import Token

THOUGHTS, TEXT, CALL = "thoughts", "text", "call"
BEGIN, MORE, END = "begin", "more", "end"
_SEAL = "lacewing."


@dataclass(eq=False)
class Block:
    """The one at `index`, which counts all blocks from 0. `id` and `name` are those of a call, whose text are its arguments."""

    kind: str
    index: int
    id: str = ""
    name: str = ""
    parts: list[str] = field(default_factory=list)
    tokens: list[Token] = field(default_factory=list)  # of a text

    @property
    def text(self) -> str:
        """So far; of a call a JSON object once it has ended, unless a limit has cut it."""
        return "".join(self.parts) or ("{}" if self.kind == CALL else "")

    @property
    def arguments(self) -> dict[str, Any]:
        """Of a call that has ended; of one that was cut as much as there is."""
        found: dict[str, Any] = json.loads(whole(self.text))
        return found


class Step(NamedTuple):
    """BEGIN, MORE with a `text` and its tokens, or END of a block."""

    what: str
    block: Block
    text: str = ""
    tokens: tuple[Token, ...] = ()


class Blocks:
    """Sorts deltas into blocks; each new kind and each call begins one. `all`: so far.

    Calls get ids of ours, which begin with `prefix` and never come twice; some models number theirs from 0 in each answer.
    """

    def __init__(self, prefix: str) -> None:
        self.all: list[Block] = []
        self._prefix = prefix
        self._open: Block | None = None

    def push(self, deltas: Iterable[Delta]) -> Iterator[Step]:
        for delta in deltas:
            for call in delta.calls:
                yield from self._call(call)
            if delta.reasoning:
                yield from self._more(THOUGHTS, delta.reasoning, delta.tokens)
            elif delta:
                yield from self._more(TEXT, str(delta), delta.tokens)

    def end(self) -> Iterator[Step]:
        """Nothing more comes."""
        block, self._open = self._open, None
        if block is not None:
            yield Step(END, block)

    def _call(self, call: CallDelta) -> Iterator[Step]:
        if call.id is not None:
            yield from self._begin(CALL, new_id(self._prefix), call.name or "")
        if call.arguments:
            yield from self._more(CALL, call.arguments, ())

    def _begin(self, kind: str, id: str = "", name: str = "") -> Iterator[Step]:
        yield from self.end()
        self._open = Block(kind, len(self.all), id, name)
        self.all.append(self._open)
        yield Step(BEGIN, self._open)

    def _more(self, kind: str, text: str, tokens: tuple[Token, ...]) -> Iterator[Step]:
        if self._open is None or self._open.kind != kind:
            yield from self._begin(kind)
        block = self.all[-1]
        block.parts.append(text)
        if kind == TEXT:
            block.tokens += tokens
        yield Step(MORE, block, text, tokens)


def sealed(thoughts: str) -> str:
    """Thoughts in the form in which clients give them back without reading them. It is no encryption: they are the client's own."""
    return _SEAL + base64.b64encode(thoughts.encode()).decode()


def unsealed(text: str) -> str:
    """What `sealed` was given; "" for what comes from elsewhere."""
    if not text.startswith(_SEAL):
        return ""
    try:
        return base64.b64decode(text[len(_SEAL) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
