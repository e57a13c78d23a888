"""A team's own tools see a reading as they see any request of httpx: pytest-httpx answers it, OpenTelemetry traces it."""

from __future__ import annotations

import httpx
import pytest
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from scripted_server import KEY, hang_up, refusal

from creditguard.errors import AuthenticationError, SourceError
from creditguard.sources.apimall import ApiMall

URL = "https://gateway.apimall.ai/api/v1/account/balances"


def body(amount):
    return {"success": True, "data": {"api_credits": amount}, "request_id": "req_1"}


def test_pytest_httpx_answers_readings(httpx_mock, read):
    httpx_mock.add_response(url=URL, match_headers={"Authorization": f"Bearer {KEY}"}, json=body(120))
    httpx_mock.add_response(url=URL, json=body(119))
    assert [int(found.amount) for found in read.twice(ApiMall(KEY))] == [120, 119]
    first, second = httpx_mock.get_requests()
    assert first is not second
    assert (first.method, first.headers["accept-encoding"]) == ("GET", "identity")


def test_pytest_httpx_refuses_and_fails_readings(httpx_mock, read):
    httpx_mock.add_response(url=URL, status_code=401, json={"success": False, "error": {"code": "unauthorized"}})
    assert read.fails(ApiMall(KEY), AuthenticationError).status == 401
    httpx_mock.add_exception(httpx.ConnectError("refused"), url=URL, is_reusable=True)
    assert "could not be reached" in str(read.fails(ApiMall(KEY), SourceError))


@pytest.fixture
def spans():
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    HTTPXClientInstrumentor().instrument(tracer_provider=provider)
    exporter.tracer = provider.get_tracer("tests")
    yield exporter
    HTTPXClientInstrumentor().uninstrument()


def test_opentelemetry_traces_readings_under_the_span_of_whoever_reads(server, source, read, spans):
    def in_a_span():
        with spans.tracer.start_as_current_span("job"):
            source.read(5)
            source.read(5)

    read.run(in_a_span)
    *requests, job = spans.get_finished_spans()
    assert len(requests) == 2
    for span, request in zip(requests, server.requests, strict=True):
        assert span.kind is SpanKind.CLIENT
        assert span.parent.span_id == job.context.span_id
        assert source._url + "/api/v1/account/balances" in span.attributes.values()
        assert 200 in span.attributes.values()
        assert KEY not in span.to_json()
        assert f"traceparent: 00-{span.context.trace_id:032x}-{span.context.span_id:016x}".encode() in request
    assert server.connections == 1


def test_opentelemetry_traces_readings_that_fail(server, source, read, spans):
    server.script = [hang_up, refusal(401, "unauthorized")]
    read.fails(source, AuthenticationError)
    cut_off, refused = spans.get_finished_spans()
    assert cut_off.status.status_code is refused.status.status_code is StatusCode.ERROR
    assert KEY not in cut_off.to_json() + refused.to_json()
