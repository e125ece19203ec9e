"""Changes: the outcomes that were decided in a time, what each of them cost, and the row of a report that it is in.

A change is in one row alone, the one that bore most of its task's cost: whoever makes one small call on the task of
others does not get what they delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Subquery, and_, cast, func, or_, select

from ..core.attribution import shares
from ..core.report import Change, Values
from .sums import CAN_COUNT, Sums
from .tables import outcomes, tasks
from .writer import parts


class Part(NamedTuple):
    """An outcome of a task, as cost is attributed to it."""

    key: str
    state: str
    weight: int


Task = tuple[str, str]
"""org, task"""
Parts = dict[Task, list[Part]]


class Changes:
    """Reads within one transaction. `columns` are the names that rows have, of DAY_DIMENSIONS."""

    def __init__(self, connection: Connection, sums: Sums, columns: Sequence[str]) -> None:
        self._connection = connection
        self._sums = sums
        self._columns = tuple(columns)
        self._cut: dict[Task, dict[str, int]] = {}

    def of_task(self, org: str, task: str) -> Sequence[Part]:
        """The outcomes that a task's cost goes to, in the order in which they landed."""
        return self._parts.get((org, task), ())

    def decided(self, since_ms: int, until_ms: int) -> Iterator[tuple[Values, Change, int]]:
        """Outcomes that were accepted or undone from `since_ms` to before `until_ms`: the values of their row, and
        when that was. Those of tasks that nobody knows, or of none, belong to the row without names."""
        when = or_(
            and_(outcomes.c.state == "accepted", within(outcomes.c.accepted_ms, since_ms, until_ms)),
            and_(outcomes.c.state == "undone", within(outcomes.c.undone_ms, since_ms, until_ms)),
        )
        columns = [outcomes.c[name] for name in ("key", "org", "task", "rule", "kind", "state", "weight")]
        columns += [outcomes.c.accepted_ms, outcomes.c.undone_ms]
        same = and_(tasks.c.task == outcomes.c.task, tasks.c.org == outcomes.c.org, CAN_COUNT)
        whole = (cast(func.sum(tasks.c.cost_nusd), BigInteger), func.min(tasks.c.first_at_ms))
        statement = select(*columns, *whole).select_from(outcomes.outerjoin(tasks, same))
        statement = statement.where(when, outcomes.c.weight > 0).group_by(outcomes.c.key).order_by(outcomes.c.key)
        rows = self._connection.execute(statement).all()
        if not rows:
            return
        chosen = select(outcomes.c.org, outcomes.c.task).where(when, CAN_COUNT).distinct().subquery()
        places = self._places(chosen)
        for key, org, name, rule, kind, state, weight, accepted_ms, undone_ms, cost_nusd, first_at_ms in rows:
            task = (org, name)
            accepted = state == "accepted"
            change = Change(
                key=key,
                rule=rule,
                kind=kind,
                weight=weight,
                accepted=accepted,
                cost_nusd=self._share(key, task, cost_nusd) if cost_nusd else 0,
                lead_ms=max(0, accepted_ms - first_at_ms) if accepted and first_at_ms is not None else None,
            )
            yield places.get(task) or self._known(*task), change, accepted_ms if accepted else undone_ms

    def _known(self, org: str, task: str) -> Values:
        """The row of an outcome without calls: what it says itself."""
        known = {"org": org, "task": task}
        return tuple(known.get(name, "") for name in self._columns)

    def _places(self, chosen: Subquery) -> dict[Task, Values]:
        """The row of each task: by most of its cost, of equals the first by name."""
        if set(self._columns) <= {"org", "task"}:
            return {}
        most: dict[Task, tuple[int, Values]] = {}
        for (org, task, *values), (cost, _) in self._sums.cost_of_tasks(chosen, self._columns).items():
            place = (-cost, tuple(values))
            known = most.get((org, task))
            if known is None or place < known:
                most[org, task] = place
        return {task: values for task, (_, values) in most.items()}

    def _share(self, key: str, task: Task, cost_nusd: int) -> int:
        """What an outcome cost of all that its task did."""
        own = self._several.get(task)
        if own is None:
            return cost_nusd
        cut = self._cut.get(task)
        if cut is None:
            amounts = shares(cost_nusd, [part.weight for part in own])
            cut = self._cut[task] = {part.key: amount for part, amount in zip(own, amounts, strict=True)}
        return cut.get(key, 0)

    @cached_property
    def _several(self) -> Parts:
        """The outcomes of tasks that have more than one, which few have."""
        by = (outcomes.c.org, outcomes.c.task)
        chosen = select(*by).where(CAN_COUNT).group_by(*by).having(func.count() > 1).subquery()
        return parts_of_tasks(self._connection, chosen)

    @cached_property
    def _parts(self) -> Parts:
        return parts_of_tasks(self._connection)


def parts_of_tasks(connection: Connection, chosen: Subquery | None = None) -> Parts:
    """The outcomes that cost is attributed to, by task, in the order in which they landed."""
    columns = [outcomes.c[name] for name in ("org", "task", "key", "state", "weight")]
    statement = select(*columns).where(CAN_COUNT).order_by(outcomes.c.landed_ms, outcomes.c.key)
    if chosen is not None:
        same = and_(outcomes.c.task == chosen.c.task, outcomes.c.org == chosen.c.org)
        statement = statement.select_from(outcomes.join(chosen, same))
    found: Parts = {}
    for org, task, key, state, weight in connection.execute(statement).all():
        found.setdefault((org, task), []).append(Part(key, state, weight))
    return found


def told(connection: Connection, keys: Collection[str]) -> dict[str, dict[str, Any]]:
    """What outcomes are, by key: for readers of a report by outcome."""
    names = ("rule", "kind", "task", "repo", "change", "state", "source")
    found: dict[str, dict[str, Any]] = {}
    for part in parts(key for key in keys if key):
        statement = select(outcomes.c.key, *(outcomes.c[name] for name in names)).where(outcomes.c.key.in_(part))
        for key, *values in connection.execute(statement):
            found[key] = dict(zip(names, values, strict=True))
    return found


def within(time: ColumnElement[int], since_ms: int, until_ms: int) -> ColumnElement[bool]:
    return and_(time >= since_ms, time < until_ms)
