"""Responses as OpenAI writes them: numbered events of a stream, or one object. The items of both are the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lacewing.server.blocks import BEGIN, CALL, MORE, TEXT, THOUGHTS, Block, Blocks, Step, sealed
from lacewing.server.exchange import Format
from lacewing.server.openai.logprobs import Logprobs
from lacewing.server.openai.types import dumps, now, text
from lacewing.server.responses import resource
from lacewing.server.responses.items import CUSTOM_CALL, kind_of
from lacewing.server.responses.resource import CANCELLED, COMPLETED, FAILED, INCOMPLETE, QUEUED, RUNNING
from lacewing.server.responses.tools import INPUT

if TYPE_CHECKING:
    from lacewing.assistant.deltas import Delta
    from lacewing.server.feed import Choice
    from lacewing.text.tokenizer import Tokenizer

_CUSTOM = "response.custom_tool_call_input"
_OPEN = (QUEUED, RUNNING)


class ResponseWriter(Format):
    """One response. `summarised`: thoughts are told as their summary; `seals`: they also stand in `encrypted_content`.

    `custom`: names of tools that take a text.

    `log`: all events so far, if `logs`; the number of an event is its place.
    """

    def __init__(
        self, response: dict[str, Any], *, summarised: bool, seals: bool, top: int | None, logs: bool = False,
        custom: Collection[str] = (),
    ):  # fmt: skip
        self.response, self.log = response, list[bytes]()
        self._summarised, self._seals, self._top, self._logs = summarised, seals, top, logs
        self._custom = custom
        self._number = 0
        self._blocks = Blocks("call_")
        self._items: list[dict[str, Any]] = []
        self._logprobs: Logprobs | None = None
        self._said: dict[int, list[Any]] = {}  # log-probabilities of the block of that index

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self.response["status"] not in _OPEN

    # the life of a response

    def queued(self) -> bytes:
        """The first events of one in the background."""
        return self._event("response.created", response=self.response) + self._event("response.queued", response=self.response)

    def running(self, model: str, tokenizer: Tokenizer) -> None:
        """Its turn has come."""
        self.response |= {"status": RUNNING, "model": model}
        if self._top is not None:
            self._logprobs = Logprobs(tokenizer, self._top, continuation=False)

    def first_event(self) -> bytes:
        first = b"" if self._number else self._event("response.created", response=self.response)
        return first + self._event("response.in_progress", response=self.response)

    def events(self, choice: Choice, deltas: Sequence[Delta]) -> bytes:
        found = b"".join(self._push(deltas))
        if choice.end is None:
            return found
        self.response |= {"usage": resource.usage(choice)}
        reason = choice.end.reason
        cut = reason in ("length", "repetition")
        found += b"".join(self._told(step, INCOMPLETE if cut else COMPLETED) for step in self._blocks.end())
        self._end(INCOMPLETE if cut else COMPLETED)
        return found

    def last_event(self, choices: Sequence[Choice]) -> bytes:
        return self._event(f"response.{self.response['status']}", response=self.response)

    def whole(self, choices: Sequence[Choice]) -> bytes:
        return dumps(self.response).encode()

    def failed(self, error: BaseException) -> bytes:
        """The events that tell of an error, from the first on."""
        first = b"" if self._number else self._event("response.created", response=self.response)
        self.fail(error)
        return first + self._event("response.failed", response=self.response)

    def fail(self, error: BaseException) -> None:
        """It has failed."""
        if not self.over:
            self.response["error"] = resource.error_of(error)
            self._end(FAILED)

    def cancel(self) -> bytes:
        """Nobody wants the rest; what has come is kept. There is no event of its own: it is one of those that are not complete."""
        if self.over:
            return b""
        found = b"".join(self._told(step, INCOMPLETE) for step in self._blocks.end())
        self._end(CANCELLED)
        return found + self._event("response.incomplete", response=self.response)

    def _end(self, status: str) -> None:
        self.response |= {"status": status, "output": self._items}
        if status == COMPLETED:
            self.response["completed_at"] = now()
        if status == INCOMPLETE:
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}

    # its items

    def _push(self, deltas: Sequence[Delta]) -> Iterator[bytes]:
        for delta in deltas:
            told = None if self._logprobs is None else self._logprobs.chat((delta,))
            for step in self._blocks.push((delta,)):
                if step.what == MORE and step.block.kind == TEXT and told is not None:
                    self._said.setdefault(step.block.index, []).extend(told["content"])
                    yield self._told(step, COMPLETED, told["content"])
                else:
                    yield self._told(step, COMPLETED)

    def _told(self, step: Step, status: str, logprobs: Sequence[Any] = ()) -> bytes:
        """A step as events. `status`: of an item that ends with it."""
        block = step.block
        if step.what == BEGIN:
            return self._begin(block)
        item = self._items[block.index]
        if step.what == MORE:
            return self._more(block, item, step.text, logprobs)
        found = self._finish(block, item)
        item["status"] = status
        return found + self._event("response.output_item.done", output_index=block.index, item=item)

    def _begin(self, block: Block) -> bytes:
        made = {TEXT: resource.message, THOUGHTS: resource.reasoning}.get(block.kind)
        item = resource.call(block.id, block.name, block.name in self._custom) if made is None else made()
        self._items.append(item)
        found = self._event("response.output_item.added", output_index=block.index, item=item)
        name, place, kind = self._part(block)
        return found + (self._event(f"{name}.added", **self._at(block, item), **place, part=kind_of(kind, "")) if name else b"")

    def _more(self, block: Block, item: dict[str, Any], said: str, logprobs: Sequence[Any]) -> bytes:
        if item["type"] == CUSTOM_CALL:
            return b""  # its text stands in an object, and is told once that is whole
        kind, (_, place, _) = f"{self._name(block)}.delta", self._part(block)
        inside = "".join(f',"{name}":{index}' for name, index in place.items())
        told = f',"logprobs":{dumps(list(logprobs))}' if block.kind == TEXT else ""
        where = f'"item_id":"{item["id"]}","output_index":{block.index}{inside}'
        return self._written(kind, f'{where},"delta":{text(said)}{told}')  # put together by hand: one every token

    def _finish(self, block: Block, item: dict[str, Any]) -> bytes:
        """A block's text is whole: into its item, and told."""
        said, at = block.text, self._at(block, item)
        if item["type"] == CUSTOM_CALL:
            found = block.arguments.get(INPUT)
            item["input"] = "" if found is None else str(found)
            told = self._event(f"{_CUSTOM}.delta", **at, delta=item["input"])
            return told + self._event(f"{_CUSTOM}.done", **at, input=item["input"])
        if block.kind == CALL:
            item["arguments"] = said
            return self._event(f"{self._name(block)}.done", **at, name=block.name, arguments=said)
        logprobs = self._said.get(block.index, [])
        name, place, kind = self._part(block)
        part = kind_of(kind, said, logprobs)
        item["summary" if kind == "summary_text" else "content"] = [part]
        if block.kind == THOUGHTS and self._seals:
            item["encrypted_content"] = sealed(said)
        more = {"logprobs": logprobs} if block.kind == TEXT else {}
        found = self._event(f"{self._name(block)}.done", **at, **place, text=said, **more)
        return found + self._event(f"{name}.done", **at, **place, part=part)

    def _part(self, block: Block) -> tuple[str, dict[str, int], str]:
        """What the events of a block's part are called, which part it is, and its type; nothing for a call."""
        if block.kind == CALL:
            return "", {}, ""
        if block.kind == THOUGHTS and self._summarised:
            return "response.reasoning_summary_part", {"summary_index": 0}, "summary_text"
        return "response.content_part", {"content_index": 0}, "output_text" if block.kind == TEXT else "reasoning_text"

    def _name(self, block: Block) -> str:
        """What the events of a block's text are called."""
        if block.kind == THOUGHTS:
            return "response.reasoning_summary_text" if self._summarised else "response.reasoning_text"
        return "response.output_text" if block.kind == TEXT else "response.function_call_arguments"

    @staticmethod
    def _at(block: Block, item: dict[str, Any]) -> dict[str, Any]:
        return {"item_id": item["id"], "output_index": block.index}

    def _event(self, kind: str, /, **fields: Any) -> bytes:
        return self._written(kind, dumps(fields)[1:-1])

    def _written(self, kind: str, inside: str) -> bytes:
        """An event with the next number; `inside`: of a JSON object."""
        data = f'{{"type":"{kind}","sequence_number":{self._number},{inside}}}'
        self._number += 1
        found = f"event: {kind}\ndata: {data}\n\n".encode()
        if self._logs:
            self.log.append(found)
        return found
