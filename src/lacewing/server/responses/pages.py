"""Lists of items, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from lacewing.server.openai.errors import RequestError

_LIMIT, _MOST = 20, 100


def page(request: Request, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """As `limit`, `order` ("desc" by default, the newest first) and `after`, an id, ask for. Raises RequestError."""
    query = request.query_params
    order, after, limit = query.get("order", "desc"), query.get("after"), query.get("limit", str(_LIMIT))
    if order not in ("asc", "desc"):
        raise RequestError('`order` must be "asc" or "desc"', "order", code="invalid_value")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= _MOST):
        raise RequestError(f"`limit` must be a number from 1 to {_MOST}", "limit", code="invalid_value")
    found = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        places = [place for place, item in enumerate(found) if item["id"] == after]
        if not places:
            raise RequestError(f"there is no item {after[:100]!r} in this list", "after", code="invalid_value")
        found = found[places[0] + 1 :]
    some = found[: int(limit)]
    first, last = (some[0]["id"], some[-1]["id"]) if some else ("", "")
    return {"object": "list", "data": some, "first_id": first, "last_id": last, "has_more": len(found) > len(some)}
