"""Alerts: what is worth telling an admin at once, found in records. Pure; sending is the bookkeeper's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .duplicate_refusals import ordinal
from .record import Record, rfc3339
from .recorded import seen_in

if TYPE_CHECKING:
    from .policy import Policy

EventKind = Literal[
    "budget_warned", "budget_spent", "loop", "unproven", "price_unknown", "policy_broken", "store_unavailable"
]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
KEY_BYTES = 16


class AlertRule(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell of what. `to` is a URL, often with a secret in it."""

    name: str
    to: str
    on: tuple[EventKind, ...]

    def __repr__(self) -> str:
        """Without the URL: whoever knows it can post there."""
        return f"AlertRule({self.name}, on={', '.join(self.on)})"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something worth telling once in its window.

    subject   the rule, or the model, or what else it is about
    scope     for whom: the values of the rule's `per`
    place     names counter and window, so that the same event of the same window is told once
    """

    kind: EventKind
    subject: str
    scope: dict[str, str] = {}
    place: str
    sentence: str
    at_ms: int

    def key(self, alert: str) -> str:
        """The same for the same alert rule, event, subject, scope and window."""
        digest = hashlib.blake2b(digest_size=KEY_BYTES)
        digest.update(msgspec.json.encode((alert, self.kind, self.subject, self.scope, self.place)))
        return f"msg_{digest.hexdigest()}"

    def fields(self) -> dict[str, Any]:
        """As a webhook tells it."""
        data = {"subject": self.subject, "scope": self.scope, "sentence": self.sentence}
        return {"type": self.kind, "timestamp": rfc3339(self.at_ms), "data": data}


def events_of(record: Record, policy: Policy) -> Iterator[Event]:
    """What a record tells that somebody may want to know. The same for every revision of it."""
    yield from _of_budgets(record, policy)
    if record.loop > 1:
        yield from _of_loops(record, policy)
    at_ms, hour = record.at_ms, str(record.at_ms // HOUR_MS)
    if record.degraded or record.refusal == "store_unavailable":
        yield store_unavailable(at_ms)
    if record.refusal == "policy_broken":
        sentence = f"a call failed inside Callmeter; its log says why at call {record.call_id}"
        yield Event(kind="policy_broken", subject="call", place=hour, sentence=sentence, at_ms=at_ms)
    unpriced = record.cost_nusd is None and record.usage_source != "none"
    if unpriced or record.cost_source == "assumed" or record.refusal == "price_unknown":
        model = record.model or record.model_asked or "none"
        sentence = (
            f"model `{model}` of provider `{record.provider}` has no price of its own; add it to `prices:` in "
            "the policy, then run `callmeter reprice`"
        )
        subject = f"{record.provider}/{model}"
        yield Event(kind="price_unknown", subject=subject, place=str(at_ms // DAY_MS), sentence=sentence, at_ms=at_ms)


def _of_loops(record: Record, policy: Policy) -> Iterator[Event]:
    """A loop that was refused or warned of; told once for each rule, memory and hour."""
    for scope in policy.duplicates_for(*seen_in(record, policy.upstreams)):
        rule = scope.rule
        spoke = any(warning.startswith(f"{rule.name}; ") for warning in record.warnings)
        if rule.kind != "loop" or not (spoke or (record.refusal == "loop" and record.rule == rule.name)):
            continue
        often, goes_on = ordinal(record.loop), "is refused" if record.refusal == "loop" else "goes on"
        whom = ", ".join(f"{field} `{value}`" for field, value in zip(rule.per, scope.values, strict=True))
        yield Event(
            kind="loop",
            subject=rule.name,
            scope=dict(zip(rule.per, scope.values, strict=True)),
            place=f"{scope.counter}:{record.at_ms // HOUR_MS}",
            sentence=f"rule `{rule.name}` for {whom}: the same steps for the {often} time in a row; it {goes_on}",
            at_ms=record.at_ms,
        )


def store_unavailable(at_ms: int, why: str = "") -> Event:
    """The store is away; told once an hour while it stays so."""
    sentence = f"the store is away{': ' + why if why else ''}; calls are decided as `store_outage` says"
    place = str(at_ms // HOUR_MS)
    return Event(kind="store_unavailable", subject="store", place=place, sentence=sentence, at_ms=at_ms)


def policy_broken(faults: list[str], at_ms: int) -> Event:
    """The policy files have faults and were not taken; told once for each set of faults."""
    place = hashlib.blake2b("\n".join(faults).encode("utf-8", "replace"), digest_size=KEY_BYTES).hexdigest()
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    sentence = f"the policy files have faults, the last good policy stays in force: {faults[0]}{more}"
    return Event(kind="policy_broken", subject="policy", place=place, sentence=sentence, at_ms=at_ms)


def _of_budgets(record: Record, policy: Policy) -> Iterator[Event]:
    said: list[tuple[EventKind, str, str]] = []
    unproven = {rule.name for rule in policy.unproven}
    for warning in record.warnings:
        rule, _, sentence = warning.partition("; ")
        said.append(("unproven" if rule in unproven else "budget_warned", rule, sentence))
    if record.refusal == "budget_spent" and record.rule:
        said.append(("budget_spent", record.rule, "is spent: calls are refused until it resets"))
    if record.refusal == "unproven" and record.rule:
        said.append(("unproven", record.rule, "has spent without an outcome: calls are refused until one is linked"))
    if not said:
        return
    scopes = {scope.budget.name: scope for scope in policy.scopes_for(*seen_in(record, policy.upstreams))}
    for kind, rule, sentence in said:
        scope = scopes.get(rule)
        if scope is None:
            continue  # a warning of an access rule, or of a budget that is no longer in the policy
        window = scope.budget.every.window(record.at_ms)
        start_ms = window[1] // (window[1] - window[0]) if window[2] else window[0]
        whom = f" for {scope.told}" if scope.told else ""
        yield Event(
            kind=kind,
            subject=rule,
            scope=dict(zip(scope.budget.per, scope.values, strict=True)),
            # A rolling window never begins anew: there the event is told once in each of its lengths.
            place=f"{scope.counter}:{start_ms}",
            sentence=f"{'rule' if scope.budget.unproven else 'budget'} `{rule}`{whom}: {sentence}",
            at_ms=record.at_ms,
        )
