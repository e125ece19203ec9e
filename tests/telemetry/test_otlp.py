from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan

from proxy.telemetry.otlp import INT64_MAX, encode_json, encode_protobuf
from proxy.telemetry.spans import SCOPE, Join, record_spans
from tests.support.otlp_sink import attributes_of, spans_of
from tests.support.telemetry_records import FULL, REFUSED, record

RESOURCE = Resource({"service.name": "callmeter", "deployment.environment.name": "test"})


def decoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(encode_protobuf(spans))


def made_spans(join: Join = "parent") -> list[ReadableSpan]:
    records = [FULL, REFUSED, record(shadow=["a", "b"], task="Straße-7 🚀", degraded=True, result="failed", status=503)]
    return [span for each in records for span in record_spans(each, resource=RESOURCE, join=join)]


@pytest.mark.parametrize("join", ["parent", "link", "new"])
def test_the_message_equals_the_one_that_the_sdk_makes(join: Join) -> None:
    assert decoded(made_spans(join)) == encode_spans(made_spans(join))


@pytest.mark.parametrize("join", ["parent", "link", "new"])
def test_the_json_says_the_same_as_the_protobuf(join: Join) -> None:
    def ids_as_base64(node: Any) -> Any:
        if isinstance(node, list):
            return [ids_as_base64(item) for item in node]
        if not isinstance(node, dict):
            return node
        ids = ("traceId", "spanId", "parentSpanId")
        return {
            name: base64.b64encode(bytes.fromhex(value)).decode() if name in ids else ids_as_base64(value)
            for name, value in node.items()
        }

    shown = json.loads(encode_json(made_spans(join)))
    assert ParseDict(ids_as_base64(shown), ExportTraceServiceRequest()) == decoded(made_spans(join))


def test_no_spans_make_an_empty_request() -> None:
    assert decoded([]) == ExportTraceServiceRequest()
    assert json.loads(encode_json([])) == {"resourceSpans": []}


def test_the_scope_and_the_resource_are_named_once() -> None:
    request = decoded(made_spans())
    (group,) = request.resource_spans
    assert attributes_of(group.resource)["service.name"] == "callmeter"
    (scoped,) = group.scope_spans
    assert scoped.scope.name == "callmeter"
    assert scoped.schema_url == "https://opentelemetry.io/schemas/1.41.0"


def test_numbers_beyond_64_bits_and_lone_surrogates_do_not_stop_an_export() -> None:
    spans = record_spans(FULL, resource=RESOURCE)
    odd = ReadableSpan(
        "odd \ud800", context=spans[0].context, attributes={"big": 10**30, "text": "x\ud800", "none": ()}
    )
    (span,) = spans_of(decoded([odd]))
    assert attributes_of(span) == {"big": INT64_MAX, "text": "x?", "none": []}
    assert span.name == "odd ?"
    (shown,) = json.loads(encode_json([odd]))["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert shown["attributes"][0]["value"] == {"intValue": str(INT64_MAX)}


VALUES = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(-INT64_MAX, INT64_MAX),
    st.floats(allow_nan=False),
    st.lists(st.text(), max_size=3).map(tuple),
)


@given(st.dictionaries(st.text(min_size=1, max_size=200), VALUES))
def test_any_attributes_are_encoded_as_the_sdk_does(attributes: dict[str, Any]) -> None:
    first = record_spans(FULL, resource=RESOURCE)[0]
    span = ReadableSpan(
        "any", context=first.context, resource=RESOURCE, attributes=attributes, instrumentation_scope=SCOPE
    )
    assert decoded([span]) == encode_spans([span])
