"""GET / and /page/...: the files of the web page, with headers that let it load nothing but itself.

The page is plain HTML, CSS and ES modules in `web/`; nothing is built. A file that is not in that folder now is not served.
"""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

# No inline script or style, no eval, no other host; and text cannot become markup, whatever a script does with it.
POLICY = "; ".join((
    "default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self'", "manifest-src 'self'",
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
))  # fmt: skip
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-cache",  # asks each time whether the file is still the same, so that an update is seen at once
}
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}  # not the system's table


class Asset(NamedTuple):
    """A file of the page. `tag`: its ETag."""

    data: bytes
    kind: str
    tag: str


@functools.cache
def assets() -> dict[str, Asset]:
    """All files by their path below `web`."""
    return dict(_below(files("lacewing.server.page") / "web", ""))


def _below(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found = []
    for entry in folder.iterdir():
        name, ending = f"{prefix}{entry.name}", f".{entry.name.rpartition('.')[2]}"
        if entry.is_dir():
            found += _below(entry, f"{name}/")
        elif ending in _TYPES:
            data = entry.read_bytes()
            found.append((name, Asset(data, _TYPES[ending], f'"{hashlib.sha256(data).hexdigest()[:32]}"')))
    return found


def page(request: Request) -> Response:
    """The web page itself."""
    return _answer(request, assets()["index.html"])


async def page_file(request: Request) -> Response:
    """A file of the web page."""
    asset = assets().get(request.path_params["path"])
    if asset is None:
        raise HTTPException(404)
    return _answer(request, asset)


def _answer(request: Request, asset: Asset) -> Response:
    headers = HEADERS | {"etag": asset.tag, "vary": "Accept"}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if asset.tag in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.data, media_type=asset.kind, headers=headers)
