"""What a format of tool calls is: a row for each family of models, found by what its template and vocabulary hold."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lacewing.assistant.tools.definitions import Tool
from lacewing.assistant.tools.history import Ids, any_id
from lacewing.assistant.tools.parsing import Parser

if TYPE_CHECKING:
    from lacewing.assistant.tools.lark import Lark

Write = Callable[[Sequence[Mapping[str, Any]]], str]  # of functions with their name and arguments, a JSON text
_LETTERS = string.ascii_letters + string.digits


def random_id(name: str, index: int) -> str:
    """Of a call: as long as OpenAI's."""
    return "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))


@dataclass(frozen=True)
class Format:
    """One way to write calls.

    A template that holds all of `spelt`, or writes it, has it. `marks`: what the parser has to see even if they are control tokens.
    `call` writes the grammar of one call of a tool; `opening`, `between` and `closing` stand around calls. `one_call`: the model
    makes one in a message. `told`: how to call, for a template that does not show tools; "{tools}" in it are the definitions.
    `marked`: calls begin with a mark, which no text has; `without_calls`: what stands before a text instead of a call.
    `write`: calls as the model writes them, for a template that shows tools and results, but no calls.
    `past_id` makes the id of a call in the conversation that the template takes, `make_id` that of a new one.
    """

    name: str
    parser: type[Parser]
    spelt: tuple[str, ...]
    marks: tuple[str, ...]
    call: Callable[[Lark, Tool], str]
    opening: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    make_id: Callable[[str, int], str] = random_id
    one_call: bool = False
    told: str = ""
    marked: bool = True
    without_calls: tuple[str, ...] = ()
    past_id: Ids = any_id
    write: Write | None = None


def head(tool: Tool, key: str) -> str:
    """What stands before the arguments of a call that is a JSON object."""
    return f'{{"name": {json.dumps(tool.name)}, {json.dumps(key)}: '
