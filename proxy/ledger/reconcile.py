"""Reconcile: what the ledger has of a provider in a time, by model, and the calls that may explain a difference."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from sqlalchemy import Connection, and_, not_, or_, select

from ..core.record import Record, decode
from .engine import Database
from .rollups import DAY_SUMS, text
from .sums import Sums
from .tables import calls

EXAMPLES_MAX = 5
"""Calls that are named for each reason; `callmeter calls` finds the others."""
ROWS_AT_ONCE = 1_000

REASONS = ("lost", "unpriced", "partial", "estimated", "assumed", "plan")
"""Why our figure may not be the provider's, the strongest first; a call counts under the first that fits."""


class Reason(msgspec.Struct, kw_only=True):
    """Calls that may explain a difference, and what they cost in our books."""

    why: str
    calls: int = 0
    cost_nusd: int = 0
    list_nusd: int = 0
    call_ids: list[str] = []


class Ours(msgspec.Struct, kw_only=True):
    """What the ledger has of one model. `tokens` in the words of usage, whatever their modality."""

    model: str
    calls: int = 0
    cost_nusd: int = 0
    list_nusd: int = 0
    tokens: dict[str, int] = {}
    reasons: list[Reason] = []


def reconcile(database: Database, provider: str, since_ms: int, until_ms: int) -> list[Ours]:
    """By the names of models. Raises LedgerUnavailable."""
    found: dict[str, Ours] = {}
    with database.reading() as connection:
        for (of, model), sums in Sums(connection).over(since_ms, until_ms, ("provider", "model")).items():
            if of != provider:
                continue
            named = dict(zip(DAY_SUMS, sums, strict=True))
            ours = found.setdefault(model, Ours(model=model))
            ours.calls += named["calls"]
            ours.cost_nusd += named["cost_nusd"]
            ours.list_nusd += named["list_nusd"]
            for name, count in tokens_of(named).items():
                ours.tokens[name] = ours.tokens.get(name, 0) + count
        for record in doubtful(connection, since_ms, until_ms):
            if record.provider == provider:
                model = text(record.model or record.model_asked)
                explain(found.setdefault(model, Ours(model=model)), record)
    return [found[model] for model in sorted(found)]


def tokens_of(sums: dict[str, int]) -> dict[str, int]:
    """Providers count all modalities as one."""
    return {
        "input": sums["input"] + sums["audio_input"] + sums["image_input"],
        "cached_input": sums["cached_input"],
        "cache_write": sums["cache_write"],
        "cache_write_1h": sums["cache_write_1h"],
        "output": sums["output"] + sums["audio_output"] + sums["image_output"],
    }


def doubtful(connection: Connection, since_ms: int, until_ms: int) -> Iterator[Record]:
    """Calls that have one of REASONS, found by their columns and by what stands in their JSON."""
    record = calls.c.record
    listed = and_(record.like('%"list_nusd":%'), not_(record.like('%"list_nusd":0,%')))  # left out where it is 0
    free = and_(calls.c.cost_nusd == 0, calls.c.result != "refused", listed)
    found = or_(
        calls.c.result == "lost",
        calls.c.cost_nusd.is_(None),
        calls.c.cost_source == "assumed",
        record.like('%"usage_source":"estimated"%'),
        record.like('%"usage_source":"partial"%'),
        free,
    )
    statement = select(calls.c.record).where(calls.c.at_ms >= since_ms, calls.c.at_ms < until_ms, found)
    for data in connection.execute(statement.execution_options(yield_per=ROWS_AT_ONCE)).scalars():
        yield decode(data)


def explain(ours: Ours, record: Record) -> None:
    why = reason_of(record)
    if why is None:
        return
    reason = next((each for each in ours.reasons if each.why == why), None)
    if reason is None:
        reason = Reason(why=why)
        ours.reasons.append(reason)
        ours.reasons.sort(key=lambda each: REASONS.index(each.why))
    reason.calls += record.count
    reason.cost_nusd += record.cost_nusd or 0
    reason.list_nusd += record.list_nusd or 0
    if len(reason.call_ids) < EXAMPLES_MAX:
        reason.call_ids.append(record.call_id)


def reason_of(record: Record) -> str | None:
    if record.result == "lost":
        return "lost"
    if record.cost_nusd is None:
        return "unpriced"
    if record.usage_source in ("partial", "estimated"):
        return record.usage_source
    if record.cost_source == "assumed":
        return "assumed"
    return "plan" if not record.cost_nusd and record.list_nusd else None
