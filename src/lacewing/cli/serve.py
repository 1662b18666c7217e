"""`lacewing serve`."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from typing import TYPE_CHECKING

from lacewing.cli.progress import Reporter
from lacewing.console.output import print_text
from lacewing.errors import LacewingError, install_extra

if TYPE_CHECKING:
    from lacewing.options import LoadOptions
    from lacewing.server.models.names import Catalogue
    from lacewing.server.options import ServerOptions
    from lacewing.server.security.binding import Binding

_NEEDED = ("starlette", "uvicorn", "httptools", "pydantic", "prometheus_client")


def check_libraries() -> None:
    """Raises LacewingError where one that the server needs is not here."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise LacewingError(f"the server needs {', '.join(missing)}; run: {install_extra('server')}")


def serve(models: list[str], options: LoadOptions, server: ServerOptions) -> None:
    """Serve until a signal says to end. Raises LacewingError."""
    check_libraries()
    own = server.load
    load = replace(options, sequences=own.sequences, kv_tokens=own.kv_tokens, residency_is_default=True)
    _serve(replace(server, models=tuple(models), load=load))


def _serve(options: ServerOptions) -> None:
    from lacewing.server.run import serve

    with Reporter() as progress:
        serve(options, lambda binding, catalogue: _announce(binding, catalogue, options), progress)


def _announce(binding: Binding, catalogue: Catalogue, options: ServerOptions) -> None:
    """Where the server is, and how to call it. Keys are not shown."""
    names = [source.name for source in catalogue.sources()] or ["PATH"]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello"}]})
    key = ' -H "Authorization: Bearer $LACEWING_API_KEY"' if options.api_keys else ""
    print_text(f"serving {shown} at {binding.url}/v1 (Ctrl-C ends it)")
    print_text(f"""curl {binding.url}/v1/chat/completions -H "Content-Type: application/json"{key} -d {quoted(body)}""")


def quoted(text: str) -> str:
    """As one word of a POSIX shell."""
    import shlex

    return shlex.quote(text)
