from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult

from proxy.telemetry.exporter import exporter_from_environment
from proxy.telemetry.otlp import encode_json, encode_protobuf
from proxy.telemetry.senders import FileSender, HttpSender
from proxy.telemetry.spans import record_spans
from tests.support.otlp_sink import GrpcSink, HttpSink, attributes_of
from tests.support.telemetry_records import FULL, numbered

SPANS = record_spans(FULL, resource=Resource({"service.name": "callmeter"}))
SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE


@pytest.fixture
async def sink() -> AsyncIterator[HttpSink]:
    sink = HttpSink()
    await sink.open()
    yield sink
    await sink.close()


@pytest.fixture
def grpc_sink() -> Iterator[GrpcSink]:
    sink = GrpcSink()
    yield sink
    sink.close()


def http_sender(sink: HttpSink, **variables: str) -> HttpSender:
    return HttpSender({"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url} | variables)


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
async def test_a_batch_arrives_over_http(sink: HttpSink, compression: str) -> None:
    sender = http_sender(sink, OTEL_EXPORTER_OTLP_COMPRESSION=compression)
    assert await asyncio.to_thread(sender.export, SPANS) is SUCCESS
    assert sink.requests == [ExportTraceServiceRequest.FromString(encode_protobuf(SPANS))]
    assert sink.headers["content-type"] == "application/x-protobuf"
    sender.shutdown()


async def test_headers_of_the_environment_are_sent_and_those_for_traces_win(sink: HttpSink) -> None:
    sender = http_sender(
        sink,
        OTEL_EXPORTER_OTLP_HEADERS="x-of=all",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="Authorization=Basic%20abc,x-mlflow-experiment-id=0",
    )
    assert await asyncio.to_thread(sender.export, SPANS) is SUCCESS
    assert sink.headers["authorization"] == "Basic abc"
    assert sink.headers["x-mlflow-experiment-id"] == "0"
    assert "x-of" not in sink.headers
    sender.shutdown()


@pytest.mark.parametrize("mood", ["unavailable", "slow"])
async def test_what_a_collector_did_not_acknowledge_is_a_failure_after_one_attempt(sink: HttpSink, mood: str) -> None:
    sink.mood = mood
    sender = http_sender(sink, OTEL_EXPORTER_OTLP_TIMEOUT="0.1")
    assert await asyncio.to_thread(sender.export, SPANS) is FAILURE
    assert sink.seen == 1
    sender.shutdown()


async def test_a_refused_connection_is_a_failure(sink: HttpSink) -> None:
    sender = http_sender(sink)
    await sink.close()
    assert await asyncio.to_thread(sender.export, SPANS) is FAILURE
    assert sender.reason == f"no answer from {sink.url}/v1/traces (ConnectionError)"
    sender.shutdown()


async def test_the_answer_of_a_collector_is_the_reason_of_a_failure(sink: HttpSink) -> None:
    sink.mood = "unavailable"
    sender = http_sender(sink)
    assert await asyncio.to_thread(sender.export, SPANS) is FAILURE
    assert sender.reason == f"{sink.url}/v1/traces answered 503: the collector is busy"
    sender.shutdown()


async def test_spans_that_a_collector_rejects_in_part_are_logged_and_not_sent_again(
    sink: HttpSink, caplog: pytest.LogCaptureFixture
) -> None:
    sink.mood = "partial"
    sender = http_sender(sink)
    assert await asyncio.to_thread(sender.export, SPANS) is SUCCESS
    assert "rejected 1 spans: too old" in caplog.text
    sender.shutdown()


def test_a_batch_arrives_over_grpc(grpc_sink: GrpcSink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{grpc_sink.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
    sender = exporter_from_environment(os.environ)
    assert sender is not None
    assert sender.export(SPANS) is SUCCESS
    assert grpc_sink.requests == [ExportTraceServiceRequest.FromString(encode_protobuf(SPANS))]
    assert grpc_sink.metadata["x-tenant"] == "acme"
    assert attributes_of(grpc_sink.spans[1])["callmeter.cost.nusd"] == FULL.cost_nusd
    sender.shutdown()


def test_a_grpc_collector_that_is_away_is_a_failure(
    grpc_sink: GrpcSink, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="opentelemetry")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{grpc_sink.port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.3")
    sender = exporter_from_environment(os.environ)
    assert sender is not None
    grpc_sink.close()
    assert sender.export(SPANS) is FAILURE
    sender.shutdown()


def test_a_file_gets_one_request_a_line(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    sender = FileSender(path)
    assert sender.export(SPANS) is SUCCESS
    assert sender.export(record_spans(numbered(2), resource=Resource({}))) is SUCCESS
    first, second = path.read_bytes().splitlines()
    assert first == encode_json(SPANS)
    assert json.loads(second)["resourceSpans"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_half_a_line_that_a_crash_left_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(b'{"resourceSpans":[{"res')
    assert FileSender(path).export(SPANS) is SUCCESS
    assert path.read_bytes().splitlines()[1] == encode_json(SPANS)


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    sender = FileSender(path)
    sender.export(SPANS)
    path.rename(tmp_path / "old.jsonl")
    sender.export(SPANS)
    assert path.read_bytes() == (tmp_path / "old.jsonl").read_bytes()


def test_a_file_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    sender = FileSender(tmp_path / "missing" / "traces.jsonl")
    assert sender.export(SPANS) is FAILURE
    assert sender.reason.endswith("No such file or directory")
