"""Outcomes in the ledger: deliveries of webhooks into rows, each once, whatever the order in which they come.

All that is known of an outcome is a set of marks: what landed under which name, what took which name back. A row's
state is worked out from its marks (`core.outcomes.standing`), so that a revert may come before what it reverts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, bindparam, delete, func, select, update

from ..core.happenings import Hint, Landing, Told, Undoing, task_ref
from ..core.outcomes import DEPLOYED, Event, Outcome, OutcomeRule, Source, outcome_key, standing
from ..core.proven import ProvenTask
from .engine import Database, Insert
from .tables import PENDING, deliveries, outcome_marks, outcomes
from .writer import parts

LISTED_MAX = 1_000
"""Outcomes of one answer."""
DUE_MAX = 1_000
"""Outcomes that are accepted in one transaction."""
UNDOINGS_DEPTH_MAX = 8
"""Reverts of reverts that are followed; each lands or takes back what the one before did."""
DELIVERIES_KEPT_MS = 90 * 86_400_000
"""How long a delivery is known: far longer than any source tries again."""
MARKS_KEPT_MS = 400 * 86_400_000
"""How long a name waits for what it takes back: longer than anything can be pending."""

# Statements that each delivery needs are built once: building one costs more than running it.
_KNOWN = (
    select(outcomes.c.key, outcomes.c.task)
    .join(outcome_marks, outcome_marks.c.outcome == outcomes.c.key)
    .where(
        outcome_marks.c.org == bindparam("of_org"),
        outcome_marks.c.ref == bindparam("named"),
        outcomes.c.rule == bindparam("of_rule"),
    )
    .order_by(outcome_marks.c.at_ms)
)
_TASK_OF = select(outcomes.c.task).where(outcomes.c.key == bindparam("of_key"))
_ROW = select(outcomes).where(outcomes.c.key == bindparam("of_key"))
_OWN_MARKS = select(outcome_marks.c.ref, outcome_marks.c.at_ms).where(outcome_marks.c.outcome == bindparam("of_key"))
_BY_REF, _BY_UNDOES = (
    select(outcome_marks).where(
        outcome_marks.c.org == bindparam("of_org"), column.in_(bindparam("names", expanding=True))
    )
    for column in (outcome_marks.c.ref, outcome_marks.c.undoes)
)

Changes = Counter[tuple[str, str]]
"""How many outcomes came to a state, by rule and state: what metrics count."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What one delivery of a webhook tells. `identity` is the id by which the source would send it again."""

    rule: OutcomeRule
    identity: str
    told: Told
    source: Source = "signed"


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a delivery. `outcomes` are the keys of the rows that it told of."""

    repeated: bool
    outcomes: tuple[str, ...] = ()


class OutcomeBook:
    """Outcomes in the ledger's database. Every method raises LedgerUnavailable where it cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._note = database.insert(deliveries).on_conflict_do_nothing().returning(deliveries.c.delivery)
        self._mark = database.insert(outcome_marks).on_conflict_do_nothing()

    def take(self, batch: Sequence[Delivery], now_ms: int) -> tuple[list[Taken], Changes]:
        """Writes deliveries in one transaction. One that is known already changes nothing."""
        changes: Changes = Counter()
        with self._database.writing() as connection:
            taking = _Taking(connection, self._note, self._mark, now_ms, changes)
            taken = [taking.take(delivery) for delivery in batch]
        return taken, changes

    def accept_due(self, now_ms: int, fence: Callable[[], None]) -> Changes:
        """Accepts what held long enough: at most DUE_MAX. `fence` is called last inside the transaction."""
        due = and_(PENDING, outcomes.c.due_ms <= now_ms)
        with self._database.reading() as connection:
            rows = connection.execute(select(outcomes.c.key, outcomes.c.rule).where(due).limit(DUE_MAX)).all()
        if not rows:
            return Counter()
        with self._database.writing() as connection:
            for part in parts([row.key for row in rows]):
                accepted = update(outcomes).where(outcomes.c.key.in_(part), due)
                connection.execute(accepted.values(state="accepted", accepted_ms=outcomes.c.due_ms, changed_ms=now_ms))
            fence()
        return Counter((row.rule, "accepted") for row in rows)

    def forget_old(self, now_ms: int) -> None:
        """Drops deliveries that no source sends again, and names that nothing can ask for any more."""
        old = and_(outcome_marks.c.at_ms < now_ms - MARKS_KEPT_MS, outcome_marks.c.outcome == "")
        with self._database.writing() as connection:
            connection.execute(delete(deliveries).where(deliveries.c.at_ms < now_ms - DELIVERIES_KEPT_MS))
            connection.execute(delete(outcome_marks).where(old))

    def list(
        self, *, task: str | None = None, state: str | None = None, org: str | None = None, since_ms: int = 0
    ) -> Sequence[Outcome]:
        """By when they landed, the latest first, at most LISTED_MAX."""
        chosen = select(outcomes).where(outcomes.c.landed_ms >= since_ms)
        for column, value in ((outcomes.c.task, task), (outcomes.c.state, state), (outcomes.c.org, org)):
            if value is not None:
                chosen = chosen.where(column == value)
        ordered = chosen.order_by(outcomes.c.landed_ms.desc(), outcomes.c.key).limit(LISTED_MAX)
        with self._database.reading() as connection:
            return [outcome_of(row) for row in connection.execute(ordered)]

    def proven(self, changed_ms: int, landed_ms: int) -> Sequence[ProvenTask]:
        """What is to be known of outcomes that changed since a moment and landed after another."""
        columns = [outcomes.c[name] for name in ProvenTask.__struct_fields__]
        since = and_(outcomes.c.changed_ms >= changed_ms, outcomes.c.landed_ms >= landed_ms)
        with self._database.reading() as connection:
            return [ProvenTask(*row) for row in connection.execute(select(*columns).where(since))]


