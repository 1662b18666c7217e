"""The line below the editor: what runs, how full the context is, how fast the last answer was. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_FILL, _SEPARATOR = "▁▂▃▄▅▆▇█", " · "


@dataclass(frozen=True)
class Status:
    """What the toolbar tells. `used` and `context` are tokens, `rate` is tokens/s of the last answer."""

    model: str
    template: str
    residency: str
    backend: str
    used: int | None = None
    context: int = 0
    rate: float | None = None
    code: bool = False


def toolbar_line(status: Status, width: int) -> str:
    """One line; what matters least goes first when it gets narrow."""
    parts = {"model": _short(status.model, max(width // 3, 12)), "template": status.template}
    parts |= {"residency": status.residency, "backend": status.backend}
    if status.used is not None and status.context:
        share = min(status.used / status.context, 1.0)
        parts["fill"] = f"{_FILL[min(int(share * len(_FILL)), len(_FILL) - 1)]} {status.used}/{status.context}"
    if status.rate:
        parts["rate"] = f"{status.rate:.1f} tok/s"
    if status.code:
        parts["code"] = "code"
    for name in ("backend", "template", "rate", "residency"):
        if len(_SEPARATOR.join(parts.values())) > width:
            parts.pop(name, None)
    return _SEPARATOR.join(parts.values())[: max(width, 0)]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else "…" + name[-(width - 1) :]
