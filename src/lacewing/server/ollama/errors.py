"""Errors as Ollama's clients read them: a status, and {"error": message}."""

from __future__ import annotations

import json

from starlette.responses import Response

from lacewing.server.dialect import LINES, Dialect
from lacewing.server.openai import errors


def response(error: BaseException) -> Response:
    """The answer to a request that failed before anything was sent."""
    ours = errors.response(error)
    ours.body = json.dumps({"error": _message(error)}).encode()
    ours.headers["content-length"] = str(len(ours.body))
    return ours


def event(error: BaseException) -> bytes:
    """The last line of a stream that failed."""
    return json.dumps({"error": _message(error)}).encode() + b"\n"


def _message(error: BaseException) -> str:
    message: str = errors.body_of(error)["error"]["message"]
    return message


DIALECT = Dialect(response, event, content_type=LINES, pings=False)  # its clients parse every line
