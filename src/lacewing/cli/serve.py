"""`lacewing serve`."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from lacewing.cli.progress import Reporter
from lacewing.console.output import is_quiet, print_text
from lacewing.errors import LacewingError, install_extra

if TYPE_CHECKING:
    from lacewing.options import LoadOptions
    from lacewing.server.models.names import Catalogue
    from lacewing.server.models.served import Served
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

    began = time.monotonic()
    with Reporter() as progress:

        def ready(served: Served) -> None:
            progress.clear()
            print_text(f"ready: {_described(served)}, after {time.monotonic() - began:.1f} s")

        serve(options, lambda binding, catalogue: _announce(binding, catalogue, options), ready, progress)


def _announce(binding: Binding, catalogue: Catalogue, options: ServerOptions) -> None:
    """Where the server is, how to call it, and whether a model is there yet. Keys are not shown."""
    names = [source.name for source in catalogue.sources()] or ["PATH"]
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    body = json.dumps({"model": names[0], "messages": [{"role": "user", "content": "Hello"}]})
    key = ' -H "Authorization: Bearer $LACEWING_API_KEY"' if options.api_keys else ""
    print_text(f"serving {shown} at {binding.url}/v1 (Ctrl-C ends it)")
    print_text(f"""curl {binding.url}/v1/chat/completions -H "Content-Type: application/json"{key} -d {quoted(body)}""")
    if options.on_demand or catalogue.default is None:
        print_text("ready: models are loaded when requests ask for them")
    elif not is_quiet():
        print_text(f"loading {catalogue.default}; requests wait for it, and /health says 503 until then")


def _described(served: Served) -> str:
    """A model, where it is and how much it takes at a time."""
    model = served.model
    where = f"{model.weights.residency} weights" if model.weights_on_host else "weights on the device"
    most = f"context {model.spec.context}, up to {model.step.limits.rows} answers at a time"
    return f"{served.name} ({where}, {model.backend.name}, {most})"


def quoted(text: str) -> str:
    """As one word of a POSIX shell."""
    import shlex

    return shlex.quote(text)
