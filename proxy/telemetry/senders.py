"""Senders: where encoded spans go. Over HTTP, over gRPC, or into a file; each a SpanExporter of the SDK.

Each takes one batch and answers whether the other side has acknowledged it. None of them keeps or drops anything:
that a batch is sent until it is acknowledged is the work of `exporter.py`. `reason` says why the last attempt failed.
"""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.util.re import parse_env_headers

from .otlp import encode_json, encode_protobuf

ENDPOINT_DEFAULT = "http://localhost:4318"
TIMEOUT_SECONDS_DEFAULT = 10.0
"""Both as the OTLP specification has them."""
REASON_CHARS_MAX = 200
"""Of a collector's answer, in a log line: enough for its sentence, too little for a page of HTML."""

log = logging.getLogger(__name__)


class SenderInvalid(ValueError):
    """An OTEL_* variable that cannot be followed. Its text is a sentence for the person who set it."""


def otlp_setting(environ: Mapping[str, str], name: str) -> str | None:
    """`OTEL_EXPORTER_OTLP_TRACES_<name>`, else `OTEL_EXPORTER_OTLP_<name>`; empty counts as unset."""
    return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}") or None


class HttpSender(SpanExporter):
    """OTLP over HTTP with protobuf bodies, told where and how by the standard OTEL_EXPORTER_OTLP_* variables.

    It tries once: a caller that retries with its own patience and its own memory needs no second loop in here.
    Raises SenderInvalid.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.reason = ""
        base = (environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or ENDPOINT_DEFAULT).rstrip("/")
        self.endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or f"{base}/v1/traces"
        if not self.endpoint.startswith(("http://", "https://")):
            raise SenderInvalid(
                f"OTEL_EXPORTER_OTLP_ENDPOINT is `{self.endpoint}`; it must begin with http:// or https://"
            )
        self._timeout_seconds = _seconds(otlp_setting(environ, "TIMEOUT"))
        self._compression = (otlp_setting(environ, "COMPRESSION") or "none").lower()
        if self._compression not in ("none", "gzip", "deflate"):
            raise SenderInvalid(
                f"OTEL_EXPORTER_OTLP_COMPRESSION is `{self._compression}`; write `gzip`, `deflate` or `none`"
            )
        self._session = requests.Session()
        self._session.headers.update(
            {"content-type": "application/x-protobuf"}
            | dict(parse_env_headers(otlp_setting(environ, "HEADERS") or "", True))
        )
        if self._compression != "none":
            self._session.headers["content-encoding"] = self._compression
        self._session.verify = otlp_setting(environ, "CERTIFICATE") or True
        certificate, key = otlp_setting(environ, "CLIENT_CERTIFICATE"), otlp_setting(environ, "CLIENT_KEY")
        self._session.cert = (certificate, key) if certificate and key else certificate

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """SUCCESS once the collector has answered 2xx."""
        body = encode_protobuf(spans)
        if self._compression == "gzip":
            body = gzip.compress(body, compresslevel=6)
        elif self._compression == "deflate":
            body = zlib.compress(body)
        try:
            answer = self._session.post(self.endpoint, data=body, timeout=self._timeout_seconds, allow_redirects=False)
        except requests.RequestException as error:
            self.reason = f"no answer from {self.endpoint} ({type(error).__name__})"
            return SpanExportResult.FAILURE
        if not 200 <= answer.status_code < 300:
            self.reason = f"{self.endpoint} answered {answer.status_code}: {answer.text[:REASON_CHARS_MAX]}"
            return SpanExportResult.FAILURE
        _report_rejected(answer.content)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the connections; a request on its way ends by its own time limit."""
        self._session.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is ever buffered here."""
        return True


class FileSender(SpanExporter):
    """OTLP JSON lines, one request a line, appended and synced to disk before a batch counts as exported.

    The collector's `otlpjsonfile` receiver reads them. A file can be moved away at any time: each batch opens it anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reason = ""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """SUCCESS once the line is on disk."""
        line = encode_json(spans) + b"\n"
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(file).st_size
                # A crash or a full disk may have left half a line; the next must not continue it.
                if size and os.pread(file, 1, size - 1) != b"\n":
                    line = b"\n" + line
                _write_all(file, line)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            self.reason = f"cannot append to {self._path}: {error.strerror}"
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is kept open."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is ever buffered here."""
        return True


def grpc_sender() -> SpanExporter:
    """OTLP over gRPC: the SDK's exporter with our encoder. It reads its OTEL_* variables from the process itself.

    A function with imports inside, because gRPC costs 20 MB of memory that only those who ask for it should pay.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    class GrpcSender(OTLPSpanExporter):
        def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
            request = ExportTraceServiceRequest()
            request.ParseFromString(encode_protobuf(data))
            return request

    return GrpcSender()


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _report_rejected(body: bytes) -> None:
    """A collector may take a batch and still turn some of its spans away; sending those again would not help."""
    if not body:
        return
    try:
        partial = ExportTraceServiceResponse.FromString(body).partial_success
    except Exception:  # whatever came with a 2xx that is no protobuf, the batch was taken
        return
    if partial.rejected_spans:
        log.warning(
            "The collector rejected %d spans: %s",
            partial.rejected_spans,
            partial.error_message[:REASON_CHARS_MAX],
        )


def _seconds(text: str | None) -> float:
    if text is None:
        return TIMEOUT_SECONDS_DEFAULT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise SenderInvalid(f"OTEL_EXPORTER_OTLP_TIMEOUT is `{text}`; write seconds, above 0 and below 3600")
    return seconds
