"""GenAI metrics: the histograms of the conventions, sent by the OpenTelemetry SDK where OTEL_* variables ask for it.

They are for dashboards that know these names. They are cumulative, so a collector that was away sees the whole sum
with the next report; and like every metric of ours they know neither user nor task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ..core.record import Record
from . import names
from .figures import figures_of
from .labels import TEAMS_MAX, BoundedNames, ModelNames
from .senders import SenderInvalid
from .spans import asked_provider, first_chunk_seconds

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource

TOKEN_BUCKETS = [4**power for power in range(14)]
DURATION_BUCKETS_SECONDS = [0.01 * 2**power for power in range(14)]
"""1 to 67,108,864 tokens and 0.01 to 81.92 s: the boundaries that the conventions give."""
ERRORS_MAX = 100
CLOSE_MS = 4_000
"""A collector that does not answer must not hold up the end of the process."""


class GenAiMetrics:
    """Feeds records into the instruments of `provider`."""

    def __init__(self, provider: SdkMeterProvider) -> None:
        self._provider = provider
        meter = provider.get_meter(names.SCOPE, schema_url=names.SCHEMA_URL)
        self._tokens = meter.create_histogram(
            names.GEN_AI_METRIC_TOKENS,
            unit="{token}",
            description="Tokens of a call.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._duration = meter.create_histogram(
            names.GEN_AI_METRIC_DURATION,
            unit="s",
            description="Duration of a call at the provider.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self._first_chunk = meter.create_histogram(
            names.GEN_AI_METRIC_FIRST_CHUNK,
            unit="s",
            description="Time to the first chunk of a streamed answer.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS_SECONDS,
        )
        self._models, self._teams, self._errors = (
            ModelNames(),
            BoundedNames(TEAMS_MAX),
            BoundedNames(ERRORS_MAX),
        )

    def close(self) -> None:
        """Sends what was counted since the last report, and ends the reports. Blocks, for CLOSE_MS at the most."""
        self._provider.shutdown(CLOSE_MS)

    def observe(self, record: Record) -> None:
        """Counts a record that ran a model. Later revisions are left to the ledger: a histogram takes nothing back."""
        operation = names.OPERATIONS.get(record.api)
        if operation is None or record.revision > 1 or record.result == "lost" or not asked_provider(record):
            return
        attributes = {
            names.GEN_AI_OPERATION: operation,
            names.GEN_AI_PROVIDER: names.provider_name(record.provider),
            names.GEN_AI_REQUEST_MODEL: self._models.label(record),
            names.TEAM: self._teams.label(record.team),
        }
        figures = figures_of(record)
        if figures.known:
            self._tokens.record(figures.input_tokens, {**attributes, names.GEN_AI_TOKEN_TYPE: "input"})
            if figures.output_tokens:
                self._tokens.record(figures.output_tokens, {**attributes, names.GEN_AI_TOKEN_TYPE: "output"})
        if record.stream and record.ms_first_byte is not None:
            self._first_chunk.record(first_chunk_seconds(record, record.ms_first_byte), attributes)
        if record.result != "ok":
            failure = record.refusal or (str(record.status) if record.status >= 400 else record.result)
            attributes[names.ERROR_TYPE] = self._errors.label(failure)
        self._duration.record(max(0.0, record.ms_total - record.ms_overhead) / 1000, attributes)


def meter_provider_from_environment(environ: Mapping[str, str], resource: Resource) -> SdkMeterProvider | None:
    """A provider that reports every OTEL_METRIC_EXPORT_INTERVAL, None where no metrics are asked for.

    OTEL_METRICS_EXPORTER is `otlp` or `none`; unset it is `otlp` where an OTLP endpoint is named. The exporters read
    OTEL_EXPORTER_OTLP_* from the process. `GenAiMetrics.close` ends it. Raises SenderInvalid.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None

    def setting(name: str) -> str | None:
        return environ.get(f"OTEL_EXPORTER_OTLP_METRICS_{name}") or environ.get(f"OTEL_EXPORTER_OTLP_{name}")

    kind = environ.get("OTEL_METRICS_EXPORTER", "").strip() or ("otlp" if setting("ENDPOINT") else "none")
    if kind == "none":
        return None
    if kind != "otlp":
        raise SenderInvalid(f"OTEL_METRICS_EXPORTER is `{kind}`; write `otlp` or `none`")
    from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    reader = PeriodicExportingMetricReader(_metric_exporter(setting("PROTOCOL") or "http/protobuf"))
    return SdkMeterProvider([reader], resource=resource, shutdown_on_exit=False)


def _metric_exporter(protocol: str) -> MetricExporter:
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

        return Http()
    raise SenderInvalid(f"OTEL_EXPORTER_OTLP_PROTOCOL is `{protocol}`; write `http/protobuf` or `grpc`")