class _Taking:
    """One transaction of deliveries."""

    def __init__(self, connection: Connection, note: Any, mark: Insert, now_ms: int, changes: Changes) -> None:
        self._connection = connection
        self._note = note
        self._insert_mark = mark
        self._now_ms = now_ms
        self._changes = changes

    def take(self, delivery: Delivery) -> Taken:
        row = {"rule": delivery.rule.name, "delivery": delivery.identity, "at_ms": self._now_ms}
        if self._connection.execute(self._note, row).first() is None:
            return Taken(repeated=True)
        keys = [self._land(delivery, landing) for landing in delivery.told.landings]
        for undoing in delivery.told.undoings:
            keys += self._undo(delivery.rule.org, undoing)
        for hint in delivery.told.hints:
            self._hint(delivery.rule.org, hint)
        return Taken(repeated=False, outcomes=tuple(dict.fromkeys(keys)))

    # -- what landed -------------------------------------------------------------------------------------------------

    def _land(self, delivery: Delivery, landing: Landing) -> str:
        rule = delivery.rule
        known = self._known(rule, landing.refs[0] if landing.refs else "")
        task = (known.task if known is not None else "") or landing.task or self._task_told(rule.org, landing.told)
        key = known.key if known is not None else _key(rule.per, rule.org, rule.name, task, landing)
        earlier = self._connection.execute(_TASK_OF, {"of_key": key}).first()
        # Named by its key too, for what takes back this outcome and no other.
        names = (*landing.refs, *landing.told, key, *((task_ref(task),) if task else ()))
        self._mark([_mark(rule.org, name, landing.at_ms, outcome=key) for name in names])
        if earlier is None:
            self._add(delivery, landing, task, key, names)
        else:
            again = update(outcomes).where(outcomes.c.key == key)
            self._connection.execute(again.values(deliveries=outcomes.c.deliveries + 1))
            if not earlier.task and task:
                key = self._tell(key, task)
            self._stand(rule.org, key)
        if landing.kind == DEPLOYED:
            self._roll_back(rule.org, key, landing)
        return key

    def _add(self, delivery: Delivery, landing: Landing, task: str, key: str, names: Iterable[str]) -> None:
        """A row that is new: all that landed of it is this, and something may have taken it back before."""
        row = _row(delivery, landing, task, key, self._now_ms)
        events = self._events(delivery.rule.org, [(name, landing.at_ms) for name in names])
        found = standing(events, delivery.rule.accepted_after_ms, self._now_ms)
        assert found is not None
        self._connection.execute(outcomes.insert(), row | msgspec.structs.asdict(found))
        self._changes[delivery.rule.name, found.state] += 1

    def _known(self, rule: OutcomeRule, ref: str) -> Any:
        """The row of this rule that has this name already, or None: a change keeps the task that it had when
        it landed, whatever it is called afterwards."""
        of = {"of_org": rule.org, "named": ref, "of_rule": rule.name}
        return self._connection.execute(_KNOWN, of).first() if ref else None

    def _roll_back(self, org: str, key: str, landing: Landing) -> None:
        """A commit that is deployed again takes back what was deployed after it in the same place."""
        first = self._connection.execute(
            select(func.min(outcome_marks.c.at_ms)).where(outcome_marks.c.outcome == key, outcome_marks.c.ref == key)
        ).scalar_one()
        if first is None or first >= landing.at_ms:
            return
        here = select(outcomes.c.rule).where(outcomes.c.key == key).scalar_subquery()
        between = select(outcomes.c.key).where(
            outcomes.c.org == org,
            outcomes.c.rule == here,
            outcomes.c.repo == landing.repo,
            outcomes.c.base == landing.base,
            outcomes.c.key != key,
            outcomes.c.landed_ms > first,
            outcomes.c.landed_ms < landing.at_ms,
        )
        for (later,) in self._connection.execute(between).all():
            self._mark([_mark(org, key, landing.at_ms, undoes=later, reason="rolled_back")])
            self._stand(org, later)

    # -- what tells a task -------------------------------------------------------------------------------------------

    def _task_told(self, org: str, names: Sequence[str]) -> str:
        hints = select(outcome_marks.c.task).where(
            outcome_marks.c.org == org, outcome_marks.c.ref.in_(names), outcome_marks.c.task != ""
        )
        return str(self._connection.execute(hints.order_by(outcome_marks.c.at_ms)).scalar() or "") if names else ""

    def _hint(self, org: str, hint: Hint) -> None:
        self._mark([_mark(org, name, hint.at_ms, task=hint.task) for name in hint.refs])
        waiting = (
            select(outcomes.c.key)
            .join(outcome_marks, outcome_marks.c.outcome == outcomes.c.key)
            .where(outcome_marks.c.org == org, outcome_marks.c.ref.in_(hint.refs), outcomes.c.task == "")
            .distinct()
        )
        for (key,) in self._connection.execute(waiting).all():
            self._stand(org, self._tell(key, hint.task))

    def _tell(self, key: str, task: str) -> str:
        """Gives a row its task, and with it the key that goes with it. Where that is a row already, they become one."""
        row = self._connection.execute(_ROW, {"of_key": key}).one()
        told = _key(row.per, row.org, row.rule, task, row)
        there = self._connection.execute(select(outcomes.c.key).where(outcomes.c.key == told)).first()
        if there is None:
            renamed = update(outcomes).where(outcomes.c.key == key)
            self._connection.execute(renamed.values(key=told, task=task, changed_ms=self._now_ms))
        else:
            more = update(outcomes).where(outcomes.c.key == told)
            self._connection.execute(more.values(deliveries=outcomes.c.deliveries + row.deliveries))
            self._connection.execute(delete(outcomes).where(outcomes.c.key == key))
        for column in (outcome_marks.c.outcome, outcome_marks.c.ref, outcome_marks.c.undoes):
            named = update(outcome_marks).where(outcome_marks.c.org == row.org, column == key)
            self._connection.execute(named.values({column: told}))
        # As of when it landed: being told the task of what is there lands nothing.
        self._mark([_mark(row.org, task_ref(task), row.landed_ms, outcome=told)])
        return told

    # -- what is taken back ------------------------------------------------------------------------------------------

    def _undo(self, org: str, undoing: Undoing) -> list[str]:
        names = undoing.refs or ("",)
        self._mark(
            [
                _mark(org, name, undoing.at_ms, undoes=undone, reason=undoing.reason)
                for name in names
                for undone in undoing.undoes
            ]
        )
        keys = self._concerned(org, undoing.undoes)
        for key in keys:
            self._stand(org, key)
        return keys

    def _concerned(self, org: str, names: Iterable[str]) -> list[str]:
        """The outcomes that have one of these names, or one of those that are taken back by what has them."""
        found: dict[str, None] = {}
        names = set(names)
        for _ in range(UNDOINGS_DEPTH_MAX):
            marks = self._marks(_BY_REF, org, names)
            found |= dict.fromkeys(mark.outcome for mark in marks if mark.outcome)
            names = {mark.undoes for mark in marks if mark.undoes} - names
            if not names:
                break
        return list(found)

    def _stand(self, org: str, key: str) -> None:
        """Works the state of a row out anew, and writes it where it changed."""
        row = self._connection.execute(_ROW, {"of_key": key}).first()
        if row is None:
            return
        own = [(ref, at_ms) for ref, at_ms in self._connection.execute(_OWN_MARKS, {"of_key": key})]
        found = standing(self._events(org, own), row.accepted_after_ms, self._now_ms)
        if found is None:
            return
        fields = msgspec.structs.asdict(found)
        if any(getattr(row, name) != value for name, value in fields.items()):
            self._connection.execute(
                update(outcomes).where(outcomes.c.key == key).values(**fields, changed_ms=self._now_ms)
            )
        if row.state != found.state:
            self._changes[row.rule, found.state] += 1

    def _events(self, org: str, own: Iterable[tuple[str, int]]) -> set[Event]:
        """The steps in the life of what landed under these names, each at its time."""
        events: set[Event] = set()
        since: dict[str, int] = {}
        for ref, at_ms in own:
            events.add(Event(at_ms, "landed"))
            since[ref] = min(at_ms, since.get(ref, at_ms))
        landed = False
        for _ in range(UNDOINGS_DEPTH_MAX):
            later: dict[str, int] = {}
            for mark in self._marks(_BY_UNDOES, org, since):
                # Nothing is reverted before it is there, whatever the clocks of two sources say. A task that was taken
                # up again before this outcome landed is another story.
                at_ms = mark.at_ms if mark.reason == "reopened" else max(mark.at_ms, since[mark.undoes])
                events.add(Event(at_ms, "landed") if landed else Event(at_ms, "undone", mark.reason))
                if mark.ref and mark.reason == "reverted":
                    later[mark.ref] = min(at_ms, later.get(mark.ref, at_ms))
            if not later:
                break
            since, landed = later, not landed
        return events

    def _marks(self, which: Any, org: str, names: Iterable[str]) -> list[Any]:
        found: list[Any] = []
        for part in parts([name for name in names if name]):
            found += self._connection.execute(which, {"of_org": org, "names": part}).all()
        return found

    def _mark(self, marks: Sequence[dict[str, Any]]) -> None:
        if marks:
            self._connection.execute(self._insert_mark, list(marks))


