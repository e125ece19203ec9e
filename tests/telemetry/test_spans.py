from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from proxy.core.money import NUSD_PER_USD, nusd_from_usd
from proxy.core.record import Record
from proxy.core.usage import Usage
from proxy.telemetry.profiles import PROFILES
from proxy.telemetry.spans import Join, record_spans
from tests.support.telemetry_records import FULL, PARENT_SPAN_ID, REFUSED, TRACE_ID, record

RESOURCE = Resource({"service.name": "callmeter"})
KEY = "cm_k234567abcdef_" + "0123456789abcdef" * 4


def spans_of(made: Record, join: Join = "parent") -> list[ReadableSpan]:
    return record_spans(made, resource=RESOURCE, join=join)


def test_a_call_becomes_a_server_span_with_a_client_span_below_it() -> None:
    server, client = spans_of(FULL)
    assert (server.name, server.kind) == ("POST /v1/messages", SpanKind.SERVER)
    assert (client.name, client.kind) == ("chat claude-sonnet-4-5", SpanKind.CLIENT)
    assert server.context.trace_id == client.context.trace_id == int(TRACE_ID, 16)
    assert server.context.span_id == 0x1111111111111111
    assert client.context.span_id == 0x2222222222222222
    assert client.parent == server.context


def test_times_are_those_of_the_record_and_the_client_span_begins_after_our_own_time() -> None:
    server, client = spans_of(FULL)
    start_ns = FULL.at_ms * 1_000_000
    assert (server.start_time, server.end_time) == (start_ns, start_ns + 2_345_500_000)
    assert (client.start_time, client.end_time) == (start_ns + 1_500_000, server.end_time)


def test_the_server_span_says_who_called_and_what_the_policy_decided() -> None:
    attributes = spans_of(FULL)[0].attributes
    expected = {
        "http.request.method": "POST",
        "http.route": "/v1/messages",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "user_agent.original": "claude-cli/2.1.330",
        "user.id": "ada",
        "session.id": "5c2f0f3e-8a63-4a3a-9f6e-2b9f53ad1d11",
        "callmeter.call.id": "01jd000000000000000000000a",
        "callmeter.org": "acme",
        "callmeter.team": "payments",
        "callmeter.task": "PAY-7",
        "callmeter.task.source": "key",
        "callmeter.agent": "claude-code",
        "callmeter.key.id": "k234567abcdef",
        "callmeter.decision": "allow",
        "callmeter.result": "ok",
        "callmeter.policy.version": "a1b2c3",
        "callmeter.label.cost_center": "4711",
    }
    assert attributes is not None
    assert {name: attributes.get(name) for name in expected} == expected


@pytest.mark.parametrize("made", [FULL, REFUSED])
def test_the_server_span_names_no_model_no_tokens_and_no_cost(made: Record) -> None:
    server = spans_of(made)[0]
    assert not [name for name in server.attributes or {} if name.startswith(("gen_ai.", "llm.", "mlflow."))]
    assert not [name for name in server.attributes or {} if "cost" in name.replace("cost_center", "")]


def test_the_client_span_follows_the_genai_conventions() -> None:
    attributes = spans_of(FULL)[1].attributes
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "claude-sonnet-4-5-20250929",
        "gen_ai.response.id": "msg_01",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.response.time_to_first_chunk": 0.32,
        "gen_ai.conversation.id": "5c2f0f3e-8a63-4a3a-9f6e-2b9f53ad1d11",
        "gen_ai.usage.input_tokens": 10_000,
        "gen_ai.usage.output_tokens": 700,
        "gen_ai.usage.cache_read.input_tokens": 6000,
        "gen_ai.usage.cache_creation.input_tokens": 3000,
        "gen_ai.usage.reasoning.output_tokens": 200,
        "gen_ai.usage.cost": 0.027675001,
        "callmeter.cost.nusd": 27_675_001,
        "callmeter.cost.source": "book",
        "callmeter.price.version": "genai-prices 0.2.3",
        "callmeter.usage.source": "reported",
        "server.address": "api.anthropic.com",
        "user.id": "ada",
        "callmeter.task": "PAY-7",
    }
    assert attributes is not None
    assert {name: attributes.get(name) for name in expected} == expected


def test_input_and_output_tokens_include_audio_and_images() -> None:
    usage = Usage(input=1, cached_input=2, audio_input=4, image_input=8, output=16, audio_output=32, image_output=64)
    attributes = spans_of(record(usage=usage))[1].attributes or {}
    assert attributes["gen_ai.usage.input_tokens"] == 15
    assert attributes["gen_ai.usage.output_tokens"] == 112


@given(st.integers(0, 1_000_000 * NUSD_PER_USD))
def test_the_cost_is_the_nearest_double_of_the_exact_amount(cost_nusd: int) -> None:
    attributes = spans_of(record(cost_nusd=cost_nusd))[1].attributes or {}
    assert attributes["gen_ai.usage.cost"] == cost_nusd / 1e9
    assert nusd_from_usd(Decimal(repr(attributes["gen_ai.usage.cost"]))) == cost_nusd


