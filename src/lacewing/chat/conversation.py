"""A plain conversation: lines in, streamed answers out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

from lacewing.chat.interrupt import Interrupt
from lacewing.chat.output import Output
from lacewing.errors import LacewingError

if TYPE_CHECKING:
    from lacewing.api import Model

PROMPT = "> "


def lines(source: TextIO, ask: Callable[[str], str] = input) -> Iterator[str]:
    """Lines of a terminal, prompted, or of a pipe; until the end of input or /quit. Ctrl-C at the prompt drops the line."""
    while True:
        try:
            line = ask(PROMPT) if source.isatty() else source.readline()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            if not source.isatty():
                raise
            print("\n/quit leaves")
            continue
        if (not line and not source.isatty()) or line.strip() == "/quit":
            return
        if line.strip():
            yield line.strip()


def converse(model: Model, source: Iterator[str], output: Output, complain: Callable[[str], None], **sampling: Any) -> None:
    """Answer each line. Ctrl-C stops an answer; what has been said of it stays in the conversation.

    An error of one turn is told to `complain`, and that turn is forgotten.
    """
    messages: list[dict[str, str]] = []
    for line in source:
        messages.append({"role": "user", "content": line})
        answer: list[str] = []
        try:
            with Interrupt() as interrupt:
                for text in model.chat(messages, cancelled=interrupt, **sampling):
                    answer.append(text)
                    output.write(text)
            messages.append({"role": "assistant", "content": "".join(answer)})
        except LacewingError as error:
            messages.pop()
            complain(str(error))
        output.end_line()
