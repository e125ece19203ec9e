"""Spans: one record -> a SERVER span and, where a provider was asked, a CLIENT span below it.

Pure and deterministic: ids and times are the record's, so a record that is exported twice gives the same spans twice
and a backend that knows span ids keeps one. The two spans split the facts on purpose: everything about the model,
its tokens and its cost stands on the CLIENT span alone, because backends count each span that names a model as a
generation and would show the cost twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ..core.record import Record
from . import names
from .figures import Figures, figures_of, usd
from .profiles import PROFILES, Attributes
from .redact import redact

Join = Literal["parent", "link", "new"]

SCOPE = InstrumentationScope(names.SCOPE, schema_url=names.SCHEMA_URL)
ASKED_UPSTREAM = frozenset({"upstream_unreachable", "upstream_timeout"})
"""Refusals that were given after the provider had been tried; these calls have a CLIENT span, that failed."""

REMEMBERED_TEXTS = 1024
redacted = lru_cache(REMEMBERED_TEXTS)(redact)
"""Models, routes, tasks and agents come again with every call; to look for keys in them once is enough."""

_NS_PER_MS = 1_000_000
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_ERROR = Status(StatusCode.ERROR)
_ALL_PROFILES = tuple(PROFILES)


def record_spans(
    record: Record, *, resource: Resource, profiles: Iterable[str] = _ALL_PROFILES, join: Join = "parent"
) -> list[ReadableSpan]:
    """The spans of a record: SERVER, then CLIENT where a provider was asked.

    join   `parent`: below the caller's span, in its trace; `link`: in a trace of its own that points to the
           caller's; `new`: in a trace of its own. A call that came without a trace context has its own either way.

    Every span is marked as sampled, also where the caller's context says otherwise: the caller may thin out its own
    spans, but each cent is to be found.
    """
    figures = figures_of(record)
    chosen = [PROFILES[name] for name in profiles]
    start_ns, end_ns = (
        record.at_ms * _NS_PER_MS,
        record.at_ms * _NS_PER_MS + round(record.ms_total * _NS_PER_MS),
    )
    context, parent, links = _contexts(record, join)
    attributes = server_attributes(record)
    for _, extend_server in chosen:
        extend_server(record, figures, attributes)
    spans = [
        ReadableSpan(
            name=_http_span_name(record),
            context=context,
            parent=parent,
            resource=resource,
            attributes=attributes,
            links=links,
            kind=SpanKind.SERVER,
            status=_ERROR if names.ERROR_TYPE in attributes else _UNSET,
            start_time=start_ns,
            end_time=end_ns,
            instrumentation_scope=SCOPE,
        )
    ]
    if asked_provider(record):
        inference = record.api in names.OPERATIONS
        attributes = inference_attributes(record, figures) if inference else http_client_attributes(record)
        if inference:
            for extend_client, _ in chosen:
                extend_client(record, figures, attributes)
        sent_ns = min(start_ns + round(record.ms_overhead * _NS_PER_MS), end_ns)
        spans.append(
            ReadableSpan(
                name=client_span_name(record),
                context=SpanContext(
                    context.trace_id, _span_id(record, record.client_span_id, "client"), False, _SAMPLED
                ),
                parent=context,
                resource=resource,
                attributes=attributes,
                kind=SpanKind.CLIENT,
                status=_ERROR if names.ERROR_TYPE in attributes else _UNSET,
                start_time=sent_ns,
                end_time=end_ns,
                instrumentation_scope=SCOPE,
            )
        )
    return spans


def asked_provider(record: Record) -> bool:
    """True where the call went out to a provider: not refused by us before, nor answered from another call."""
    if record.replayed:
        return False
    return record.result != "refused" or record.refusal in ASKED_UPSTREAM


def decision(record: Record) -> str:
    """`allow`, `warn`, `refuse`, `replay` or `join`: what the policy made of the call."""
    if record.replayed:
        return "join" if record.joined else "replay"
    if record.result == "refused" and record.refusal not in ASKED_UPSTREAM:
        return "refuse"
    return "warn" if record.warnings else "allow"


def client_span_name(record: Record) -> str:
    """`chat gpt-5-mini`; for a call that ran no model the HTTP conventions' `GET /v1/models`."""
    operation = names.OPERATIONS.get(record.api)
    if operation is not None:
        return f"{operation} {redacted(record.model_asked or record.model or '')}".rstrip()
    return _http_span_name(record)


