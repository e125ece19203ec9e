"""Engine: the connection to SQLite or PostgreSQL, transactions that read and that write, and the schema check."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DataError, DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.schema import CreateColumn

from .daily import open_all
from .errors import LedgerRefused, LedgerUnavailable
from .tables import KEYS_VERSION, LEDGER_ID, SCHEMA, SCHEMA_VERSION, WRITER, meta, metadata

BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite writer waits for another; a batch takes milliseconds, so this is only met when something hangs."""
CONNECT_TIMEOUT_S = 5
SILENCE_MS = 10_000
"""A connection to PostgreSQL whose other end has not acknowledged our bytes for so long is dead: a batch that waited
on it is tried on another one."""
STATEMENT_TIMEOUT_MS = 60_000
"""The longest report on PostgreSQL; a statement without an end would keep the bookkeeper from ever going on."""
CONNECTIONS_MAX = 8
"""One writer, the threads of the admin port, the exporters; more would only wait for the same disk."""
CACHE_KIB = 16_384
"""SQLite's page cache: holds the inner pages of all indexes of some ten million calls."""
FIRST_WITH_MONTHS = 7
"""The first schema with sums of months, which are made while days are closed."""
INDEXES_GONE = ("daily_task",)
"""What earlier versions had and nothing reads any more: it would only make closing days slower."""
CREATE_LOCK = 0x63616C6C6D657465
"""PostgreSQL advisory lock for making the schema: the letters `callmete`, so that it is nobody else's."""

Insert = sqlite.Insert | postgresql.Insert


