"""Prometheus: the counters, histograms and gauges of `/metrics`, fed with each record that enters the ledger.

No series is ever labelled by user or task: those belong in the ledger, where they are exact and where nobody can
sort people by them. Counters begin at zero when the process starts, as Prometheus expects (`rate()` and `increase()`
allow for it); sums over all time are the ledger's to give.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..core.money import NUSD_PER_USD
from ..core.record import Record, is_unpriced
from ..core.usage import NO_USAGE, TOKEN_FIELDS
from . import names
from .labels import PROVIDERS_MAX, RULES_MAX, TEAMS_MAX, BoundedNames, ModelNames

OVERHEAD_BUCKETS_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
"""What Callmeter adds is about a millisecond; the upper end shows a store or a machine in trouble."""
FIRST_BYTE_BUCKETS_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 25.0, 50.0, 100.0)

GaugeName = Literal[
    "callmeter_running_calls",
    "callmeter_ledger_lag_seconds",
    "callmeter_export_lag_seconds",
    "callmeter_spooled_records",
    "callmeter_store_up",
    "callmeter_store_rebuilding",
    "callmeter_policy_loaded_timestamp_seconds",
    "callmeter_policy_faults",
]
GAUGES: dict[GaugeName, str] = {
    "callmeter_running_calls": "Calls that hold money now, over all workers.",
    "callmeter_ledger_lag_seconds": "Age of the oldest record that is not in the ledger yet.",
    "callmeter_export_lag_seconds": "Age of the oldest record whose trace is not exported yet.",
    "callmeter_spooled_records": "Records that wait on disk because the store or the ledger was away.",
    "callmeter_store_up": "1 when the store answers, else 0.",
    "callmeter_store_rebuilding": "Parts of the store whose counters are being set from the ledger; 0 when none is.",
    "callmeter_policy_loaded_timestamp_seconds": "When the policy in force was loaded.",
    "callmeter_policy_faults": "Faults of the policy files as they are now; above 0 the last good policy is in force.",
}

log = logging.getLogger(__name__)


class Counter(Collector):
    """A counter of whole numbers. Money is counted in nano-USD and divided when it is shown, so it stays exact."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], *, divisor: int = 1) -> None:
        self._name, self._help, self._labels, self._divisor = name, help_text, labels, divisor
        self._values: dict[tuple[str, ...], int] = {} if labels else {(): 0}

    def add(self, labels: tuple[str, ...], amount: int) -> None:
        """Adds `amount`, which must not be negative, to the series of these label values."""
        self._values[labels] = self._values.get(labels, 0) + amount

    def collect(self) -> Iterable[CounterMetricFamily]:
        """As the registry asks. The copy lets records come in from another thread meanwhile."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, value in self._values.copy().items():
            family.add_metric(labels, value if self._divisor == 1 else value / self._divisor)
        return [family]


class Histogram(Collector):
    """A histogram in seconds. The library's own takes a lock and walks its buckets each time, twice for every call."""

    def __init__(self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> None:
        self._name, self._help, self._labels, self._buckets = name, help_text, labels, buckets
        self._bounds = [*map(str, buckets), "+Inf"]
        self._counts: dict[tuple[str, ...], list[int]] = {} if labels else {(): [0] * len(self._bounds)}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * len(self._bounds)
        counts[bisect_left(self._buckets, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """As the registry asks. The copies let records come in from another thread meanwhile."""
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        sums = self._sums.copy()
        for labels, counts in self._counts.copy().items():
            family.add_metric(labels, list(zip(self._bounds, accumulate(counts), strict=True)), sums.get(labels, 0.0))
        return [family]


class Metrics:
    """The metrics of the house, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._teams, self._providers = BoundedNames(TEAMS_MAX), BoundedNames(PROVIDERS_MAX)
        self._rules, self._models = BoundedNames(RULES_MAX), ModelNames()
        whose = ("team", "provider", "model")
        self._calls = self._counter(names.METRIC_CALLS, "Calls by their result.", (*whose, "result"))
        self._cost = self._counter(names.METRIC_COST, "What calls cost, in USD.", whose, divisor=NUSD_PER_USD)
        self._tokens = self._counter(names.METRIC_TOKENS, "Tokens, each counted under one type.", (*whose, "type"))
        self._refusals = self._counter(
            names.METRIC_REFUSALS,
            "Refusals by code and rule; mode `shadow` counts those that were only recorded.",
            ("code", "rule", "mode"),
        )
        self._degraded = self._counter(names.METRIC_DEGRADED, "Calls that were decided without the store.", ())
        self._unpriced = self._counter(
            names.METRIC_UNPRICED,
            "Calls without a price of their own: cost_source `none` has no cost, `assumed` the dearest rate.",
            ("provider", "model", "cost_source"),
        )
        self._deliveries = self._counter(
            names.METRIC_DELIVERIES,
            "Deliveries of webhooks: `taken`, `repeated`, `ignored` (about something else), `refused`, `failed`.",
            ("rule", "answer"),
        )
        self._outcomes = self._counter(
            names.METRIC_OUTCOMES, "Outcomes that came to a state: pending, accepted or undone.", ("rule", "state")
        )
        self._overhead = Histogram(
            names.METRIC_OVERHEAD, "Time that Callmeter added to a call.", (), OVERHEAD_BUCKETS_SECONDS
        )
        self._first_byte = Histogram(
            names.METRIC_FIRST_BYTE,
            "From a call's arrival to the first byte of its answer.",
            ("provider", "model"),
            FIRST_BYTE_BUCKETS_SECONDS,
        )
        self.registry.register(self._overhead)
        self.registry.register(self._first_byte)
        self._gauges = {name: Gauge(name, help_text, registry=self.registry) for name, help_text in GAUGES.items()}

    def observe(self, record: Record, *, replaces: Record | None = None) -> None:
        """Counts a row that entered the ledger. `replaces` is the earlier revision that it took the place of: then only
        what the new one has more is counted, and the call itself is not counted again."""
        team, provider = self._teams.label(record.team), self._providers.label(record.provider or "none")
        model = self._models.label(record)
        self._count_amounts(record, replaces, (team, provider, model))
        if record.revision > 1:
            return
        self._calls.add((team, provider, model, record.result), record.count)
        if record.refusal is not None:
            rule = self._rules.label(record.rule) if record.rule else "none"
            self._refusals.add((record.refusal, rule, "enforce"), record.count)
        for shadow_rule in record.shadow:
            self._refusals.add(("none", self._rules.label(shadow_rule), "shadow"), record.count)
        if record.degraded:
            self._degraded.add((), record.count)
        if record.result != "lost":
            self._overhead.observe((), record.ms_overhead / 1000)
        if record.ms_first_byte is not None and record.result != "refused":
            self._first_byte.observe((provider, model), record.ms_first_byte / 1000)

    def delivered(self, rule: str, answer: str) -> None:
        """A webhook was answered."""
        self._deliveries.add((self._rules.label(rule), answer), 1)

    def changed(self, rule: str, state: str, count: int) -> None:
        """So many outcomes of a rule came to a state."""
        self._outcomes.add((self._rules.label(rule), state), count)

    def set_gauge(self, name: GaugeName, value: float) -> None:
        """Sets a gauge to what was just seen."""
        self._gauges[name].set(value)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The body and content type for a scrape; `accept` is its header, by which OpenMetrics can be asked for."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def _count_amounts(self, record: Record, replaces: Record | None, whose: tuple[str, str, str]) -> None:
        before_nusd = (replaces.cost_nusd or 0) if replaces is not None else 0
        cost_nusd = (record.cost_nusd or 0) - before_nusd
        # A counter cannot go down: where an estimate was too high, the ledger alone shows the right sum.
        if cost_nusd > 0:
            self._cost.add(whose, cost_nusd)
        before = replaces.usage if replaces is not None else NO_USAGE
        for field, tokens, known in zip(TOKEN_FIELDS, record.usage.token_counts, before.token_counts, strict=True):
            if tokens > known:
                self._tokens.add((*whose, field), tokens - known)
        priced_as = "none" if record.cost_nusd is None else record.cost_source
        if is_unpriced(record) or record.cost_source == "assumed":
            self._unpriced.add((whose[1], whose[2], priced_as), record.count)

    def _counter(self, name: str, help_text: str, labels: tuple[str, ...], *, divisor: int = 1) -> Counter:
        counter = Counter(name, help_text, labels, divisor=divisor)
        self.registry.register(counter)
        return counter
