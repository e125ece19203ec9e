"""OTLP sinks: collectors of our own for tests, over HTTP and gRPC, that can be away, busy or slow on demand."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import grpc
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Mood = Literal["taking", "unavailable", "slow", "partial"]


def spans_of(request: ExportTraceServiceRequest) -> list[Span]:
    return [span for group in request.resource_spans for scoped in group.scope_spans for span in scoped.spans]


def attributes_of(span: Any) -> dict[str, Any]:
    """The attributes of a protobuf span (or resource, or data point) as plain values."""
    shown: dict[str, Any] = {}
    for pair in span.attributes:
        kind = pair.value.WhichOneof("value")
        value = getattr(pair.value, kind)
        shown[pair.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return shown


class HttpSink:
    """A collector on 127.0.0.1. `close` and `open` again is a collector that is restarted on the same port.

    `mood` is `taking`, `unavailable` (answers 503), `slow` (answers after `slow_seconds`), or `partial` (200, but says
    that it rejected a span). `requests` are those that were acknowledged, `seen` counts all that came.
    """

    def __init__(self) -> None:
        self.mood: Mood = "taking"
        self.slow_seconds = 1.0
        self.seen = 0
        self.requests: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: dict[str, str] = {}
        self.refuse_if_holds: bytes | None = None
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def spans(self) -> list[Span]:
        return [span for request in self.requests for span in spans_of(request)]

    async def open(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/metrics", self._metrics)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _traces(self, request: web.Request) -> web.Response:
        self.seen += 1
        body = await request.read()
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        if self.mood == "unavailable":
            return web.Response(status=503, text="the collector is busy")
        if self.mood == "slow":
            await asyncio.sleep(self.slow_seconds)
        if self.refuse_if_holds is not None and self.refuse_if_holds in body:
            return web.Response(status=400, text="no such span")
        # aiohttp has undone a content-encoding that it knows; what is still packed is told by its first bytes.
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        elif body[:1] == b"\x78":
            body = zlib.decompress(body)
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        answer = ExportTraceServiceResponse()
        if self.mood == "partial":
            answer.partial_success.rejected_spans = 1
            answer.partial_success.error_message = "too old"
        return web.Response(body=answer.SerializeToString(), content_type="application/x-protobuf")

    async def _metrics(self, request: web.Request) -> web.Response:
        self.metrics.append(ExportMetricsServiceRequest.FromString(await request.read()))
        return web.Response(body=b"", content_type="application/x-protobuf")


class GrpcSink(TraceServiceServicer):
    """A collector that speaks gRPC, on 127.0.0.1 and a free port."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.metadata: dict[str, Any] = {}
        self._server = grpc.server(ThreadPoolExecutor(max_workers=2))
        add_TraceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def spans(self) -> list[Span]:
        return [span for request in self.requests for span in spans_of(request)]

    def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        self.metadata = dict(context.invocation_metadata())
        self.requests.append(request)
        return ExportTraceServiceResponse()

    def close(self) -> None:
        self._server.stop(0).wait()
