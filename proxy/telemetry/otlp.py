"""OTLP: spans -> the messages of the OpenTelemetry protocol, as protobuf and as JSON.

The encoder of the OpenTelemetry SDK builds each message apart and copies it into the next: 230 µs and more a call
with our attributes, which one core cannot pay at 2,000 calls a second beside all else. This one builds in place, in
about 70 µs, from the same published message classes; tests hold its output equal to the SDK's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

INT64_MAX = 2**63 - 1
FLAG_HAS_IS_REMOTE = 0x100
FLAG_IS_REMOTE = 0x200
"""Of opentelemetry.proto.trace.v1.SpanFlags: whether the parent span lives in another process."""

_KINDS = {
    SpanKind.INTERNAL: 1,
    SpanKind.SERVER: 2,
    SpanKind.CLIENT: 3,
    SpanKind.PRODUCER: 4,
    SpanKind.CONSUMER: 5,
}


def encode_protobuf(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """One request with all `spans`, which must share one resource and one scope, as the spans of records do."""
    request = ExportTraceServiceRequest()
    if not spans:
        return request
    group = request.resource_spans.add()
    _add_attributes(group.resource.attributes, spans[0].resource.attributes)
    scoped = group.scope_spans.add()
    scope = spans[0].instrumentation_scope
    if scope is not None:
        scoped.scope.name = scope.name
        scoped.scope.version = scope.version or ""
        scoped.schema_url = scope.schema_url or ""
    for span in spans:
        context, parent, status = _context(span), span.parent, span.status
        message = scoped.spans.add(
            trace_id=context.trace_id.to_bytes(16, "big"),
            span_id=context.span_id.to_bytes(8, "big"),
            parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
            name=_utf8(span.name),
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time or 0,
            end_time_unix_nano=span.end_time or 0,
            flags=_flags(parent),
        )
        message.status.code = status.status_code.value
        _add_attributes(message.attributes, span.attributes or {})
        for link in span.links:
            message.links.add(
                trace_id=link.context.trace_id.to_bytes(16, "big"),
                span_id=link.context.span_id.to_bytes(8, "big"),
                flags=_flags(link.context),
            )
    return request


def encode_json(spans: Sequence[ReadableSpan]) -> bytes:
    """The same request in OTLP's JSON: ids in hex, 64-bit integers as strings. One line, without its end."""
    if not spans:
        return b'{"resourceSpans":[]}'
    scope = spans[0].instrumentation_scope
    scoped: dict[str, Any] = {"spans": [_json_span(span) for span in spans]}
    if scope is not None:
        scoped["scope"] = {"name": scope.name} | ({"version": scope.version} if scope.version else {})
        scoped["schemaUrl"] = scope.schema_url or ""
    group = {"resource": _json_resource(spans[0].resource), "scopeSpans": [scoped]}
    return msgspec.json.encode({"resourceSpans": [group]})


def _add_attributes(target: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        pair = target.add()
        pair.key = name
        _set_value(pair.value, value)


def _set_value(target: AnyValue, value: Any) -> None:
    # bool before int: True is an int too.
    kind = type(value)
    if kind is str:
        try:
            target.string_value = value
        except UnicodeEncodeError:
            target.string_value = _utf8(value)
    elif kind is bool:
        target.bool_value = value
    elif kind is int:
        target.int_value = _int64(value)
    elif kind is float:
        target.double_value = value
    else:
        # Setting the field by adding to it would leave an empty sequence without any value.
        target.array_value.SetInParent()
        for item in value:
            _set_value(target.array_value.values.add(), item)


def _json_span(span: ReadableSpan) -> dict[str, Any]:
    context, parent = _context(span), span.parent
    shown: dict[str, Any] = {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "name": _utf8(span.name),
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _json_attributes(span.attributes or {}),
        "status": {"code": span.status.status_code.value},
        "flags": _flags(parent),
    }
    if parent:
        shown["parentSpanId"] = f"{parent.span_id:016x}"
    if span.links:
        shown["links"] = [
            {
                "traceId": f"{link.context.trace_id:032x}",
                "spanId": f"{link.context.span_id:016x}",
                "flags": _flags(link.context),
            }
            for link in span.links
        ]
    return shown


def _json_resource(resource: Resource) -> dict[str, Any]:
    return {"attributes": _json_attributes(resource.attributes)}


def _json_attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _json_value(value)} for name, value in attributes.items()]


def _json_value(value: Any) -> dict[str, Any]:
    kind = type(value)
    if kind is str:
        return {"stringValue": _utf8(value)}
    if kind is bool:
        return {"boolValue": value}
    if kind is int:
        return {"intValue": str(_int64(value))}
    if kind is float:
        return {"doubleValue": value}
    return {"arrayValue": {"values": [_json_value(item) for item in value]}}


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    if context is None:
        raise ValueError("a span without a context cannot be exported")
    return context


def _flags(context: SpanContext | None) -> int:
    return FLAG_HAS_IS_REMOTE | (FLAG_IS_REMOTE if context is not None and context.is_remote else 0)


def _int64(value: int) -> int:
    """Bounded to what the protocol carries: a provider that reports 10^30 tokens must not block the export."""
    return max(-INT64_MAX, min(value, INT64_MAX))


def _utf8(text: str) -> str:
    """The text without lone surrogates, which no encoder takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
