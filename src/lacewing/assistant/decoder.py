"""Tokens to the pieces of an answer. Pushed, not pulled: it needs no engine and no thread, and serves streams and servers alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lacewing.assistant.deltas import CallDelta, Delta
from lacewing.text.reasoning import REASONING, TEXT, thoughts_of

if TYPE_CHECKING:
    from lacewing.engine.sampling import Token
    from lacewing.text.tokenizer import Tokenizer

Piece = tuple[str, str] | CallDelta  # (TEXT or REASONING, text), or a part of a tool call


class Splitter(Protocol):
    """Tells thoughts, text and tool calls apart, wherever the text is cut. `held`: characters that it holds back.

    `ended`: the calls that were wanted are whole; `open`: all that comes from now on is visible text, and nothing is held back.
    `flush` gives the rest, once no more text comes; `cut`: because of a limit.
    """

    @property
    def held(self) -> int: ...

    @property
    def ended(self) -> bool: ...

    @property
    def open(self) -> bool: ...

    def push(self, text: str) -> Sequence[Piece]: ...

    def flush(self, cut: bool = False) -> Sequence[Piece]: ...


class PlainSplitter:
    """All is visible text."""

    held, ended, open = 0, False, True

    def push(self, text: str) -> Sequence[Piece]:
        return [(TEXT, text)]

    def flush(self, cut: bool = False) -> Sequence[Piece]:
        return []


class AnswerDecoder:
    """Takes the tokens of one answer and gives its deltas: whole characters only, without stop strings, thoughts told apart.

    `ended` is set when nothing more is wanted: "stop" after a stop string, "tool_calls", "repetition". Who pushes tokens then ends
    the request and calls `finish`. `finish_reason` is known after that, `message` at any time.
    `visible`: control tokens whose spelling the splitter has to see; `stops`: strings that end the visible text; `markup_stops`:
    those that end everything, such as a template's; `begun`: the message that this answer continues.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        splitter: Splitter | None = None,
        *,
        continuation: bool = False,
        visible: Mapping[int, str] | None = None,
        stops: Sequence[str] = (),
        markup_stops: Sequence[str] = (),
        repeat_guard: int = 0,
        begun: Mapping[str, Any] | None = None,
    ):
        from lacewing.text.streaming import RepeatGuard, StopStrings

        self.ended: str | None = None
        self.finish_reason: str | None = None
        self._text = tokenizer.stream(continuation=continuation)
        self._visible = visible or {}
        self._splitter: Splitter = splitter or PlainSplitter()
        self._markup_stops, self._stops = StopStrings(markup_stops), StopStrings(stops)
        self._begins = self._markup_stops.first | self._stops.first
        self._repeats = RepeatGuard(repeat_guard, tokenizer.decode)
        self._begun = begun or {}
        self._written: dict[str, list[str]] = {TEXT: [], REASONING: []}
        self._calls: list[dict[str, Any]] = []
        self._pushed = 0  # characters so far
        self._waiting: deque[tuple[Token, int, int]] = deque()  # tokens, and where their characters begin and end
        self._last = ""  # the kind of the last delta
        self._open = False  # the splitter is, and stays so

    def push(self, token: Token) -> list[Delta]:
        """What the token completes; often nothing."""
        if self.ended is not None:
            return []
        text = self._text.push(token.id)
        if token.id in self._visible:
            text += self._visible[token.id]
        begin = self._pushed
        self._pushed += len(text)
        # The quick way of nearly every token: its text is whole, visible, and no stop string begins in it. Nothing is held back of
        # those before, or they would be waiting.
        self._open = self._open or self._splitter.open
        if text and not self._waiting and self._open and not self._text.incomplete and self._begins.isdisjoint(text):
            if self._repeats.push(token.id):
                self.ended = "repetition"
            self._last = TEXT
            self._written[TEXT].append(text)
            return [Delta(text, tokens=(token,))]
        self._waiting.append((token, begin, self._pushed + self._text.incomplete))
        pieces = self._take(text) if text else []
        if self._splitter.ended:
            self.ended = self.ended or "tool_calls"
        if self._repeats.push(token.id):
            self.ended = self.ended or "repetition"
        return self._deltas(pieces)

    def finish(self, reason: str) -> list[Delta]:
        """The rest, once no more tokens come; `reason` is the engine's: "stop", "length", "cancelled"."""
        pieces: list[Piece] = []
        if self._stops.hit is None:
            rest = self._text.flush()
            self._pushed += len(rest)
            pieces = self._take(rest, final=True, cut=self.ended is None and reason != "stop")
        deltas = self._deltas(pieces, final=True)
        hit = (self._stops.hit, self._markup_stops.hit) != (None, None)
        self.finish_reason = "stop" if hit else self.ended or reason
        if self._calls and self.finish_reason == "stop":
            self.finish_reason = "tool_calls"
        return deltas

    @property
    def stop_string(self) -> str | None:
        """Which of `stops` ended the text."""
        return self._stops.hit

    @property
    def message(self) -> dict[str, Any]:
        """The answer so far as a message, as the next turn of the conversation takes it."""
        begun = self._begun
        message: dict[str, Any] = {"role": "assistant", "content": "".join((begun.get("content") or "", *self._written[TEXT]))}
        reasoning = "".join((thoughts_of(begun), *self._written[REASONING]))
        if reasoning:
            message["reasoning_content"] = reasoning
        if self._calls:
            message["tool_calls"] = [{**call, "function": dict(call["function"])} for call in self._calls]
        return message

    def _take(self, text: str, final: bool = False, cut: bool = False) -> list[Piece]:
        """Through the splitter and the stop strings. `final`: nothing follows, `cut`: because of a limit."""
        text = self._markup_stops.push(text) + (self._markup_stops.flush() if final else "")
        if self._markup_stops.hit is not None:
            self.ended = "stop"
        found: list[Piece] = []
        pieces = iter((*(self._splitter.push(text) if text else ()), *(self._splitter.flush(cut) if final else ())))
        for piece in pieces:
            if not isinstance(piece, CallDelta) and piece[0] == TEXT:
                found.append((TEXT, self._stops.push(piece[1])))
            else:  # a stop string lies within one text
                found += [(TEXT, self._stops.flush()), piece]
            if self._stops.hit is not None:
                self.ended = "stop"
                for later in pieces:
                    self._stops.push(_characters(later))
                return found[: 1 + max(at for at, each in enumerate(found) if each[0] == TEXT)]
        if final:
            found.append((TEXT, self._stops.flush()))
        return found

    def _deltas(self, pieces: list[Piece], final: bool = False) -> list[Delta]:
        """Pieces as deltas, and the tokens that are complete with the last of them."""
        pieces = [piece for piece in pieces if isinstance(piece, CallDelta) or piece[1]]
        if not pieces and not final:
            return []
        deltas: list[Delta] = []
        ready = self._complete(final)
        if pieces and pieces[0][0] == TEXT and self._last == REASONING and len(ready) > 1:
            deltas.append(Delta(tokens=ready[:-1]))  # those of the tag between, which are no part of the text
            ready = ready[-1:]
        for piece in pieces[:-1]:
            deltas.append(self._delta(piece, ()))
        if pieces:
            deltas.append(self._delta(pieces[-1], ready))
        elif ready:
            deltas.append(Delta(tokens=ready))
        return deltas

    def _delta(self, piece: Piece, tokens: tuple[Token, ...]) -> Delta:
        if isinstance(piece, CallDelta):
            self._last = "call"
            self._call(piece)
            return Delta(calls=(piece,), tokens=tokens)
        self._last, text = piece
        self._written[self._last].append(text)
        return Delta(text, tokens=tokens) if self._last == TEXT else Delta(reasoning=text, tokens=tokens)

    def _complete(self, final: bool) -> tuple[Token, ...]:
        """Tokens of which nothing is held back any more. At the end those too of which a part is shown, and none behind them."""
        through = self._pushed - (self._markup_stops.held + self._splitter.held + self._stops.held)
        ready = []
        while self._waiting and (self._waiting[0][2] <= through or (final and self._waiting[0][1] < through)):
            ready.append(self._waiting.popleft()[0])
        return tuple(ready)

    def _call(self, piece: CallDelta) -> None:
        if piece.id is not None or piece.index >= len(self._calls):
            self._calls.append({"id": piece.id, "type": "function", "function": {"name": piece.name, "arguments": ""}})
        self._calls[piece.index]["function"]["arguments"] += piece.arguments


def _characters(piece: Piece) -> str:
    return piece.arguments if isinstance(piece, CallDelta) else piece[1]
