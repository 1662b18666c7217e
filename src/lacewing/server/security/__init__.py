"""What stands between the network and the API: who may ask, from where, and how much. Pure ASGI, outermost first."""

from __future__ import annotations

from starlette.types import ASGIApp

from lacewing.server.options import ServerOptions
from lacewing.server.security.binding import Binding
from lacewing.server.security.bodies import Bodies
from lacewing.server.security.cors import Cors
from lacewing.server.security.hosts import Hosts
from lacewing.server.security.keys import Keys


def guarded(app: ASGIApp, options: ServerOptions, binding: Binding) -> ASGIApp:
    """The application behind all checks: host, web pages of other origins, key, size and shape of the body."""
    return Hosts(
        Cors(Keys(Bodies(app, options.body_bytes, options.log_prompts), options.api_keys), options.cors_origins), options, binding
    )