class Database:
    """An opened database with the ledger's schema. Safe to use from several threads.

    Raises LedgerUnavailable where it cannot be reached, LedgerRefused where it must not be used.
    """

    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.name = self.url.render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        engine = sqlite_engine(self.url) if self.sqlite else postgresql_engine(self.url)
        self._engine = engine
        self._reader = engine if self.sqlite else engine.execution_options(isolation_level="REPEATABLE READ")
        self._writer = engine.execution_options(writing=True)
        self._compiled: dict[Insert, tuple[str, list[str] | None]] = {}
        """Statements of `write_rows` as the driver takes them: the text, and the order of its parameters."""
        try:
            self.ledger_id = self._prepare()
        except BaseException as error:
            engine.dispose()
            cause = getattr(error.__cause__, "orig", None)
            if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
                raise LedgerRefused(
                    f"the file at `{self.name}` is no SQLite database, or is damaged; put it back from a backup, or "
                    "move it away to begin anew"
                ) from None
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the ledger, however many statements it takes."""
        with self._translated(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self, lock: str = WRITER) -> Iterator[Connection]:
        """A transaction that commits at its end, or not at all. One at a time for each `lock`, a row of `meta`."""
        with self._translated(), self._writer.begin() as connection:
            if not self.sqlite:
                connection.execute(select(meta.c.value).where(meta.c.name == lock).with_for_update())
            yield connection

    def insert(self, table: Table) -> Insert:
        """INSERT with ON CONFLICT, which both databases have and SQLAlchemy keeps in their dialects."""
        return sqlite.insert(table) if self.sqlite else postgresql.insert(table)

    def write_rows(self, connection: Connection, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
        """Runs `statement` for each of `rows`, which all name the same columns, in one go.

        Compiled once and given to the driver as it is: for hundreds of rows SQLAlchemy's own way takes longer to make
        the parameters than SQLite to write the rows. Our columns are texts and integers, which need no conversion.
        """
        if not rows:
            return
        known = self._compiled.get(statement)
        if known is None:
            compiled = statement.compile(dialect=self._engine.dialect, column_keys=list(rows[0]))
            known = self._compiled[statement] = (str(compiled), compiled.positiontup)
        text_of, positions = known
        given = rows if positions is None else list(map(itemgetter(*positions), rows))
        connection.exec_driver_sql(text_of, given)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, DataError):
            raise  # about what was written, not about the database
        except (DatabaseError, InterfaceError, PoolTimeout) as error:
            raise LedgerUnavailable(
                f"the ledger at `{self.name}` cannot be used now: {reason(error)}; "
                "check that the database runs, has room, and that CALLMETER_LEDGER_URL is right"
            ) from error

    def _prepare(self) -> str:
        """Makes what is missing of the schema, refuses a newer one, and gives the ledger's id."""
        with self._translated(), self._writer.begin() as connection:
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CREATE_LOCK})
            if not inspect(connection).has_table(meta.name):
                metadata.create_all(connection)
                first = {
                    LEDGER_ID: secrets.token_hex(8),
                    SCHEMA: str(SCHEMA_VERSION),
                    WRITER: "",
                    KEYS_VERSION: "0",
                }
                connection.execute(meta.insert(), [{"name": name, "value": value} for name, value in first.items()])
            known = {row.name: str(row.value) for row in connection.execute(select(meta.c.name, meta.c.value))}
        version = known.get(SCHEMA, "")
        if not version.isdigit() or LEDGER_ID not in known:
            raise LedgerRefused(
                f"the database at `{self.name}` has a table `meta` that is not Callmeter's; use a database of its own"
            )
        if int(version) > SCHEMA_VERSION:
            raise LedgerRefused(
                f"the ledger at `{self.name}` has schema {version} and this Callmeter knows {SCHEMA_VERSION}: it was "
                "written by a newer version; run that one, or use another CALLMETER_LEDGER_URL"
            )
        if int(version) < SCHEMA_VERSION:
            self._upgrade(int(version))
        return known[LEDGER_ID]

    def _upgrade(self, version: int) -> None:
        """Brings the schema of an older version up to ours: every version has only added tables, columns and indexes,
        and left out an index.
        In rows of before a new column has its default, which is what the older version would have written."""
        with self._translated(), self._writer.begin() as connection:
            if not self.sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": CREATE_LOCK})
            metadata.create_all(connection)
            for table in metadata.tables.values():
                known = {column["name"] for column in inspect(connection).get_columns(table.name)}
                for column in table.columns:
                    if column.name not in known:
                        definition = CreateColumn(column).compile(dialect=connection.dialect)
                        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {definition}")
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
            for name in INDEXES_GONE:
                connection.exec_driver_sql(f"DROP INDEX IF EXISTS {name}")
            if version < FIRST_WITH_MONTHS:
                open_all(connection)
            connection.execute(update(meta).where(meta.c.name == SCHEMA).values(value=str(SCHEMA_VERSION)))


def parse_url(url: str) -> URL:
    """A SQLAlchemy URL with the driver we bring. Raises LedgerRefused for anything but SQLite and PostgreSQL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    scheme = parsed.drivername if parsed is not None else ""
    if parsed is not None and scheme in ("sqlite", "sqlite+pysqlite") and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite")
    if parsed is not None and scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    raise LedgerRefused(
        "CALLMETER_LEDGER_URL must be `sqlite:////absolute/path.db` or `postgresql://user:password@host/database`"
    )


def sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url, pool_size=CONNECTIONS_MAX, max_overflow=0, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000}
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # The driver's own transactions begin too late for a compare-and-set; with None it leaves them to us.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            # FULL, not NORMAL: the stream is trimmed behind a commit, so a commit must outlive a power cut.
            # A batch of hundreds of calls shares one fsync; it is not what ingest spends its time on.
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIB}",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        # A writer takes its lock at once: one that read first would fail, not wait, when another had written since.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        pool_size=CONNECTIONS_MAX,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,  # a database that was restarted costs no failed batch
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "callmeter",
            "tcp_user_timeout": SILENCE_MS,
        },
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        # Not by `options` at connecting: they would take the place of those in the URL, such as a search_path.
        connection.execute(f"SET statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.commit()

    return engine


def reason(error: Exception) -> str:
    """The database's own words, on one line, without the statement that SQLAlchemy adds."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(cause).split()) or type(cause).__name__
