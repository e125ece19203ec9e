"""Reader: the few things that a worker asks of the ledger's database, straight through its driver.

Workers look up keys here. They do it without SQLAlchemy, which would cost each of them some 20 MB of memory.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import msgspec

from ..core.caller import KeyInfo
from ..core.proven import ProvenTask
from ..core.raises import GivenRaise
from ..core.record import Record, decode
from .errors import LedgerRefused, LedgerUnavailable
from .rollups import TASKS_MAX, TaskTotals, text

KEY_COLUMNS = KeyInfo.__struct_fields__
"""The columns of `keys`, in the order in which `key_info` takes them."""
RAISE_COLUMNS = GivenRaise.__struct_fields__
"""The columns of `raises`, in the order in which `raise_of` takes them."""
CHANGES_MAX = 1_000
"""Changed keys in one answer; whoever gets that many asks again from the last version."""
BUSY_TIMEOUT_S = 1.0
"""Readers do not wait for writers in WAL; this covers the moment in which the log is started anew."""
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_MS = 3_000
"""A call waits for its key: rather answer that the store is away than hang."""
SILENCE_MS = 3_000
"""A connection whose other end has not even acknowledged our bytes for so long is dead (a lost route, a lost host)."""
KEEPALIVE_S = 5
KEEPALIVE_COUNT = 3
"""A connection that nobody uses is tried every 5 s and given up after three tries, so that no call finds it dead."""
TURN_S = 1.0
"""How long one look-up waits for another on the same connection. They take milliseconds: one that takes longer hangs
and is cut off, so that the look-ups behind it do not hang with it."""

_SELECT_KEY = f"SELECT {', '.join(f'keys.{name}' for name in KEY_COLUMNS)} FROM keys".replace(
    "keys.user", 'keys."user"'
)
_SELECT_TASKS = f"SELECT {', '.join(f'tasks.{name}' for name in TaskTotals.__struct_fields__)} FROM tasks".replace(
    "tasks.user", 'tasks."user"'
)
_SELECT_RAISES = f"SELECT {', '.join(RAISE_COLUMNS)} FROM raises"
_SELECT_PROVEN = f"SELECT {', '.join(ProvenTask.__struct_fields__)} FROM outcomes"
_read_labels = msgspec.json.Decoder(dict[str, str]).decode


SESSIONS_MAX = 50
OUTCOMES_MAX = 500
"""What a person can look through."""

LEDGER_ID = "ledger_id"
"""As in tables.py, which would bring SQLAlchemy with it."""


class SessionTotals(msgspec.Struct, frozen=True):
    """What one session came to that named no task."""

    session: str
    first_at_ms: int
    last_at_ms: int
    calls: int
    cost_nusd: int


class TaskOutcome(msgspec.Struct, frozen=True):
    """An outcome, as those who work on its task see it."""

    task: str
    rule: str
    kind: str
    source: str
    state: str
    reason: str
    weight: int
    landed_ms: int
    due_ms: int | None


class Line:
    """A read-only connection, used by one thread at a time. Opens itself again after a failure.

    connect   opens a connection
    errors    what its methods raise
    mark      what stands for a value in a statement
    """

    def __init__(self, connect: Callable[[], Any], errors: tuple[type[Exception], ...], mark: str) -> None:
        self._connect = connect
        self._errors = errors
        self._mark = mark
        self._turn = threading.Lock()
        self._connection: Any = None
        self._socket: socket.socket | None = None

    def rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """What a statement finds; `?` stands for a value. Raises LedgerUnavailable."""
        if not self._turn.acquire(timeout=TURN_S):
            self._hang_up()
            raise LedgerUnavailable("the ledger does not answer; the connection to it is made again")
        try:
            if self._connection is None:
                self._open()
            found: list[tuple[Any, ...]] = self._connection.execute(
                statement.replace("?", self._mark), values
            ).fetchall()
        except self._errors as error:
            self._drop()
            words = " ".join(str(error).split())
            raise LedgerUnavailable(f"the ledger cannot be read now: {words}; is the bookkeeper running?") from error
        finally:
            self._turn.release()
        return found

    def close(self) -> None:
        """Ends the connection, and whatever waits for an answer on it."""
        if not self._turn.acquire(timeout=TURN_S):
            self._hang_up()
            return
        try:
            self._drop()
        finally:
            self._turn.release()

    def _open(self) -> None:
        self._connection = self._connect()
        if hasattr(self._connection, "fileno"):
            # A descriptor of our own: that of the driver may be closed, and be another's, when we hang up.
            self._socket = socket.socket(fileno=os.dup(self._connection.fileno()))

    def _hang_up(self) -> None:
        """Wakes the thread that waits on the connection: it finds it closed by the other end, and drops it."""
        line = self._socket
        if line is not None:
            with suppress(OSError):  # it has ended by itself
                line.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        line, self._socket = self._socket, None
        if line is not None:
            line.close()
        if connection is not None:
            with suppress(*self._errors):  # it is being thrown away
                connection.close()


class Reader:
    """What one worker reads, safe to use from several threads. Keys have a connection of their own: whatever a page
    or a retrieval has to wait for, calls do not.

    Every method raises LedgerUnavailable where the database cannot be read now.
    """

    def __init__(self, connect: Callable[[], Any], errors: tuple[type[Exception], ...], mark: str) -> None:
        self._keys = Line(connect, errors, mark)
        self._pages = Line(connect, errors, mark)

    def ledger_id(self) -> str:
        """Tells ledgers apart."""
        rows = self._keys.rows("SELECT value FROM meta WHERE name = ?", (LEDGER_ID,))
        if not rows:
            raise LedgerUnavailable("the ledger's database is being made")
        return str(rows[0][0])

    def key(self, key_id: str) -> KeyInfo | None:
        """What a key stands for; None: there is no such key."""
        rows = self._keys.rows(f"{_SELECT_KEY} WHERE key_id = ?", (key_id,))
        return key_info(rows[0]) if rows else None

    def keys_changed_since(self, version: int) -> list[KeyInfo]:
        """Keys made, changed or revoked after `version`, oldest change first, at most CHANGES_MAX."""
        rows = self._keys.rows(f"{_SELECT_KEY} WHERE version > ? ORDER BY version LIMIT {CHANGES_MAX}", (version,))
        return [key_info(row) for row in rows]

    def open_raises(self, now_ms: int) -> list[GivenRaise]:
        """The raises of budgets that still count."""
        return [raise_of(row) for row in self._keys.rows(f"{_SELECT_RAISES} WHERE until_ms > ? ORDER BY id", (now_ms,))]

    def proven_tasks(self, changed_ms: int, landed_ms: int) -> list[ProvenTask]:
        """What is to be known of outcomes that changed since a moment and landed after another."""
        rows = self._keys.rows(f"{_SELECT_PROVEN} WHERE changed_ms >= ? AND landed_ms >= ?", (changed_ms, landed_ms))
        return [ProvenTask(*row) for row in rows]

    def call(self, call_id: str) -> Record | None:
        rows = self._pages.rows("SELECT record FROM calls WHERE call_id = ?", (call_id,))
        return decode(rows[0][0]) if rows else None

    def by_upstream_call_id(self, org: str, upstream: str, upstream_call_id: str) -> Record | None:
        """The newest call that the provider gave this id, as for a retrieval that shows its usage."""
        # The repeated condition lets SQLite use the index, which leaves out calls without such an id.
        rows = self._pages.rows(
            "SELECT record FROM calls WHERE upstream_call_id = ? AND upstream_call_id <> ''"
            " AND upstream = ? AND org = ? ORDER BY seq DESC LIMIT 1",
            (text(upstream_call_id), text(upstream), text(org)),
        )
        return decode(rows[0][0]) if rows else None

    def tasks_of(self, user: str, org: str) -> list[TaskTotals]:
        """A user's own tasks, the one worked on last first, at most TASKS_MAX."""
        rows = self._pages.rows(
            f'{_SELECT_TASKS} WHERE "user" = ? AND org = ? ORDER BY last_at_ms DESC, task LIMIT {TASKS_MAX}',
            (text(user), text(org)),
        )
        return [TaskTotals(**dict(zip(TaskTotals.__struct_fields__, row, strict=True))) for row in rows]

    def sessions_of(self, user: str, org: str) -> list[SessionTotals]:
        """A user's own sessions that named no task, the latest first, at most SESSIONS_MAX: what can be claimed."""
        rows = self._pages.rows(
            "SELECT session, MIN(at_ms), MAX(at_ms), COUNT(*), COALESCE(SUM(cost_nusd), 0) FROM calls"
            " WHERE \"user\" = ? AND org = ? AND task = '' AND session <> ''"
            f" GROUP BY session ORDER BY MAX(at_ms) DESC, session LIMIT {SESSIONS_MAX}",
            (text(user), text(org)),
        )
        return [SessionTotals(name, first, last, count, int(cost)) for name, first, last, count, cost in rows]

    def outcomes_of(self, org: str, tasks: Sequence[str]) -> list[TaskOutcome]:
        """What tasks came to, the latest first, at most OUTCOMES_MAX."""
        if not tasks:
            return []
        rows = self._pages.rows(
            f"SELECT {', '.join(TaskOutcome.__struct_fields__)} FROM outcomes WHERE org = ? AND task IN"
            f" ({', '.join('?' * len(tasks))}) ORDER BY landed_ms DESC, key LIMIT {OUTCOMES_MAX}",
            (text(org), *map(text, tasks)),
        )
        return [TaskOutcome(*row) for row in rows]

    def shared(self, user: str, org: str, tasks: Sequence[str]) -> set[str]:
        """Those of the tasks on which somebody else works, too."""
        if not tasks:
            return set()
        rows = self._pages.rows(
            'SELECT DISTINCT task FROM tasks WHERE org = ? AND "user" <> ? AND task IN'
            f" ({', '.join('?' * len(tasks))})",
            (text(org), text(user), *map(text, tasks)),
        )
        return {str(task) for (task,) in rows}

    def close(self) -> None:
        self._keys.close()
        self._pages.close()


