"""Errors as Anthropic's clients read them: {"type": "error", "error": {"type", "message"}, "request_id"}."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from lacewing.server.dialect import Dialect
from lacewing.server.openai import errors

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip
_STATUSES = {503: 529}  # how this API says that it may work later


def status_of(status: int) -> int:
    """The status that this API has for one of ours."""
    return _STATUSES.get(status, status)


def told(status: int, message: str) -> dict[str, Any]:
    """The body for an error with one of our statuses."""
    status = status_of(status)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def body_of(error: BaseException) -> dict[str, Any]:
    """What is told about an error."""
    inner, more = errors.body_of(error)["error"], getattr(error, "more", {})
    message = inner["message"]
    if "n_prompt_tokens" in more:  # by these words Claude Code knows that it has to shorten the conversation
        message = f"prompt is too long: {more['n_prompt_tokens']} tokens > {more['n_ctx']} maximum"
    return told(errors.status_of(error), message)


def response(error: BaseException) -> Response:
    """The answer to a request that failed before anything was sent."""
    ours = errors.response(error)
    ours.status_code = status_of(ours.status_code)
    ours.body = json.dumps(body_of(error)).encode()
    ours.headers["content-length"] = str(len(ours.body))
    return ours


def event(error: BaseException) -> bytes:
    """The same within a stream."""
    return f"event: error\ndata: {json.dumps(body_of(error))}\n\n".encode()


DIALECT = Dialect(response, event, ping=b'event: ping\ndata: {"type":"ping"}\n\n')
