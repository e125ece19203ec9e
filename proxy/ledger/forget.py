"""Forget: takes a person out of the ledger, and old calls out of it. The sums stay what they were."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, select, update

from ..core.forgetting import FORGOTTEN, forgotten
from ..core.record import Record, decode
from .engine import Database
from .keys import raise_version
from .rollups import DIMENSIONS, MEASURES, TASK_MEASURES, digest, hour_of, text
from .tables import CALLS_FROM, KEYS_VERSION, alerts, calls, claims, daily, hourly, keys, meta, monthly, raises, tasks
from .writer import Writer, call_row

BATCH_CALLS = 500
STEP_CALLS_MAX = 5_000
"""Calls of one step: a second or two, well within the time that a client waits for an answer."""
DROPPED_AT_ONCE = 5_000
KEPT_MS_MIN = 35 * 86_400_000
"""Younger calls are not dropped: a record of theirs may still come, and would count twice; and counters of budgets are
counted from them."""


class ForgetInvalid(ValueError):
    """Something that must not be forgotten. The sentence says why."""


class ForgetStep(msgspec.Struct, frozen=True, kw_only=True):
    """What one step did. `more`: call again. The rest is of the last step, after which nothing is left."""

    calls: int
    more: bool
    keys: int = 0
    raises: int = 0
    alerts: int = 0
    claims: int = 0


def forget(database: Database, writer: Writer, user: str, now_ms: int) -> ForgetStep:
    """One step. Each batch is a transaction in which rows and sums go together, so it may be broken off anywhere, and
    begun again. Raises ForgetInvalid, LedgerUnavailable."""
    name = text(user)
    if not name or name == FORGOTTEN:
        raise ForgetInvalid(f"`{user}` is nobody's name")
    revoke_keys(database, name, now_ms)  # first, so that no new calls of theirs come in
    done = 0
    while done < STEP_CALLS_MAX:
        count = forget_calls(database, writer, name)
        done += count
        if count < BATCH_CALLS:
            return forget_the_rest(database, writer, name, done)
    return ForgetStep(calls=done, more=True)


def forget_calls(database: Database, writer: Writer, name: str) -> int:
    columns = (calls.c.seq, calls.c.store_revision, calls.c.record)
    statement = select(*columns).where(calls.c.user == name).order_by(calls.c.seq).limit(BATCH_CALLS)
    moved: list[tuple[Record, Record]] = []
    with database.writing() as connection:
        rows = connection.execute(statement).all()
        for row in rows:
            before = decode(row.record)
            after = forgotten(before)
            moved.append((before, after))
            # In its place: with another number, whoever follows the ledger would take it for news.
            changed = update(calls).where(calls.c.seq == row.seq)
            connection.execute(changed.values(call_row(after, row.store_revision)))
        writer.move(connection, moved)
    return len(rows)


def revoke_keys(database: Database, name: str, now_ms: int) -> None:
    with database.writing(KEYS_VERSION) as connection:
        mine = (keys.c.user == name) & keys.c.revoked_at_ms.is_(None)
        for (key_id,) in connection.execute(select(keys.c.key_id).where(mine)).all():
            version = raise_version(connection, 1)
            connection.execute(
                update(keys).where(keys.c.key_id == key_id).values(revoked_at_ms=now_ms, version=version)
            )


def forget_the_rest(database: Database, writer: Writer, name: str, done: int) -> ForgetStep:
    """What is left when no call is: sums of calls that were dropped before, keys, raises, claims and alerts."""
    with database.writing() as connection:
        move_hours(connection, writer, name)
        move_tasks(connection, writer, name)
        # Their days are open by now, so these rows are out of date; months keep being the sum of days.
        for table in (daily, monthly):
            connection.execute(delete(table).where(table.c.user == name))
        told = forget_alerts(connection, name)
        gone = connection.execute(delete(claims).where(claims.c.user == name)).rowcount
        given = forget_raises(connection, name)
    with database.writing(KEYS_VERSION) as connection:
        version = raise_version(connection, 1)
        renamed = update(keys).where(keys.c.user == name)
        values = {"user": FORGOTTEN, "labels": "{}", "acts_for": None, "version": version}
        revoked = connection.execute(renamed.values(values)).rowcount
    return ForgetStep(calls=done, more=False, keys=revoked, raises=given, alerts=told, claims=gone)


def move_hours(connection: Connection, writer: Writer, name: str) -> None:
    """Sums of the user whose calls were dropped."""
    rows = connection.execute(select(hourly).where(hourly.c.user == name)).mappings().all()
    for row in rows:
        values = tuple(FORGOTTEN if dimension == "user" else row[dimension] for dimension in DIMENSIONS)
        writer.add_hour(connection, row["hour_ms"], values, [row[measure] for measure in MEASURES])
    connection.execute(delete(hourly).where(hourly.c.user == name))


def move_tasks(connection: Connection, writer: Writer, name: str) -> None:
    for row in connection.execute(select(tasks).where(tasks.c.user == name)).mappings().all():
        key = (row["org"], row["task"], FORGOTTEN, row["task_source"])
        names = ("org", "task", "user", "task_source")
        moved: dict[str, Any] = {"key": digest(key), **dict(zip(names, key, strict=True))}
        kept = ("first_at_ms", "last_at_ms", "longest_loop", *TASK_MEASURES)
        writer.add_task(connection, moved | {column: row[column] for column in kept})
    connection.execute(delete(tasks).where(tasks.c.user == name))


def forget_raises(connection: Connection, name: str) -> int:
    count = 0
    for row in connection.execute(select(raises)).all():
        scope = msgspec.json.decode(row.scope)
        if scope.get("user") != name and row.made_by != name:
            continue
        if scope.get("user") == name:
            scope["user"] = FORGOTTEN
        made_by = FORGOTTEN if row.made_by == name else row.made_by
        values = {"scope": msgspec.json.encode(scope).decode(), "made_by": made_by, "reason": ""}
        connection.execute(update(raises).where(raises.c.id == row.id).values(values))
        count += 1
    return count


def forget_alerts(connection: Connection, name: str) -> int:
    """Those whose scope is the user, or whose sentence names it in backticks, as all sentences do."""
    mine = []
    for key, body in connection.execute(select(alerts.c.key, alerts.c.body)).all():
        told = msgspec.json.decode(body)
        data = told.get("data", told) if isinstance(told, dict) else {}
        scope = data.get("scope") or {}
        if name in scope.values() or f"`{name}`" in body:
            mine.append(key)
    for key in mine:
        connection.execute(delete(alerts).where(alerts.c.key == key))
    return len(mine)


def drop_calls(database: Database, before_ms: int, now_ms: int) -> ForgetStep:
    """One step of taking calls out that were made before a moment, of whole hours; every sum stays. From then on
    reports count what lies before by whole hours. Raises ForgetInvalid, LedgerUnavailable."""
    before_ms = hour_of(before_ms)
    if before_ms > now_ms - KEPT_MS_MIN:
        days = KEPT_MS_MIN // 86_400_000
        raise ForgetInvalid(f"calls of the last {days} days are not dropped: records of theirs may still come")
    oldest = select(calls.c.seq).where(calls.c.at_ms < before_ms).order_by(calls.c.at_ms).limit(DROPPED_AT_ONCE)
    with database.writing() as connection:
        known = connection.execute(select(meta.c.value).where(meta.c.name == CALLS_FROM)).scalar()
        if known is None:
            connection.execute(meta.insert(), {"name": CALLS_FROM, "value": str(before_ms)})
        elif int(known) < before_ms:
            connection.execute(update(meta).where(meta.c.name == CALLS_FROM).values(value=str(before_ms)))
        gone = connection.execute(delete(calls).where(calls.c.seq.in_(oldest))).rowcount
        left = connection.execute(select(func.min(calls.c.at_ms)).where(calls.c.at_ms < before_ms)).scalar()
    return ForgetStep(calls=gone, more=left is not None)
