"""Spans for OpenTelemetry, where its environment variables ask for them and its packages are here."""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from contextvars import ContextVar
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from lacewing.server.events import Observer, Record

_WANTED = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
_PACKAGES = "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http"
_log = logging.getLogger("lacewing.server")
_parent: ContextVar[Any] = ContextVar("parent", default=None)


def wanted() -> bool:
    """Whether the environment asks for traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return any(os.environ.get(name) for name in _WANTED)


def from_environment() -> Tracing | None:
    """None: nobody asks for traces, or the packages are not here, which is told."""
    if not wanted():
        return None
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        _log.warning("no traces: OpenTelemetry's variables are set, but its packages are missing", extra={"install": _PACKAGES})
        return None
    return Tracing(_provider())


def _provider() -> Any:
    """A provider that exports as the variables say."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {SERVICE_NAME: "lacewing"}
    provider = TracerProvider(resource=Resource.create(named))
    if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
        exporter: Any = ConsoleSpanExporter()
    elif os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf") == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider


class Tracing(Observer):
    """A span for each request for an answer, below the caller's (traceparent): within it one that waits, one that reads the prompt
    and one that generates. Attributes are those of OpenTelemetry's conventions; none holds a prompt."""

    def __init__(self, provider: Any):
        from opentelemetry import propagate, trace

        self._trace, self._propagate, self._provider = trace, propagate, provider
        self._tracer = provider.get_tracer("lacewing.server")

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application that knows whose span a request belongs to."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
                _parent.set(self._propagate.extract(carrier))
            await app(scope, receive, send)

        return traced

    def finished(self, record: Record) -> None:
        end = record.ended or time.perf_counter()
        attributes = {
            "http.request.method": "POST",
            "url.path": record.endpoint,
            "http.response.status_code": record.status,
            "gen_ai.system": "lacewing",
            "gen_ai.request.model": record.model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.generated_tokens,
            "gen_ai.response.finish_reasons": list(record.finish_reasons),
            "lacewing.request.id": record.id,
            "lacewing.cached_tokens": record.cached_tokens,
        }
        kind = self._trace.SpanKind.SERVER
        began = _nanoseconds(record.began)
        span = self._tracer.start_span(
            f"POST {record.endpoint}", context=_parent.get(), kind=kind, attributes=attributes, start_time=began
        )
        if isinstance(record.error, Exception):
            span.set_status(self._trace.StatusCode.ERROR, str(record.error))
        below = self._trace.set_span_in_context(span)
        moments = [("queue", record.began, record.started), ("prompt", record.started, record.first_token)]
        moments.append(("generate", record.first_token, record.last_token))
        for name, first, last in moments:
            if first is not None and last is not None:
                part = self._tracer.start_span(name, context=below, start_time=_nanoseconds(first))
                part.end(_nanoseconds(last))
        span.end(_nanoseconds(end))

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _nanoseconds(moment: float) -> int:
    """Since 1970, of a moment of `time.perf_counter`."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)
