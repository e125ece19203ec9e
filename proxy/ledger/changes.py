"""Changes: the outcomes that were decided in a time, what each of them cost, and the row of a report that it is in.

A change is in one row alone, the one that bore most of its task's cost: whoever makes one small call on the task of
others does not get what they delivered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Subquery, and_, func, or_, select

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


class Whole(NamedTuple):
    """What a task cost in all time, and when its first call was."""

    cost_nusd: int
    first_at_ms: int


NOTHING = Whole(0, 0)
Task = tuple[str, str]
"""org, task"""
Parts = dict[Task, list[Part]]


class Changes:
    """Reads within one transaction. `columns` are the names that rows have, of DAY_DIMENSIONS."""

    def __init__(self, connection: Connection, sums: Sums, columns: Sequence[str]) -> None:
        self._connection = connection
        self._sums = sums
        self._columns = tuple(columns)

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
        statement = select(*columns, outcomes.c.accepted_ms, outcomes.c.undone_ms)
        rows = self._connection.execute(statement.where(when, outcomes.c.weight > 0).order_by(outcomes.c.key)).all()
        if not rows:
            return
        chosen = select(outcomes.c.org, outcomes.c.task).where(when, CAN_COUNT).distinct().subquery()
        wholes, places = self._wholes(chosen), self._places(chosen)
        cost = self._costs_of(chosen, wholes)
        for row in rows:
            task = (row.org, row.task)
            whole = wholes.get(task)
            accepted = row.state == "accepted"
            change = Change(
                key=row.key,
                rule=row.rule,
                kind=row.kind,
                weight=row.weight,
                accepted=accepted,
                cost_nusd=cost.get(row.key, 0),
                lead_ms=max(0, row.accepted_ms - whole.first_at_ms) if accepted and whole is not None else None,
            )
            decided_ms = row.accepted_ms if accepted else row.undone_ms
            yield places.get(task) or self._known(row.org, row.task), change, decided_ms

    def _known(self, org: str, task: str) -> Values:
        """The row of an outcome without calls: what it says itself."""
        known = {"org": org, "task": task}
        return tuple(known.get(name, "") for name in self._columns)

    def _wholes(self, chosen: Subquery) -> dict[Task, Whole]:
        same = and_(tasks.c.task == chosen.c.task, tasks.c.org == chosen.c.org)
        sums = (func.sum(tasks.c.cost_nusd), func.min(tasks.c.first_at_ms))
        statement = select(tasks.c.org, tasks.c.task, *sums).select_from(tasks.join(chosen, same))
        rows = self._connection.execute(statement.group_by(tasks.c.org, tasks.c.task)).all()
        return {(org, task): Whole(int(cost), first_at_ms) for org, task, cost, first_at_ms in rows}

    def _places(self, chosen: Subquery) -> dict[Task, Values]:
        """The row of each task: by most of its cost, of equals the first by name."""
        if set(self._columns) <= {"org", "task"}:
            return {}
        most: dict[Task, tuple[int, Values]] = {}
        for (org, task, *values), (cost, _) in self._sums.cost_of_tasks(chosen, self._columns).items():
            place = (-cost, tuple(values))
            most[org, task] = min(most.get((org, task), place), place)
        return {task: values for task, (_, values) in most.items()}

    def _costs_of(self, chosen: Subquery, wholes: dict[Task, Whole]) -> dict[str, int]:
        """What each outcome of the tasks cost."""
        found: dict[str, int] = {}
        for task, own in parts_of_tasks(self._connection, chosen).items():
            cut = shares(wholes.get(task, NOTHING).cost_nusd, [part.weight for part in own])
            found |= {part.key: amount for part, amount in zip(own, cut, strict=True)}
        return found

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
