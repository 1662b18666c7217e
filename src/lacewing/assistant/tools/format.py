"""What a format of tool calls is: a row for each family of models, found by what its template and vocabulary hold."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lacewing.assistant.tools.definitions import Tool, Tools
from lacewing.assistant.tools.parsing import Parser

if TYPE_CHECKING:
    from lacewing.assistant.tools.lark import Lark

_LETTERS = string.ascii_letters + string.digits


def random_id(name: str, index: int) -> str:
    """Of a call: as long as OpenAI's."""
    return "call_" + "".join(secrets.choice(_LETTERS) for _ in range(24))


def short_id(name: str, index: int) -> str:
    """Of a call, as Mistral's templates want it: 9 letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


@dataclass(frozen=True)
class Format:
    """One way to write calls.

    A template that holds all of `spelt`, or a vocabulary with all of `tokens`, has it. `marks`: what the parser has to see even if
    they are control tokens. `call` writes the grammar of one call of a tool; `opening`, `between` and `closing` stand around calls.
    `one_call`: the model makes one in a message.
    """

    name: str
    parser: Callable[[Tools, tuple[str, ...]], Parser]
    spelt: tuple[str, ...]
    tokens: tuple[str, ...]
    marks: tuple[str, ...]
    call: Callable[[Lark, Tool], str]
    opening: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    closing: tuple[str, ...] = ()
    make_id: Callable[[str, int], str] = random_id
    one_call: bool = False


def head(tool: Tool, key: str) -> str:
    """What stands before the arguments of a call that is a JSON object."""
    return f'{{"name": {json.dumps(tool.name)}, {json.dumps(key)}: '
