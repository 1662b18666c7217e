"""OpenTelemetry: asked for by its variables, told when its packages are missing, spans of what a request waited for."""

from __future__ import annotations

import logging

import pytest

from lacewing.server import tracing
from lacewing.server.events import Record
from lacewing.server.tracing import Tracing, from_environment, wanted


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*tracing._WANTED, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def test_asked_for_by_variables_alone(monkeypatch):
    assert not wanted() and from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
    assert wanted()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert not wanted()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    assert not wanted()


def test_missing_packages_are_told(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setattr(tracing.importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING, "lacewing.server"):
        assert from_environment() is None
    assert "packages are missing" in caplog.text


class Span:
    def __init__(self, name, start, attributes):
        self.name, self.start, self.attributes, self.stop, self.status = name, start, attributes, None, None

    def set_status(self, code, text):
        self.status = code

    def end(self, moment):
        self.stop = moment


class Tracer:
    """As much of a tracer as is called."""

    SpanKind = type("SpanKind", (), {"SERVER": 1})
    StatusCode = type("StatusCode", (), {"ERROR": 2})

    def __init__(self):
        self.spans = []

    def start_span(self, name, context=None, kind=None, attributes=None, start_time=0):
        self.spans.append(Span(name, start_time, attributes))
        return self.spans[-1]

    def set_span_in_context(self, span):
        return span


def spans_of(record: Record) -> list[Span]:
    made = Tracing.__new__(Tracing)
    made._trace = made._tracer = tracer = Tracer()
    made.finished(record)
    return tracer.spans


def test_spans_are_what_the_record_says():
    record = Record("id", "/v1/completions", "m", began=1.0, started=2.0, first_token=4.0, last_token=7.0, ended=8.0)
    whole, *parts = spans_of(record)
    assert [span.name for span in (whole, *parts)] == ["POST /v1/completions", "queue", "prompt", "generate"]
    assert [round((span.stop - span.start) / 1e9, 2) for span in (whole, *parts)] == [7.0, 1.0, 2.0, 3.0]
    assert whole.attributes["gen_ai.request.model"] == "m" and whole.status is None


def test_a_request_that_failed_early():
    record = Record("id", "/v1/completions", error=ValueError("no"), status=400)
    (whole,) = spans_of(record)
    assert whole.status == 2 and whole.attributes["http.response.status_code"] == 400
