"""Errors as OpenAI's clients read them: a status, and {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError
from starlette.responses import Response

from lacewing.errors import (
    BackendError,
    Cancelled,
    ContextOverflowError,
    LacewingError,
    ModelFormatError,
    NumericError,
    OptionError,
    OutOfMemoryError,
    TemplateError,
    TokenizerError,
)
from lacewing.server.dialect import Dialect

DONE = b"data: [DONE]\n\n"
# The first row that an error is of; an error may bring `status`, `code` and `retry_after` of its own.
_ROWS: tuple[tuple[type[LacewingError], int, str | None], ...] = (
    (ContextOverflowError, 400, "context_length_exceeded"),
    (OptionError, 400, None),
    (TemplateError, 400, "invalid_messages"),
    (TokenizerError, 400, None),
    (OutOfMemoryError, 503, "out_of_memory"),
    (ModelFormatError, 503, "model_changed"),
    (BackendError, 503, "backend_failed"),
    (Cancelled, 503, "cancelled"),
    (NumericError, 500, "not_a_number"),
)
_OTHERS = (
    (400, "invalid_json"), (400, "invalid_value"), (400, "missing_required_parameter"), (400, "unsupported_parameter"),
    (400, "unsupported_content"), (400, "unsupported_tool"), (400, "previous_response_not_found"), (400, "item_not_found"),
    (501, "not_supported"), (503, "store_unavailable"), (404, "model_not_found"), (404, "not_found"), (405, "method_not_allowed"),
    (415, "unsupported_media_type"), (429, "queue_full"), (500, "internal_error"), (503, "queue_timeout"),
    (503, "model_load_failed"), (503, "shutting_down"), (504, "request_timeout"),
)  # fmt: skip
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "invalid_request_error",
          429: "rate_limit_error", 501: "not_supported_error", 503: "unavailable_error"}  # fmt: skip


def rows() -> list[tuple[int, str]]:
    """Statuses and codes that requests can fail with, for the documentation."""
    own = [(status, code) for _, status, code in _ROWS if code is not None]
    return sorted({*own, *_OTHERS})


class RequestError(LacewingError):
    """Something is wrong with a request; `param` is the field, as OpenAI names it."""

    def __init__(self, message: str, param: str | None = None, *, status: int = 400, code: str | None = None, **more: Any):
        super().__init__(message)
        self.param, self.status, self.code, self.more = param, status, code, more


def status_of(error: BaseException) -> int:
    """The HTTP status that an error is told with; 500 for what is no error of ours."""
    own = getattr(error, "status", None)
    if isinstance(own, int):
        return own
    return next((status for kind, status, _ in _ROWS if isinstance(error, kind)), 400 if isinstance(error, LacewingError) else 500)


def body_of(error: BaseException) -> dict[str, Any]:
    """What is told about an error. Of one that is no error of ours, nothing but that it happened."""
    status = status_of(error)
    known = isinstance(error, LacewingError)
    code = getattr(error, "code", None) or next((code for kind, _, code in _ROWS if isinstance(error, kind)), None)
    told = {
        "message": str(error) if known else "an internal error occurred; the server's log has the details",
        "type": _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error"),
        "param": getattr(error, "param", None),
        "code": code if known else "internal_error",
    }
    return {"error": told | getattr(error, "more", {})}


def response(error: BaseException) -> Response:
    """The answer to a request that failed before anything was sent."""
    headers = {}
    retry = getattr(error, "retry_after", None)
    if retry is not None:
        headers["retry-after"] = str(max(1, round(retry)))
    return Response(json.dumps(body_of(error)), status_of(error), headers, "application/json")


def event(error: BaseException) -> bytes:
    """The same within a stream, whose status has been sent."""
    return b"data: " + json.dumps(body_of(error)).encode() + b"\n\n"


DIALECT = Dialect(response, event, DONE)


def of_validation(error: ValidationError) -> RequestError:
    """The first thing that is wrong with a body, and its place."""
    kind, place, message = _first(error)
    if kind == "json_invalid":
        return RequestError(f"the body is not valid JSON: {message.removeprefix('Invalid JSON: ')}", code="invalid_json")
    if kind == "missing":
        return RequestError(f"you must provide `{place}`", place, code="missing_required_parameter")
    message = message.removeprefix("Value error, ")
    return RequestError(f"`{place}`: {message}" if place else message, place or None, code="invalid_value")


def _first(error: ValidationError) -> tuple[str, str, str]:
    """Kind, place and message. A field that may be of several types has an error for each: that of the closest type counts."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    told = [(each["type"], path_of(each["loc"]), each["msg"]) for each in found]
    same = [each for each in told if each[1].startswith(told[0][1])]
    kind, place, message = max(same, key=lambda each: (each[1].count(".") + each[1].count("["), not each[0].endswith("_type")))
    if kind.endswith("_type"):  # it is of none
        kinds = dict.fromkeys(text for other, where, text in same if where == place and other.endswith("_type"))
        message = " or ".join((message, *(each.removeprefix("Input should be ") for each in kinds if each != message)))
    return kind, place, message


def path_of(places: tuple[int | str, ...]) -> str:
    """`messages[0].content`; without the names of the members of unions, which pydantic adds."""
    path = ""
    for place in places:
        if isinstance(place, int):
            path += f"[{place}]"
        elif place.isidentifier() and place not in _MEMBERS:
            path += f".{place}" if path else place
    return path


_MEMBERS = frozenset(("str", "int", "float", "bool", "none", "list", "dict", "Document"))
