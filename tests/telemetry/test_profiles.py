from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.resources import Resource

from proxy.core.record import Record
from proxy.telemetry.spans import record_spans
from tests.support.telemetry_records import FULL, REFUSED, record

RESOURCE = Resource({})


def client_of(made: Record, *profiles: str) -> dict[str, Any]:
    return dict(record_spans(made, resource=RESOURCE, profiles=profiles)[1].attributes or {})


def server_of(made: Record, *profiles: str) -> dict[str, Any]:
    return dict(record_spans(made, resource=RESOURCE, profiles=profiles)[0].attributes or {})


def test_the_conventions_alone_add_nothing_of_any_backend() -> None:
    prefixes = ("langfuse.", "llm.", "mlflow.", "openinference.")
    for attributes in (client_of(FULL, "semconv"), server_of(FULL, "semconv")):
        assert not [name for name in attributes if name.startswith(prefixes) or name == "metadata"]
    assert "gen_ai.usage.cost" in client_of(FULL)


def test_langfuse_gets_usage_by_kind_without_overlap() -> None:
    usage = json.loads(client_of(FULL, "langfuse")["langfuse.observation.usage_details"])
    assert usage == {
        "input": 1000,
        "input_cached": 6000,
        "input_cache_write": 2500,
        "input_cache_write_1h": 500,
        "output": 700,
        "total": 10_700,
    }
    assert sum(tokens for kind, tokens in usage.items() if kind != "total") == usage["total"]


def test_langfuse_gets_cost_by_the_same_kinds_and_the_exact_total() -> None:
    costs = json.loads(client_of(FULL, "langfuse")["langfuse.observation.cost_details"])
    assert costs["total"] == 27_675_001 / 1e9
    assert costs["input_cached"] == 0.0018
    assert costs["input_cache_write_1h"] == 0.003000001
    assert round(sum(cost for kind, cost in costs.items() if kind != "total") * 1e9) == FULL.cost_nusd


def test_langfuse_shows_what_is_paid_by_the_piece_under_its_own_name() -> None:
    made = record(cost_nusd=10_000_000, cost_parts_nusd={"requests.web_search": 10_000_000})
    costs = json.loads(client_of(made, "langfuse")["langfuse.observation.cost_details"])
    assert costs == {"requests.web_search": 0.01, "total": 0.01}


def test_langfuse_gets_the_moment_of_the_first_byte_of_a_stream() -> None:
    name = "langfuse.observation.completion_start_time"
    assert client_of(record(at_ms=1_790_000_000_000, ms_first_byte=1500.2), "langfuse")[name] == (
        "2026-09-21T14:13:21.500Z"
    )
    assert name not in client_of(record(stream=False), "langfuse")


def test_langfuse_shows_a_refusal_as_a_warning_with_its_rule_and_a_failure_as_an_error() -> None:
    attributes = server_of(REFUSED, "langfuse")
    assert attributes["langfuse.observation.level"] == "WARNING"
    assert attributes["langfuse.observation.status_message"] == "refused: budget_spent by rule `person-day`"
    assert client_of(record(result="failed", status=500), "langfuse")["langfuse.observation.level"] == "ERROR"


def test_langfuse_shows_team_and_task_on_the_trace() -> None:
    attributes = server_of(FULL, "langfuse")
    assert attributes["langfuse.trace.metadata.team"] == "payments"
    assert attributes["langfuse.trace.metadata.task"] == "PAY-7"


def test_openinference_gets_tokens_and_cost() -> None:
    attributes = client_of(FULL, "openinference")
    expected = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "claude-sonnet-4-5-20250929",
        "llm.provider": "anthropic",
        "llm.token_count.prompt": 10_000,
        "llm.token_count.completion": 700,
        "llm.token_count.total": 10_700,
        "llm.token_count.prompt_details.cache_read": 6000,
        "llm.token_count.prompt_details.cache_write": 3000,
        "llm.token_count.completion_details.reasoning": 200,
        "llm.cost.total": 0.027675001,
        "llm.cost.prompt": 17_175_001 / 1e9,
        "llm.cost.completion": 0.0105,
    }
    assert {name: attributes[name] for name in expected} == expected
    assert json.loads(attributes["metadata"])["task"] == "PAY-7"
    assert server_of(FULL, "openinference")["openinference.span.kind"] == "CHAIN"


def test_openinference_tells_embeddings_and_rerankers_from_language_models() -> None:
    assert client_of(record(api="openai.embeddings"), "openinference")["openinference.span.kind"] == "EMBEDDING"
    assert client_of(record(api="cohere.rerank"), "openinference")["openinference.span.kind"] == "RERANKER"


def test_openinference_metadata_holds_no_key_that_came_as_a_task() -> None:
    key = "cm_k234567abcdef_" + "0" * 64
    assert key not in client_of(record(task=key), "openinference")["metadata"]


def test_mlflow_gets_the_cost_in_its_own_form() -> None:
    cost = json.loads(client_of(FULL, "mlflow")["mlflow.llm.cost"])
    assert cost == {"input_cost": 17_175_001 / 1e9, "output_cost": 0.0105, "total_cost": 0.027675001}


def test_a_plan_that_costs_nothing_is_shown_as_zero_so_that_no_backend_puts_its_own_price() -> None:
    attributes = client_of(record(cost_nusd=0, cost_parts_nusd={}), "langfuse", "openinference", "mlflow")
    assert json.loads(attributes["mlflow.llm.cost"])["total_cost"] == 0
    assert json.loads(attributes["langfuse.observation.cost_details"]) == {"total": 0}
    assert attributes["llm.cost.total"] == 0


def test_no_profile_invents_a_cost_where_there_is_none() -> None:
    attributes = client_of(record(cost_nusd=None, cost_parts_nusd={}), "langfuse", "openinference", "mlflow")
    assert not [name for name in attributes if "cost" in name and name != "callmeter.cost.source"]