def server_attributes(record: Record) -> Attributes:
    """HTTP, who called and for what, and what the policy decided. Nothing that names a model.

    `url.path` is given only for paths that are not recognised: for the others `http.route` says it in fewer values.
    """
    attributes = _caller_attributes(record)
    attributes[names.HTTP_METHOD] = record.http_method
    attributes[names.URL_SCHEME] = "http"
    attributes[names.URL_PATH if record.api == "unknown" else names.HTTP_ROUTE] = redacted(record.route)
    if record.user_agent:
        attributes[names.USER_AGENT] = redacted(record.user_agent)
    if record.status:
        attributes[names.HTTP_STATUS] = record.status
    if record.result == "lost":
        attributes[names.ERROR_TYPE] = "lost"
    elif record.status >= 500:
        # By the HTTP conventions a 4xx is no error of the server; the reason of a refusal stands beside it.
        attributes[names.ERROR_TYPE] = record.refusal or str(record.status)
    if record.key_id:  # as for the user: exports may leave people out
        attributes[names.KEY_ID] = record.key_id
    attributes[names.TASK_SOURCE] = record.task_source
    attributes[names.DECISION] = decision(record)
    attributes[names.RESULT] = record.result
    if record.refusal is not None:
        attributes[names.REASON] = record.refusal
    if record.rule is not None:
        attributes[names.RULE] = record.rule
    if record.shadow:
        attributes[names.SHADOW] = tuple(record.shadow)
    if record.count > 1:
        attributes[names.REPEATED] = record.count
    if record.degraded:
        attributes[names.DEGRADED] = True
    attributes[names.POLICY_VERSION] = record.policy_version
    for name, value in record.labels.items():
        attributes[names.LABEL_PREFIX + name] = redacted(value)
    return attributes


def inference_attributes(record: Record, figures: Figures) -> Attributes:
    """The GenAI conventions, tokens and cost."""
    attributes = _client_attributes(record)
    attributes[names.GEN_AI_OPERATION] = names.OPERATIONS[record.api]
    attributes[names.GEN_AI_PROVIDER] = names.provider_name(record.provider)
    if record.model_asked:
        attributes[names.GEN_AI_REQUEST_MODEL] = redacted(record.model_asked)
    if record.model:
        attributes[names.GEN_AI_RESPONSE_MODEL] = redacted(record.model)
    if record.upstream_call_id:
        attributes[names.GEN_AI_RESPONSE_ID] = record.upstream_call_id
    if record.finish_reasons:
        attributes[names.GEN_AI_FINISH_REASONS] = tuple(record.finish_reasons)
    if record.stream:
        attributes[names.GEN_AI_REQUEST_STREAM] = True
        if record.ms_first_byte is not None:
            attributes[names.GEN_AI_TIME_TO_FIRST_CHUNK] = first_chunk_seconds(record, record.ms_first_byte)
    if record.session:
        attributes[names.GEN_AI_CONVERSATION] = redacted(record.session)
    if record.service_tier:
        openai = record.api.startswith("openai.")
        attributes[names.OPENAI_SERVICE_TIER if openai else names.SERVICE_TIER] = record.service_tier
    if figures.known:
        attributes[names.GEN_AI_USAGE_INPUT] = figures.input_tokens
        attributes[names.GEN_AI_USAGE_OUTPUT] = figures.output_tokens
        if record.usage.cached_input:
            attributes[names.GEN_AI_USAGE_CACHE_READ] = record.usage.cached_input
        if figures.cache_write_tokens:
            attributes[names.GEN_AI_USAGE_CACHE_WRITE] = figures.cache_write_tokens
        if record.usage.reasoning:
            attributes[names.GEN_AI_USAGE_REASONING] = record.usage.reasoning
    if figures.cost_usd is not None:
        attributes[names.GEN_AI_USAGE_COST] = figures.cost_usd
    return attributes


