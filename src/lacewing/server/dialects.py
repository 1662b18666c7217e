"""Which paths are told of errors in another form than OpenAI's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lacewing.server.anthropic import errors as anthropic
from lacewing.server.ollama import errors as ollama

if TYPE_CHECKING:
    from lacewing.server.dialect import Dialect

DIALECTS: tuple[tuple[str, Dialect], ...] = (("/v1/messages", anthropic.DIALECT), ("/api", ollama.DIALECT))


def dialect_of(path: str) -> Dialect | None:
    """That of the API a path belongs to; None: OpenAI's."""
    return next((dialect for prefix, dialect in DIALECTS if path == prefix or path.startswith(f"{prefix}/")), None)