def test_a_call_without_a_price_has_no_cost_attribute_and_a_free_one_has_zero() -> None:
    unpriced = spans_of(record(cost_nusd=None, cost_parts_nusd={}))[1].attributes or {}
    assert not [name for name in unpriced if "cost" in name and name != "callmeter.cost.source"]
    free = spans_of(record(cost_nusd=0, cost_parts_nusd={}))[1].attributes or {}
    assert (free["gen_ai.usage.cost"], free["callmeter.cost.nusd"]) == (0.0, 0)


def test_a_call_of_unknown_usage_shows_no_tokens() -> None:
    attributes = spans_of(record(usage=Usage(), usage_source="none"))[1].attributes or {}
    assert not [name for name in attributes if "token" in name or "usage_details" in name]
    assert attributes["callmeter.usage.source"] == "none"


def test_a_refused_call_has_no_client_span_and_tells_its_reason() -> None:
    (server,) = spans_of(REFUSED)
    attributes = server.attributes or {}
    assert attributes["callmeter.decision"] == "refuse"
    assert attributes["callmeter.reason"] == "budget_spent"
    assert attributes["callmeter.rule"] == "person-day"
    assert attributes["http.response.status_code"] == 402
    assert attributes["langfuse.observation.level"] == "WARNING"
    assert server.status.status_code is StatusCode.UNSET
    assert "error.type" not in attributes


def test_identical_refusals_that_were_folded_tell_their_number() -> None:
    assert (spans_of(record(REFUSED, count=12))[0].attributes or {})["callmeter.refusal.count"] == 12


def test_an_unreachable_provider_was_asked_so_both_spans_are_errors() -> None:
    server, client = spans_of(record(REFUSED, status=502, refusal="upstream_unreachable", rule=None))
    assert server.status.status_code is client.status.status_code is StatusCode.ERROR
    assert (client.attributes or {})["error.type"] == "upstream_unreachable"
    assert (server.attributes or {})["callmeter.decision"] == "allow"


@pytest.mark.parametrize(
    ("status", "error", "server_error", "client_error"),
    [(429, "rate_limit_error", None, "rate_limit_error"), (404, None, None, "404"), (529, None, "529", "529")],
)
def test_a_failure_of_the_provider_is_an_error_of_the_client_span_and_from_500_of_the_server_span(
    status: int, error: str | None, server_error: str | None, client_error: str
) -> None:
    server, client = spans_of(record(result="failed", status=status, error=error))
    assert (server.attributes or {}).get("error.type") == server_error
    assert (client.attributes or {}).get("error.type") == client_error
    assert client.status.status_code is StatusCode.ERROR
    assert (server.status.status_code is StatusCode.ERROR) == (server_error is not None)


def test_a_caller_who_went_away_is_no_error() -> None:
    server, client = spans_of(record(result="client_gone", usage_source="partial"))
    assert server.status.status_code is client.status.status_code is StatusCode.UNSET
    assert (server.attributes or {})["callmeter.result"] == "client_gone"


def test_a_lost_call_and_its_later_revision_have_the_same_ids() -> None:
    lost = spans_of(record(result="lost", status=0, revision=1))
    found = spans_of(record(revision=2))
    assert [span.context for span in lost] == [span.context for span in found]
    assert [span.status.status_code for span in lost] == [StatusCode.ERROR] * 2
    assert [span.status.status_code for span in found] == [StatusCode.UNSET] * 2


def test_a_replay_and_a_warning_are_shown_as_decisions() -> None:
    (replay,) = spans_of(record(replayed=True, twin_of="x", cost_nusd=0))
    assert (replay.attributes or {})["callmeter.decision"] == "replay"
    (joined,) = spans_of(record(replayed=True, joined=True, twin_of="x", cost_nusd=0))
    assert (joined.attributes or {})["callmeter.decision"] == "join"
    warned = spans_of(record(warnings=["person-day"], shadow=["same-call"], degraded=True))[0].attributes or {}
    assert warned["callmeter.decision"] == "warn"
    assert warned["callmeter.shadow"] == ("same-call",)
    assert warned["callmeter.degraded"] is True


@pytest.mark.parametrize("trace_flags", [0, 1, 2])
def test_a_caller_that_did_not_sample_is_exported_all_the_same_in_its_own_trace(trace_flags: int) -> None:
    server, client = spans_of(record(trace_flags=trace_flags))
    assert server.context.trace_id == client.context.trace_id == int(TRACE_ID, 16)
    assert server.context.trace_flags.sampled
    assert client.context.trace_flags.sampled
    assert server.parent is not None
    assert server.parent.trace_flags == trace_flags


def test_join_parent_puts_our_span_below_the_callers() -> None:
    server = spans_of(FULL)[0]
    assert server.parent is not None
    assert server.parent.span_id == int(PARENT_SPAN_ID, 16)
    assert server.parent.is_remote
    assert server.links == ()


