"""Tables of docs/server.md that are made from typed requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from lacewing.server.openai.fields import Refused


def fields_of(title: str, body: type[BaseModel], besides: type[BaseModel] | None = None) -> str:
    """The fields of a request, without those of another one."""
    known = set() if besides is None else set(besides.model_fields)
    found = [f"\n## {title}\n\n| field | |\n|---|---|\n"]
    for name, field in body.model_fields.items():
        if name not in known:
            needed, about = " (required)" if field.is_required() else "", field.description or ""
            found.append(f"| `{name}`{needed} | {about} |\n")
    return "".join(found)


def ignored(rows: Mapping[str, str]) -> Iterator[str]:
    """Rows of fields that are ignored."""
    return (f"| `{name}` | {reason} |\n" for name, reason in rows.items())


def refused(rows: Mapping[str, Refused]) -> Iterator[str]:
    """Rows of fields that are refused."""
    for name, row in rows.items():
        accepted = ", ".join(f"`{value}`" for value in ("null", *map(json.dumps, row.neutral)))
        yield f"| `{name}` | {accepted} | {row.reason} |\n"
