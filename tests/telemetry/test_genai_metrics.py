from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from proxy.core.record import Record
from proxy.telemetry.genai_metrics import GenAiMetrics, meter_provider_from_environment
from proxy.telemetry.senders import SenderInvalid
from tests.support.otlp_sink import HttpSink
from tests.support.telemetry_records import FULL, REFUSED, record


def points_of(*records: Record) -> dict[str, list[Any]]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics = GenAiMetrics(provider)
    for each in records:
        metrics.observe(each)
    data = reader.get_metrics_data()
    provider.shutdown()
    if data is None:
        return {}
    return {
        metric.name: list(metric.data.data_points)
        for group in data.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    }


def by_type(points: list[Any]) -> Mapping[str, Any]:
    return {point.attributes["gen_ai.token.type"]: point for point in points}


def test_the_histograms_have_the_names_and_boundaries_of_the_conventions() -> None:
    points = points_of(FULL)
    assert set(points) == {
        "gen_ai.client.token.usage",
        "gen_ai.client.operation.duration",
        "gen_ai.client.operation.time_to_first_chunk",
    }
    tokens, (duration,) = points["gen_ai.client.token.usage"][0], points["gen_ai.client.operation.duration"]
    assert list(tokens.explicit_bounds[:4]) == [1, 4, 16, 64]
    assert tokens.explicit_bounds[-1] == 67_108_864
    assert list(duration.explicit_bounds[:3]) == [0.01, 0.02, 0.04]
    assert duration.explicit_bounds[-1] == 81.92


def test_tokens_and_seconds_are_those_of_the_call_at_the_provider() -> None:
    points = points_of(FULL)
    tokens = by_type(points["gen_ai.client.token.usage"])
    assert (tokens["input"].sum, tokens["output"].sum) == (10_000, 700)
    assert points["gen_ai.client.operation.duration"][0].sum == pytest.approx(2.344)
    assert points["gen_ai.client.operation.time_to_first_chunk"][0].sum == pytest.approx(0.32)


def test_labels_are_operation_provider_model_and_team_and_never_a_user_or_task() -> None:
    (point,) = points_of(FULL)["gen_ai.client.operation.duration"]
    assert dict(point.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-4-5-20250929",
        "callmeter.team": "payments",
    }


def test_a_failed_call_has_its_error_type() -> None:
    failed = record(result="failed", status=529, usage_source="none", error="free text of a provider")
    points = points_of(failed)
    assert points["gen_ai.client.operation.duration"][0].attributes["error.type"] == "529"
    assert "gen_ai.client.token.usage" not in points


@pytest.mark.parametrize(
    "made", [REFUSED, record(api="free"), record(replayed=True), record(result="lost"), record(revision=2)]
)
def test_what_ran_no_model_or_was_counted_before_is_not_counted(made: Record) -> None:
    assert points_of(made) == {}


async def test_metrics_go_to_the_collector_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = HttpSink()
    await sink.open()
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url}
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
    provider = meter_provider_from_environment(environ, Resource({"service.name": "callmeter"}))
    assert provider is not None
    GenAiMetrics(provider).observe(FULL)
    await asyncio.to_thread(provider.shutdown)
    await sink.close()
    sent = {
        metric.name
        for request in sink.metrics
        for group in request.resource_metrics
        for scope in group.scope_metrics
        for metric in scope.metrics
    }
    assert "gen_ai.client.token.usage" in sent


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"},
        {"OTEL_TRACES_EXPORTER": "otlp"},
    ],
)
def test_without_being_asked_no_metrics_are_sent(environ: dict[str, str]) -> None:
    assert meter_provider_from_environment(environ, Resource({})) is None


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_METRICS_EXPORTER": "statsd"},
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "carrier-pigeon"},
    ],
)
def test_a_variable_that_cannot_be_followed_is_named(environ: dict[str, str]) -> None:
    with pytest.raises(SenderInvalid, match="OTEL_"):
        meter_provider_from_environment(environ, Resource({}))
