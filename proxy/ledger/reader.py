"""Reader: the few things that a worker asks of the ledger's database, straight through its driver.

Workers look up keys here. They do it without SQLAlchemy, which would cost each of them some 20 MB of memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from ..core.caller import KeyInfo
from ..core.record import Record, decode
from .errors import LedgerRefused, LedgerUnavailable
from .rollups import TASKS_MAX, TaskTotals, text

KEY_COLUMNS = KeyInfo.__struct_fields__
"""The columns of `keys`, in the order in which `key_info` takes them."""
CHANGES_MAX = 1_000
"""Changed keys in one answer; whoever gets that many asks again from the last version."""
BUSY_TIMEOUT_S = 1.0
"""Readers do not wait for writers in WAL; this covers the moment in which the log is started anew."""
CONNECT_TIMEOUT_S = 3
STATEMENT_TIMEOUT_MS = 3_000
"""A call waits for its key: rather answer that the store is away than hang."""

_SELECT_KEY = f"SELECT {', '.join(f'keys.{name}' for name in KEY_COLUMNS)} FROM keys".replace(
    "keys.user", 'keys."user"'
)
_SELECT_TASKS = f"SELECT {', '.join(f'tasks.{name}' for name in TaskTotals.__struct_fields__)} FROM tasks".replace(
    "tasks.user", 'tasks."user"'
)
_read_labels = msgspec.json.Decoder(dict[str, str]).decode


class Reader:
    """A read-only connection of one worker, safe to use from several threads. Opens itself again after a failure.

    Every method raises LedgerUnavailable where the database cannot be read now.
    """

    def __init__(self, connect: Callable[[], Any], errors: tuple[type[Exception], ...], mark: str) -> None:
        self._connect = connect
        self._errors = errors
        self._mark = mark
        self._lock = threading.Lock()
        self._connection: Any = None

    def key(self, key_id: str) -> KeyInfo | None:
        """What a key stands for; None: there is no such key."""
        rows = self._rows(f"{_SELECT_KEY} WHERE key_id = ?", (key_id,))
        return key_info(rows[0]) if rows else None

    def keys_changed_since(self, version: int) -> list[KeyInfo]:
        """Keys made, changed or revoked after `version`, oldest change first, at most CHANGES_MAX."""
        rows = self._rows(f"{_SELECT_KEY} WHERE version > ? ORDER BY version LIMIT {CHANGES_MAX}", (version,))
        return [key_info(row) for row in rows]

    def call(self, call_id: str) -> Record | None:
        rows = self._rows("SELECT record FROM calls WHERE call_id = ?", (call_id,))
        return decode(rows[0][0]) if rows else None

    def by_upstream_call_id(self, org: str, upstream: str, upstream_call_id: str) -> Record | None:
        """The newest call that the provider gave this id, as for a retrieval that shows its usage."""
        # The repeated condition lets SQLite use the index, which leaves out calls without such an id.
        rows = self._rows(
            "SELECT record FROM calls WHERE upstream_call_id = ? AND upstream_call_id <> ''"
            " AND upstream = ? AND org = ? ORDER BY seq DESC LIMIT 1",
            (text(upstream_call_id), text(upstream), text(org)),
        )
        return decode(rows[0][0]) if rows else None

    def tasks_of(self, user: str, org: str) -> list[TaskTotals]:
        """A user's own tasks, the one worked on last first, at most TASKS_MAX."""
        rows = self._rows(
            f'{_SELECT_TASKS} WHERE "user" = ? AND org = ? ORDER BY last_at_ms DESC, task LIMIT {TASKS_MAX}',
            (text(user), text(org)),
        )
        return [TaskTotals(**dict(zip(TaskTotals.__struct_fields__, row, strict=True))) for row in rows]

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _rows(self, statement: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                found: list[tuple[Any, ...]] = self._connection.execute(
                    statement.replace("?", self._mark), values
                ).fetchall()
            except self._errors as error:
                self._drop()
                words = " ".join(str(error).split())
                raise LedgerUnavailable(
                    f"the ledger cannot be read now: {words}; is the bookkeeper running?"
                ) from error
        return found

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except self._errors:
                pass  # it is being thrown away


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
            url, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name="callmeter worker"
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