def _key(per: str, org: str, rule: str, task: str, change: Any) -> str:
    """`change` has repo, base and change: a landing, or the row of one."""
    if per == "task" and task:
        return outcome_key(org, rule, task, "", "", "")
    return outcome_key(org, rule, task, change.repo, change.base, change.change)


def _mark(
    org: str, ref: str, at_ms: int, *, undoes: str = "", outcome: str = "", reason: str = "", task: str = ""
) -> dict[str, Any]:
    row = {"org": org, "ref": ref, "undoes": undoes, "outcome": outcome, "reason": reason, "task": task, "at_ms": at_ms}
    key = hashlib.blake2b(msgspec.json.encode(list(row.values())), digest_size=16).hexdigest()
    return {"key": key, **row}


def _row(delivery: Delivery, landing: Landing, task: str, key: str, now_ms: int) -> dict[str, Any]:
    rule = delivery.rule
    return {
        "key": key,
        "org": rule.org,
        "rule": rule.name,
        "source": delivery.source,
        "kind": landing.kind,
        "task": task,
        "repo": landing.repo,
        "base": landing.base,
        "change": landing.change,
        "per": rule.per,
        "weight": rule.weight,
        "accepted_after_ms": rule.accepted_after_ms,
        "state": "pending",
        "reason": "",
        "landed_ms": landing.at_ms,
        "due_ms": None,
        "accepted_ms": None,
        "undone_ms": None,
        "reviewed": None if landing.reviewed is None else int(landing.reviewed),
        "seen_ms": now_ms,
        "changed_ms": now_ms,
        "deliveries": 1,
    }


def outcome_of(row: Row[Any]) -> Outcome:
    """A row -> the outcome."""
    fields = {name: getattr(row, name) for name in Outcome.__struct_fields__}
    fields["reviewed"] = None if row.reviewed is None else bool(row.reviewed)
    return Outcome(**fields)
