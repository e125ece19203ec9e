"""Reports: what calls came to, and what they came to in outcomes, by team, task, model and the like.

Rows stand in the order of their names. There is no other order, on purpose: see core/report.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
from sqlalchemy import Connection

from ..core.attribution import FATES, NO_OUTCOME, fates, shares
from ..core.outcomes import Team
from ..core.patience import NO_PATIENCE, Patience
from ..core.report import PEOPLE_MIN, Report, Row, Shape, Tally, Values, delivery_of, in_order, row_of
from .changes import Changes, told
from .engine import Database
from .rollups import DAY_SUMS, USAGE_SUMS
from .sums import Sums

BY = ("task", "team", "user", "model", "agent", "outcome", "month", "provider", "api", "org", "upstream")
"""What a report can be broken down by."""

COUNTS = tuple(name for name in DAY_SUMS if name not in (*USAGE_SUMS, "calls", "cost_nusd", "list_nusd"))
COST = DAY_SUMS.index("cost_nusd")
SHAPE = Shape(names=DAY_SUMS, usage=USAGE_SUMS, counts=COUNTS)

ROWS_MAX = 100_000
"""Rows of one report: some 100 MB of JSON. More is an export, not a report."""


class ReportInvalid(ValueError):
    """A report that cannot be made as asked for. The sentence says what to change."""


class Interval(msgspec.Struct, frozen=True):
    """Times from `start_ms` to before `end_ms`, that all lie in `month`."""

    start_ms: int
    end_ms: int
    month: str


def report(
    database: Database,
    by: Sequence[str],
    since_ms: int,
    until_ms: int,
    timezone: str = "UTC",
    *,
    teams: Sequence[Team] = (),
    patience: Patience = NO_PATIENCE,
) -> Report:
    """Sums of the calls admitted from `since_ms` to before `until_ms`, and of the outcomes decided then.

    Months are those of `timezone`. `teams` says what is delivered, `patience` which money is spent for nothing yet.
    Raises ReportInvalid, LedgerUnavailable.
    """
    made = _Making(check_by(by), since_ms, until_ms, zone(timezone), patience)
    with database.reading() as connection:
        made.read(connection)
    return made.report(teams)


class _Making:
    """One report while it is made."""

    def __init__(
        self, by: tuple[str, ...], since_ms: int, until_ms: int, months_of: ZoneInfo, patience: Patience
    ) -> None:
        self._by = by
        self._since_ms = since_ms
        self._until_ms = until_ms
        self._months_of = months_of
        self._patience = patience
        self._tallies: dict[Values, Tally] = {}
        self._columns = [name for name in by if name not in ("month", "outcome")]
        self._before = Tally()
        self._told: dict[str, dict[str, object]] = {}
        self._begins_ms: dict[tuple[str, str], int] = {}
        self._months: list[Interval] = []

    def read(self, connection: Connection) -> None:
        sums = Sums(connection)
        changes = Changes(connection, sums, self._columns)
        if sums.first_ms is not None:
            start_ms, end_ms = max(self._since_ms, sums.first_ms), min(self._until_ms, sums.end_ms)
            self._read_sums(sums, changes, start_ms, end_ms)
        for values, change, decided_ms in changes.decided(self._since_ms, self._until_ms):
            month = self._month(decided_ms) if "month" in self._by else ""
            self._tally(self._placed(values, month, change.key)).changes.append(change)
        self._read_before(sums, changes)
        sums.done()
        if "outcome" in self._by:
            self._told = told(connection, {values[self._by.index("outcome")] for values in self._tallies})

    def _read_sums(self, sums: Sums, changes: Changes, start_ms: int, end_ms: int) -> None:
        for interval in self._intervals(start_ms, end_ms):
            if "outcome" in self._by:
                self._share_out(sums, changes, interval)
            else:
                self._add_up(sums, interval)

    def _add_up(self, sums: Sums, interval: Interval) -> None:
        columns = self._with("org", "team") if self._patience.rules else self._columns
        for cell in sums.by_mix(interval.start_ms, interval.end_ms, columns):
            is_old = bool(self._patience.rules) and self._is_old(dict(zip(columns, cell.values, strict=True)), interval)
            became = fates(cell.sums[COST], cell.mix, has_task=cell.has_task, is_old=is_old)
            values = cell.values[: len(self._columns)]
            self._tally(self._placed(values, interval.month, "")).add(cell.sums, became)

    def _share_out(self, sums: Sums, changes: Changes, interval: Interval) -> None:
        """Every sum of a task to its outcomes, in the rows of those."""
        columns = self._with("org", "team", "task")
        for found, amounts in sums.over(interval.start_ms, interval.end_ms, columns).items():
            values, named = found[: len(self._columns)], dict(zip(columns, found, strict=True))
            parts = changes.of_task(named["org"], named["task"])
            if not parts:
                is_old = bool(self._patience.rules) and self._is_old(named, interval)
                became = fates(amounts[COST], NO_OUTCOME, has_task=bool(named["task"]), is_old=is_old)
                self._tally(self._placed(values, interval.month, "")).add(amounts, became)
                continue
            for part, own in zip(parts, cut(amounts, [part.weight for part in parts]), strict=True):
                became = [own[COST] if fate == part.state else 0 for fate in FATES]
                self._tally(self._placed(values, interval.month, part.key)).add(own, became)

    def _with(self, *names: str) -> list[str]:
        return self._columns + [name for name in names if name not in self._columns]

    def _is_old(self, named: dict[str, str], interval: Interval) -> bool:
        """Whether what was spent in the interval has used up the patience of a rule."""
        scope = named["org"], named["team"]
        begins_ms = self._begins_ms.get(scope)
        if begins_ms is None:
            begins_ms = self._begins_ms[scope] = self._patience.begins_ms(*scope)
        return interval.end_ms <= begins_ms

    def _read_before(self, sums: Sums, changes: Changes) -> None:
        """The window before: for all, and for rows that are in both. A month has none of its own."""
        start_ms = self._since_ms - (self._until_ms - self._since_ms)
        if "month" in self._by or "outcome" in self._by or sums.first_ms is None or self._since_ms <= sums.first_ms:
            return
        nowhere = Tally()
        before = sums.over(max(start_ms, sums.first_ms), self._since_ms, self._columns, ("cost_nusd",))
        for values, (cost,) in before.items():
            for tally in (self._before, self._tallies.get(values, nowhere)):
                tally.before_nusd += cost
        for values, change, _ in changes.decided(start_ms, self._since_ms):
            for tally in (self._before, self._tallies.get(values, nowhere)):
                tally.before_changes.append(change)

    def _intervals(self, start_ms: int, end_ms: int) -> Iterator[Interval]:
        """By month where that is asked for, and cut where the patience of a rule ends."""
        edges = self._patience.edges_ms
        for interval in intervals(start_ms, end_ms, self._by, self._months_of):
            begun_ms = interval.start_ms
            for edge_ms in [*(edge for edge in edges if begun_ms < edge < interval.end_ms), interval.end_ms]:
                yield Interval(begun_ms, edge_ms, interval.month)
                begun_ms = edge_ms

    def _month(self, at_ms: int) -> str:
        for known in self._months:
            if known.start_ms <= at_ms < known.end_ms:
                return known.month
        self._months.append(Interval(*month_bounds(at_ms, self._months_of), month_at(at_ms, self._months_of)[0]))
        return self._months[-1].month

    def _placed(self, values: Values, month: str, outcome: str) -> Values:
        if len(self._columns) == len(self._by):
            return values
        names = dict(zip(self._columns, values, strict=True)) | {"month": month, "outcome": outcome}
        return tuple(names[name] for name in self._by)

    def _tally(self, values: Values) -> Tally:
        tally = self._tallies.get(values)
        if tally is None:
            if len(self._tallies) >= ROWS_MAX:
                raise ReportInvalid(
                    f"the report has more than {ROWS_MAX:,} rows; ask for a shorter time or fewer names in `by`"
                )
            tally = self._tallies[values] = Tally()
        return tally

    def report(self, teams: Sequence[Team]) -> Report:
        total = Tally()
        total.before_nusd, total.before_changes = self._before.before_nusd, self._before.before_changes
        tallies = self._tallies.values()
        total.sums = [sum(amounts) for amounts in zip(*(tally.sums for tally in tallies if tally.sums), strict=True)]
        total.fates = [sum(amounts) for amounts in zip(*(tally.fates for tally in tallies if tally.fates), strict=True)]
        rows = []
        with_before = "month" not in self._by and "outcome" not in self._by
        by_name = {team.name: team for team in teams}
        withheld: set[str] = set()
        team_at = self._by.index("team") if {"team"} <= {*self._by} <= TEAM_BY else None
        for values in in_order(self._tallies):
            tally = self._tallies[values]
            total.changes += tally.changes
            team = None if team_at is None else by_name.get(values[team_at])
            if team is not None and team.size < PEOPLE_MIN:
                withheld.add(team.name)
                team = None
            rows.append(self._row(values, tally, team, with_before))
        return Report(
            by=self._by,
            since_ms=self._since_ms,
            until_ms=self._until_ms,
            rows=rows,
            total=row_of((), total, SHAPE, with_before=with_before),
            outcomes=self._told,
            withheld=sorted(withheld),
        )

    def _row(self, values: Values, tally: Tally, team: Team | None, with_before: bool) -> Row:
        delivery = None
        if team is not None:
            cost = tally.sums[COST] if tally.sums else 0
            delivery = delivery_of(team, tally, cost, self._lasted_ms(values))
        of_one = "user" in self._by
        return row_of(values, tally, SHAPE, of_one_person=of_one, with_before=with_before, delivery=delivery)

    def _lasted_ms(self, values: Values) -> int:
        """How much of the time asked for a row stands for."""
        start_ms, end_ms = self._since_ms, self._until_ms
        if "month" in self._by:
            first = datetime.strptime(values[self._by.index("month")], "%Y-%m").replace(day=2, tzinfo=self._months_of)
            begins_ms, ends_ms = month_bounds(int(first.timestamp() * 1000), self._months_of)
            start_ms, end_ms = max(start_ms, begins_ms), min(end_ms, ends_ms)
        return end_ms - start_ms


def cut(amounts: Sequence[int], weights: Sequence[int]) -> list[list[int]]:
    """All amounts in proportion to `weights`, one at least: those of each weight, in its order."""
    if len(weights) == 1:
        return [list(amounts)]
    return [list(own) for own in zip(*(shares(amount, weights) for amount in amounts), strict=True)]


TEAM_BY = {"team", "org", "month"}
"""With these names alone a row is a whole team, and what it delivered can be said."""


def check_by(by: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise ReportInvalid(f"`{unknown[0]}` is nothing to report by; write one or more of {', '.join(BY)}")
    if len(set(by)) != len(by) or not by:
        raise ReportInvalid(f"`by` needs one or more of {', '.join(BY)}, each once")
    return tuple(by)


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ReportInvalid(f"`{name}` is no time zone; write one like `UTC` or `Europe/Berlin`") from None


def intervals(start_ms: int, end_ms: int, by: tuple[str, ...], months_of: ZoneInfo) -> Iterator[Interval]:
    """The time asked for, in one piece, or month by month when the report is by month."""
    while start_ms < end_ms:
        stop_ms, month = end_ms, ""
        if "month" in by:
            month, next_ms = month_at(start_ms, months_of)
            stop_ms = min(end_ms, next_ms)
        yield Interval(start_ms, stop_ms, month)
        start_ms = stop_ms


def month_at(at_ms: int, months_of: ZoneInfo) -> tuple[str, int]:
    """The month that a moment lies in, like `2026-11`, and when the next begins."""
    return f"{datetime.fromtimestamp(at_ms / 1000, months_of):%Y-%m}", month_bounds(at_ms, months_of)[1]


def month_bounds(at_ms: int, months_of: ZoneInfo) -> tuple[int, int]:
    """When the month that a moment lies in begins, and when the next does."""
    moment = datetime.fromtimestamp(at_ms / 1000, months_of)
    first = datetime(moment.year, moment.month, 1, tzinfo=months_of)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    epoch = datetime.fromtimestamp(0, UTC)  # in another zone: Python subtracts times of one zone by their clocks
    return (first - epoch) // timedelta(milliseconds=1), (following - epoch) // timedelta(milliseconds=1)