def test_join_link_points_to_the_callers_span_from_a_trace_of_our_own() -> None:
    server, client = spans_of(FULL, "link")
    assert server.parent is None
    assert server.context.trace_id == client.context.trace_id != int(TRACE_ID, 16)
    (link,) = server.links
    assert (link.context.trace_id, link.context.span_id) == (int(TRACE_ID, 16), int(PARENT_SPAN_ID, 16))


def test_join_new_has_neither_parent_nor_link() -> None:
    server = spans_of(FULL, "new")[0]
    assert server.parent is None
    assert server.links == ()
    assert server.context.trace_id != int(TRACE_ID, 16)


@pytest.mark.parametrize("join", ["parent", "link", "new"])
def test_a_call_without_a_callers_context_keeps_the_trace_id_of_its_record(join: Join) -> None:
    server = spans_of(record(parent_span_id=None), join)[0]
    assert server.context.trace_id == int(TRACE_ID, 16)
    assert server.parent is None


@pytest.mark.parametrize("join", ["parent", "link", "new"])
@pytest.mark.parametrize("made", [FULL, REFUSED, record(trace_id="", span_id="zz", client_span_id="0" * 16)])
def test_the_same_record_gives_the_same_valid_ids_each_time(made: Record, join: Join) -> None:
    first, second = spans_of(made, join), spans_of(made, join)
    assert [span.context for span in first] == [span.context for span in second]
    assert all(span.context.is_valid for span in first)
    assert len({span.context.span_id for span in first}) == len(first)


@pytest.mark.parametrize("api", ["free", "anthropic.count_tokens", "gemini.count_tokens"])
def test_a_call_that_runs_no_model_is_a_plain_http_client_span(api: str) -> None:
    client = spans_of(record(api=api, route="/v1/models/{model}", http_method="GET", cost_nusd=0, usage=Usage()))[1]
    assert client.name == "GET /v1/models/{model}"
    attributes = client.attributes or {}
    assert attributes["http.response.status_code"] == 200
    assert not [name for name in attributes if name.startswith(("gen_ai.", "llm.", "langfuse.", "openinference."))]


def test_an_unknown_path_names_no_route_so_that_span_names_stay_few() -> None:
    server, client = spans_of(record(api="unknown", route="/v9/things/4711"))
    assert server.name == client.name == "POST"
    assert (server.attributes or {})["url.path"] == "/v9/things/4711"
    assert "http.route" not in (server.attributes or {})


def test_a_cost_is_shown_even_where_no_model_is_known() -> None:
    attributes = spans_of(record(api="unknown", cost_nusd=5_000_000, cost_source="provider"))[1].attributes or {}
    assert attributes["gen_ai.usage.cost"] == 0.005


@pytest.mark.parametrize(
    ("provider", "named"),
    [
        ("openai", "openai"),
        ("google", "gcp.gemini"),
        ("x-ai", "x_ai"),
        ("mistral", "mistral_ai"),
        ("azure", "azure.ai.openai"),
        ("aws", "aws.bedrock"),
        ("my-own", "my-own"),
    ],
)
def test_providers_have_the_names_of_the_conventions(provider: str, named: str) -> None:
    assert (spans_of(record(provider=provider))[1].attributes or {})["gen_ai.provider.name"] == named


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("[::1]:8000", "[::1]", 8000),
        ("2001:db8::1", "2001:db8::1", None),
        ("api.openai.com", "api.openai.com", None),
    ],
)
def test_the_port_of_the_provider_stands_apart_from_its_address(address: str, host: str, port: int | None) -> None:
    attributes = spans_of(record(server_address=address))[1].attributes or {}
    assert (attributes["server.address"], attributes.get("server.port")) == (host, port)


def test_the_service_tier_has_the_name_of_its_provider() -> None:
    openai = spans_of(record(api="openai.chat", service_tier="flex"))[1].attributes or {}
    assert openai["openai.response.service_tier"] == "flex"
    other = spans_of(record(service_tier="priority"))[1].attributes or {}
    assert other["callmeter.service_tier"] == "priority"


@pytest.mark.parametrize("api", ["anthropic.messages", "unknown", "free"])
def test_a_key_in_any_field_of_the_caller_never_leaves_in_a_span(api: str) -> None:
    fields = ("task", "agent", "session", "user_agent", "model_asked", "model", "route", "error")
    leaky = record(FULL, api=api, result="failed", labels={"note": f"x {KEY}"}, **dict.fromkeys(fields, f"a {KEY} b"))
    for span in spans_of(leaky):
        assert KEY not in span.name
        assert KEY[-64:] not in repr(dict(span.attributes or {}))


def test_every_profile_leaves_long_values_whole() -> None:
    labels = {f"label{number}": "x" * 5000 for number in range(200)}
    server = record_spans(record(labels=labels), resource=RESOURCE, profiles=PROFILES)[0]
    assert len(server.attributes or {}) > 200
    assert (server.attributes or {})["callmeter.label.label199"] == "x" * 5000
    assert server.dropped_attributes == 0
