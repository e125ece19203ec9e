from __future__ import annotations

import re
from typing import get_args

import pytest

from proxy.core.record import Record
from proxy.core.usage import Usage
from proxy.telemetry.labels import MODELS_MAX
from proxy.telemetry.prometheus import GAUGES, GaugeName, Metrics
from tests.support.telemetry_records import FULL, REFUSED, record


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def whose(**more: str) -> dict[str, str]:
    return {"team": "payments", "provider": "anthropic", "model": "claude-sonnet-4-5-20250929", **more}


def observed(*records: Record) -> Metrics:
    metrics = Metrics()
    for each in records:
        metrics.observe(each)
    return metrics


def test_every_metric_of_the_contract_is_shown() -> None:
    metrics = observed(FULL, REFUSED, record(cost_nusd=None, degraded=True))
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    shown = set(re.findall(r"^# TYPE (\S+) ", body.decode(), re.MULTILINE))
    expected = {
        "callmeter_calls_total",
        "callmeter_cost_usd_total",
        "callmeter_tokens_total",
        "callmeter_refusals_total",
        "callmeter_overhead_seconds",
        "callmeter_first_byte_seconds",
        "callmeter_running_calls",
        "callmeter_ledger_lag_seconds",
        "callmeter_export_lag_seconds",
        "callmeter_spooled_records",
        "callmeter_store_up",
        "callmeter_degraded_calls_total",
        "callmeter_policy_loaded_timestamp_seconds",
        "callmeter_policy_faults",
        "callmeter_unpriced_calls_total",
    }
    assert expected <= shown
    assert all(name.startswith("callmeter_") for name in shown)


def test_openmetrics_is_given_to_those_who_ask_for_it() -> None:
    body, content_type = observed(FULL).render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_calls_cost_and_tokens_are_counted_by_team_provider_and_model() -> None:
    metrics = observed(FULL, record(call_id="b"))
    assert value(metrics, "callmeter_calls_total", **whose(result="ok")) == 2
    assert value(metrics, "callmeter_cost_usd_total", **whose()) == 2 * 27_675_001 / 1e9
    assert value(metrics, "callmeter_tokens_total", **whose(type="cached_input")) == 12_000
    assert value(metrics, "callmeter_tokens_total", **whose(type="output")) == 1400
    # Reasoning is a part of output: as a type of its own the sum over all types would count it twice.
    assert value(metrics, "callmeter_tokens_total", **whose(type="reasoning")) is None


def test_a_million_small_costs_add_up_exactly() -> None:
    metrics = Metrics()
    small = record(cost_nusd=100_000_001, usage=Usage())
    for _ in range(1000):
        metrics.observe(small)
    assert value(metrics, "callmeter_cost_usd_total", **whose()) == 100_000_001_000 / 1e9


def test_no_series_knows_a_user_a_task_or_a_key() -> None:
    body, _ = observed(FULL, REFUSED).render()
    for secret in (b"ada", b"PAY-7", b"k234567abcdef", FULL.session):
        assert (secret if isinstance(secret, bytes) else str(secret).encode()) not in body
    assert not re.search(rb'\b(user|task|key|session)="', body)


def test_refusals_are_counted_by_code_rule_and_mode() -> None:
    metrics = observed(record(REFUSED, count=12), record(shadow=["same-call"]))
    assert value(metrics, "callmeter_refusals_total", code="budget_spent", rule="person-day", mode="enforce") == 12
    assert value(metrics, "callmeter_refusals_total", code="none", rule="same-call", mode="shadow") == 1
    labels = {"team": "default", "provider": "openai", "model": "other", "result": "refused"}
    assert value(metrics, "callmeter_calls_total", **labels) == 12


def test_degraded_and_unpriced_calls_are_counted() -> None:
    metrics = observed(record(degraded=True), record(cost_nusd=None), record(cost_source="assumed"))
    assert value(metrics, "callmeter_degraded_calls_total") == 1
    unpriced = {"provider": "anthropic", "model": "claude-sonnet-4-5-20250929"}
    assert value(metrics, "callmeter_unpriced_calls_total", **unpriced, cost_source="none") == 1
    assert value(metrics, "callmeter_unpriced_calls_total", **unpriced, cost_source="assumed") == 1


def test_a_call_whose_usage_is_still_to_come_is_not_unpriced() -> None:
    metrics = observed(record(cost_nusd=None, cost_source="none", usage_source="none", estimate={"later": True}))
    assert b"callmeter_unpriced_calls_total{" not in metrics.render()[0]


def test_a_later_revision_counts_only_what_it_has_more() -> None:
    metrics = Metrics()
    lost = record(result="lost", cost_nusd=10_000_000, usage=Usage(), usage_source="estimated")
    metrics.observe(lost)
    metrics.observe(record(revision=2), replaces=lost)
    total = sum(
        sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "callmeter_cost_usd_total"
    )
    assert total == pytest.approx(0.027675001)
    calls = {
        sample.labels["result"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "callmeter_calls_total"
    }
    assert calls == {"lost": 1}


def test_a_counter_never_goes_down_when_an_estimate_was_too_high() -> None:
    metrics = Metrics()
    lost = record(result="lost", cost_nusd=90_000_000)
    metrics.observe(lost)
    metrics.observe(record(revision=2), replaces=lost)
    assert value(metrics, "callmeter_cost_usd_total", **whose()) == 0.09


def test_times_are_in_seconds_and_lost_calls_have_none() -> None:
    metrics = observed(FULL, record(result="lost", ms_overhead=0))
    assert value(Metrics(), "callmeter_overhead_seconds_count") == 0
    assert value(Metrics(), "callmeter_degraded_calls_total") == 0
    assert value(metrics, "callmeter_overhead_seconds_count") == 1
    assert value(metrics, "callmeter_overhead_seconds_bucket", le="0.001") == 0
    assert value(metrics, "callmeter_overhead_seconds_bucket", le="0.002") == 1
    assert value(metrics, "callmeter_overhead_seconds_bucket", le="+Inf") == 1
    assert value(metrics, "callmeter_overhead_seconds_sum") == 0.0015
    first = {"provider": "anthropic", "model": "claude-sonnet-4-5-20250929"}
    assert value(metrics, "callmeter_first_byte_seconds_bucket", **first, le="0.4") >= 1


def test_made_up_model_names_share_one_series_and_leave_room_for_real_ones() -> None:
    metrics = Metrics()
    for number in range(3 * MODELS_MAX):
        metrics.observe(record(REFUSED, model_asked=f"made-up-{number}"))
    metrics.observe(FULL)
    models = {
        sample.labels["model"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "callmeter_calls_total"
    }
    assert models == {"other", "claude-sonnet-4-5-20250929"}


def test_models_beyond_the_bound_are_other() -> None:
    metrics = Metrics()
    for number in range(MODELS_MAX + 10):
        metrics.observe(record(model=f"model-{number}"))
    assert value(metrics, "callmeter_calls_total", **whose(result="ok") | {"model": "other"}) == 10


def test_gauges_show_what_was_set_last() -> None:
    metrics = Metrics()
    for waiting in (3, 4):
        metrics.set_gauge("callmeter_spooled_records", waiting)
        assert value(metrics, "callmeter_spooled_records") == waiting


def test_the_names_that_gauges_are_set_by_are_those_that_exist() -> None:
    assert set(get_args(GaugeName)) == set(GAUGES)
