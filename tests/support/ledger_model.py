"""A ledger, and beside it, in a dictionary, the calls that must be in it: for tests of sums over whatever happened."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import strategies as st
from sqlalchemy import func, select

from proxy.core.forgetting import FORGOTTEN
from proxy.core.record import Record
from proxy.ledger.claims import ClaimRefused
from proxy.ledger.database import Ledger
from proxy.ledger.entry import Entry
from proxy.ledger.rollups import DAY_DIMENSIONS, DAY_SUMS, month_of
from proxy.ledger.tables import daily, monthly
from tests.support.ledger_calls import AT_MS, made
from tests.support.outcome_rows import DAY_MS, landed, put

SPAN_MS = 70 * DAY_MS
"""A month in the middle, and something of the one before and of the one after."""
TASKS = ["PAY-7", "PAY-8", "S-1"]
PEOPLE = ["ada", "bob"]

TIMES = st.one_of(
    st.integers(0, SPAN_MS - 1),
    st.integers(0, 3 * DAY_MS),  # so that days hold several calls
    st.integers(SPAN_MS - 2 * DAY_MS, SPAN_MS - 1),
).map(lambda after_ms: AT_MS + after_ms)
CALLS = st.fixed_dictionaries(
    {
        "at_ms": TIMES,
        "org": st.sampled_from(["default", "other"]),
        "team": st.sampled_from(["payments", "search"]),
        "user": st.sampled_from(PEOPLE),
        "task": st.sampled_from([None, *TASKS]),
        "session": st.sampled_from([None, "s-1", "s-2"]),
        "model": st.sampled_from(["a", "b", None]),
        "cost_nusd": st.one_of(st.none(), st.integers(0, 10**6), st.integers(0, 2**53 - 1)),
        "result": st.sampled_from(["ok", "failed", "lost"]),
        "count": st.integers(1, 3),
        "shadow": st.sampled_from([[], ["rule"]]),
    }
)
OUTCOMES = st.fixed_dictionaries(
    {
        "org": st.sampled_from(["default", "other"]),
        "task": st.sampled_from(["PAY-7", "PAY-8", "NEVER-1", ""]),
        "state": st.sampled_from(["pending", "accepted", "undone"]),
        "weight": st.integers(0, 3),
        "source": st.sampled_from(["signed", "self_declared"]),
        "accepted_after_ms": st.sampled_from([None, DAY_MS]),
        "landed_ms": TIMES,
    }
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("calls"), st.lists(CALLS, min_size=1, max_size=8)),
        st.tuples(st.just("revision"), st.tuples(st.integers(0, 30), CALLS)),
        st.tuples(st.just("reprice"), st.integers(0, 10**6)),
        st.tuples(st.just("claim"), st.tuples(st.sampled_from(PEOPLE), st.sampled_from(TASKS))),
        st.tuples(st.just("forget"), st.sampled_from(PEOPLE)),
        st.tuples(st.just("outcome"), st.tuples(st.integers(0, 4), OUTCOMES)),
        st.tuples(st.just("close"), st.sampled_from([0, SPAN_MS // 2, SPAN_MS + 2 * DAY_MS])),
    ),
    max_size=14,
)


class Model:
    """What is done to the ledger is done to `records`, too."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.records: dict[str, Record] = {}
        self._claimed: set[str] = set()

    def step(self, kind: str, value: Any) -> None:
        getattr(self, kind)(value)
        check_months(self.ledger)

    def _take(self, *records: Record) -> None:
        self.ledger.ingest([Entry(shard=0, epoch="", id="", record=record) for record in records])
        self.records |= {record.call_id: record for record in records}

    def calls(self, fields: list[dict[str, Any]]) -> None:
        first = len(self.records)
        self._take(*(made(first + number, cost_parts_nusd={}, **each) for number, each in enumerate(fields)))

    def revision(self, value: tuple[int, dict[str, Any]]) -> None:
        """A late settle, which may give a call any other name and time; a claimed task stays."""
        number, fields = value
        known = self.records.get(f"call{number:06d}")
        if known is None:
            return
        self._take(made(number, revision=known.revision + 1, cost_parts_nusd={}, **fields))
        if known.task_source == "claimed":
            again = self.records[known.call_id]
            again.task, again.task_source = known.task, known.task_source

    def reprice(self, cost_nusd: int) -> None:
        def price(record: Record) -> Record:
            return msgspec.structs.replace(record, cost_nusd=cost_nusd, cost_source="policy")

        unpriced = [record for record in self.records.values() if record.cost_nusd is None]
        self.ledger.reprice(0, price, lambda repriced: None)
        for record in unpriced:
            record.cost_nusd, record.revision = cost_nusd, record.revision + 1

    def claim(self, value: tuple[str, str]) -> None:
        """Of one session; claimed again it stays what it was."""
        user, task = value
        with suppress(ClaimRefused):
            self.ledger.claims.claim("default", user, "s-1", task, AT_MS)
            if user in self._claimed:
                return
            self._claimed.add(user)
            for record in self.records.values():
                if (record.org, record.user, record.session, record.task) == ("default", user, "s-1", None):
                    record.task, record.task_source, record.revision = task, "claimed", record.revision + 1

    def forget(self, user: str) -> None:
        while self.ledger.forget(user, AT_MS + SPAN_MS).more:
            pass
        self._claimed.discard(user)
        for record in self.records.values():
            if record.user == user:
                record.user, record.session = FORGOTTEN, None

    def outcome(self, value: tuple[int, dict[str, Any]]) -> None:
        number, fields = value
        put(self.ledger, landed(number, **fields))

    def close(self, after_ms: int) -> None:
        while self.ledger.close_days(AT_MS + after_ms):
            pass

    def within(self, since_ms: int, until_ms: int) -> list[Record]:
        return [record for record in self.records.values() if since_ms <= record.at_ms < until_ms]


def check_months(ledger: Ledger) -> None:
    """At any moment months are exactly the sum of days, and have no rows of nothing."""
    summed: dict[tuple[Any, ...], list[int]] = {}
    columns = [*DAY_DIMENSIONS, *DAY_SUMS]
    width = 1 + len(DAY_DIMENSIONS)
    with ledger._database.reading() as connection:
        for row in connection.execute(select(daily.c.day_ms, *(daily.c[name] for name in columns))):
            place = (month_of(row[0]), *row[1:width])
            summed[place] = [a + b for a, b in zip(summed.get(place, [0] * len(DAY_SUMS)), row[width:], strict=True)]
        rows = connection.execute(select(monthly.c.month_ms, *(monthly.c[name] for name in columns))).all()
        assert connection.execute(select(func.count()).select_from(monthly)).scalar() == len(summed)
    assert {tuple(row[:width]): list(row[width:]) for row in rows} == summed