def http_client_attributes(record: Record) -> Attributes:
    """A call that ran no model as far as we know: model lists, token counts, unknown paths."""
    attributes = _client_attributes(record)
    attributes[names.HTTP_METHOD] = record.http_method
    if record.api != "unknown":
        attributes[names.URL_TEMPLATE] = redacted(record.route)
    if record.status:
        attributes[names.HTTP_STATUS] = record.status
    if record.cost_nusd:
        attributes[names.GEN_AI_USAGE_COST] = usd(record.cost_nusd)
    return attributes


def first_chunk_seconds(record: Record, ms_first_byte: float) -> float:
    """From sending the call to the provider to its first byte, in seconds."""
    return max(0.0, ms_first_byte - record.ms_overhead) / 1000


def error_type(record: Record) -> str | None:
    """`error.type` of the provider's part of the call, None where that went well or was only cut short by the agent."""
    if record.result == "lost":
        return "lost"
    if record.result == "refused":
        return record.refusal
    if record.result == "failed":
        return redacted(record.error) if record.error else str(record.status)
    return None


def _http_span_name(record: Record) -> str:
    """Method and route; the method alone for an unknown path, which would be a span name of its own each time."""
    return record.http_method if record.api == "unknown" else f"{record.http_method} {redacted(record.route)}".rstrip()


def _caller_attributes(record: Record) -> Attributes:
    """What both spans carry, since backends look for user and session on the generation as well."""
    attributes: Attributes = {names.CALL_ID: record.call_id, names.ORG: record.org, names.TEAM: record.team}
    if record.user:
        attributes[names.USER_ID] = record.user
    if record.task:
        attributes[names.TASK] = redacted(record.task)
    if record.agent:
        attributes[names.AGENT] = redacted(record.agent)
    if record.session:
        attributes[names.SESSION_ID] = redacted(record.session)
    return attributes


def _client_attributes(record: Record) -> Attributes:
    attributes = _caller_attributes(record)
    host, _, port = record.server_address.rpartition(":")
    if host and port.isdigit() and (":" not in host or host.startswith("[")):
        attributes[names.SERVER_ADDRESS] = host
        attributes[names.SERVER_PORT] = int(port)
    elif record.server_address:
        attributes[names.SERVER_ADDRESS] = record.server_address
    failed = error_type(record)
    if failed is not None:
        attributes[names.ERROR_TYPE] = failed
    attributes[names.USAGE_SOURCE] = record.usage_source
    if record.cost_nusd is not None:
        attributes[names.COST_NUSD] = record.cost_nusd
    attributes[names.COST_SOURCE] = record.cost_source
    if record.price_version:
        attributes[names.PRICE_VERSION] = record.price_version
    return attributes


def _contexts(record: Record, join: Join) -> tuple[SpanContext, SpanContext | None, tuple[Link, ...]]:
    """Our SERVER span's context, its parent and its links, as `join` says."""
    trace_id = _hex_id(record.trace_id, 32) or _derived("trace", record.call_id, 16)
    span_id = _span_id(record, record.span_id, "server")
    caller_span_id = _hex_id(record.parent_span_id or "", 16)
    if caller_span_id is None:
        return SpanContext(trace_id, span_id, False, _SAMPLED), None, ()
    caller = SpanContext(trace_id, caller_span_id, True, TraceFlags(record.trace_flags))
    if join == "parent":
        return SpanContext(trace_id, span_id, False, _SAMPLED), caller, ()
    # A trace of our own, the same one each time that this record is exported.
    own = SpanContext(_derived("trace", record.call_id, 16), span_id, False, _SAMPLED)
    return own, None, (Link(caller),) if join == "link" else ()


def _span_id(record: Record, chosen: str, kind: str) -> int:
    return _hex_id(chosen, 16) or _derived(kind, record.call_id, 8)


def _hex_id(text: str, digits: int) -> int | None:
    """The id as a number; None for one that is missing, malformed or all zeros, which no backend takes."""
    if len(text) != digits:
        return None
    try:
        return int(text, 16) or None
    except ValueError:
        return None


def _derived(kind: str, call_id: str, size_bytes: int) -> int:
    digest = hashlib.blake2b(f"{kind} {call_id}".encode(), digest_size=size_bytes).digest()
    return int.from_bytes(digest, "big") or 1