def open_reader(url: str) -> Reader:
    """A reader of the ledger at a SQLAlchemy URL. Connects on first use. Raises LedgerRefused for another database."""
    scheme, _, rest = url.partition("://")
    if scheme.split("+")[0] == "sqlite" and rest.startswith("/"):
        return sqlite_reader(rest[1:].partition("?")[0])
    if scheme.split("+")[0] in ("postgres", "postgresql"):
        return postgresql_reader(f"postgresql://{rest}")
    raise LedgerRefused("CALLMETER_LEDGER_URL must be a `sqlite:///` or `postgresql://` URL")


def sqlite_reader(path: str) -> Reader:
    import sqlite3

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(path)}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )

    return Reader(connect, (sqlite3.Error,), "?")


def postgresql_reader(url: str) -> Reader:
    import psycopg

    def connect() -> psycopg.Connection[Any]:
        connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name="callmeter worker",
            tcp_user_timeout=SILENCE_MS,
            keepalives=1,
            keepalives_idle=KEEPALIVE_S,
            keepalives_interval=KEEPALIVE_S,
            keepalives_count=KEEPALIVE_COUNT,
        )
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.execute("SET default_transaction_read_only = on")
        return connection

    return Reader(connect, (psycopg.Error,), "%s")


def key_info(row: Sequence[Any]) -> KeyInfo:
    """A row of KEY_COLUMNS -> what the key stands for."""
    fields = dict(zip(KEY_COLUMNS, row, strict=True))
    fields["labels"] = _read_labels(fields["labels"])
    return KeyInfo(**fields)


def raise_of(row: Sequence[Any]) -> GivenRaise:
    """A row of RAISE_COLUMNS -> the raise."""
    fields = dict(zip(RAISE_COLUMNS, row, strict=True))
    fields["scope"] = _read_labels(fields["scope"])
    return GivenRaise(**fields)
