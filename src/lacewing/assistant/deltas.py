"""What an answer is made of as it comes: visible text, thoughts and tool calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from lacewing.engine.sampling import Token


class CallDelta(NamedTuple):
    """A piece of a tool call. The first of a call has its id and name, and `arguments` ""; later ones have None and more text.

    `index` counts the calls of an answer from 0.
    """

    index: int  # type: ignore[assignment]  # tuple's own `index` is of no use here
    id: str | None
    name: str | None
    arguments: str


class Delta(str):
    """A piece of an answer: a string, which is its visible text ("" where it has none), so that pieces can be printed and joined.

    `reasoning` is text of the model's thoughts, `calls` are pieces of tool calls; a delta has one of the three. `tokens`: those
    whose text is complete with it, in their order, each token once in an answer.
    """

    __slots__ = ("calls", "reasoning", "tokens")
    reasoning: str
    calls: tuple[CallDelta, ...]
    tokens: tuple[Token, ...]

    def __new__(
        cls, text: str = "", reasoning: str = "", calls: tuple[CallDelta, ...] = (), tokens: tuple[Token, ...] = ()
    ) -> Delta:
        self = super().__new__(cls, text)
        self.reasoning, self.calls, self.tokens = reasoning, calls, tokens
        return self

    def __repr__(self) -> str:
        fields = (f"{name}={getattr(self, name)!r}" for name in ("reasoning", "calls") if getattr(self, name))
        return f"Delta({', '.join((super().__repr__(), *fields))})"

    def __reduce__(self) -> tuple[type[Delta], tuple[object, ...]]:
        return Delta, (str(self), self.reasoning, self.calls, self.tokens)
