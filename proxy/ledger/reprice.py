"""Reprice: calls whose price was guessed or unknown are priced again, rows and roll-ups together."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import select

from ..core.record import Record, decode
from .engine import Database
from .queries import last_seq
from .tables import TO_REPRICE, calls
from .writer import Replacement, Writer

BATCH_CALLS = 500
"""Calls in one transaction, so that the writer of new calls never waits longer than some tens of milliseconds."""
STEP_CALLS_MAX = 5_000
"""Calls of one step: a second or two, well within the time that a client waits for an answer."""

Price = Callable[[Record], Record | None]
"""A record -> the same with another cost, or None where nothing better is known. Its revision does not matter."""

Charge = Callable[[list[tuple[Record, Record]]], None]
"""Charges counters with what calls cost now, given as they were and as they are. Called before a batch is committed,
and perhaps again with the same; what it raises undoes the batch."""


class Place(msgspec.Struct, frozen=True):
    """Where repricing goes on: behind row `after`, up to row `newest`. Rows that were replaced lie behind that."""

    after: int
    newest: int

    def __str__(self) -> str:
        return f"{self.after}-{self.newest}"


class Repriced(msgspec.Struct, frozen=True, kw_only=True):
    """`looked_at` had no price or an assumed one; `changed` have another now. The difference may be negative.

    A call that had no price counts with 0 before. `next` is the cursor of the next step, None: that was all.
    """

    looked_at: int = 0
    changed: int = 0
    difference_nusd: int = 0
    next: str | None = None


def read_place(cursor: str) -> Place:
    """Raises ValueError for a text that is no cursor of an earlier step."""
    after, _, newest = cursor.partition("-")
    if not all(part.isascii() and part.isdigit() and len(part) <= 18 for part in (after, newest)):
        raise ValueError(f"`{cursor}` is no cursor; give back a `next` as an earlier step gave it")
    return Place(int(after), int(newest))


def reprice(
    database: Database, writer: Writer, since_ms: int, price: Price, charge: Charge, cursor: str | None = None
) -> Repriced:
    """One step through the ledger, oldest first. Each batch is a transaction: safe to break off and to begin again."""
    if cursor is not None:
        place = read_place(cursor)
    else:
        with database.reading() as connection:
            place = Place(0, last_seq(connection))
    done = Repriced()
    while done.looked_at < STEP_CALLS_MAX:
        batch, place = reprice_batch(database, writer, since_ms, price, charge, place)
        done = Repriced(
            looked_at=done.looked_at + batch.looked_at,
            changed=done.changed + batch.changed,
            difference_nusd=done.difference_nusd + batch.difference_nusd,
            next=str(place),
        )
        if batch.looked_at < BATCH_CALLS:
            return msgspec.structs.replace(done, next=None)
    return done


def reprice_batch(
    database: Database, writer: Writer, since_ms: int, price: Price, charge: Charge, place: Place
) -> tuple[Repriced, Place]:
    """The next calls behind `place`; gives what was done and the place behind them."""
    statement = (
        select(calls.c.seq, calls.c.revision, calls.c.store_revision, calls.c.record)
        .where(TO_REPRICE, calls.c.seq > place.after, calls.c.seq <= place.newest, calls.c.at_ms >= since_ms)
        .order_by(calls.c.seq)
        .limit(BATCH_CALLS)
    )
    replacements: list[Replacement] = []
    difference_nusd = 0
    with database.writing() as connection:
        rows = connection.execute(statement).all()
        for row in rows:
            before = decode(row.record)
            priced = price(before)
            if priced is None or same_price(before, priced):
                continue
            shown = msgspec.structs.replace(priced, revision=row.revision + 1)
            replacements.append(Replacement(row.seq, before, shown, row.store_revision))
            difference_nusd += (priced.cost_nusd or 0) - (before.cost_nusd or 0)
        writer.replace(connection, replacements)
        if replacements:
            charge([(replacement.before, replacement.after) for replacement in replacements])
    done = Repriced(looked_at=len(rows), changed=len(replacements), difference_nusd=difference_nusd)
    return done, Place(rows[-1].seq, place.newest) if rows else place


def same_price(before: Record, after: Record) -> bool:
    """The price version alone is no news: a guess that stays the same guess needs no new row."""
    return (before.cost_nusd, before.list_nusd, before.cost_source, before.cost_parts_nusd) == (
        after.cost_nusd,
        after.list_nusd,
        after.cost_source,
        after.cost_parts_nusd,
    )
