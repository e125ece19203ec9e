"""The tables of the ledger, alike in SQLite and PostgreSQL. Money in nano-USD, times in ms since the epoch."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

from .rollups import DAY_DIMENSIONS, DAY_SUMS, DIMENSIONS, MEASURES, TASK_MEASURES

SCHEMA_VERSION = 7
"""Raised with every change of a table or of what roll-ups sum; a ledger with a higher one is refused."""

metadata = MetaData()

calls = Table(
    "calls",
    metadata,
    # The order in which rows became readable. A replaced row gets a new number, so that whoever follows sees it.
    # SQLite counts up by itself only for the type INTEGER, which holds 64 bits there.
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", Text, nullable=False, unique=True),
    Column("revision", Integer, nullable=False),
    # The revision that the store gave. Repricing raises `revision` alone: a settle that comes later must still win.
    Column("store_revision", Integer, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("org", Text, nullable=False),
    Column("team", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("task_source", Text, nullable=False),
    Column("model_asked", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("upstream_call_id", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("refusal", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("cost_nusd", BigInteger),
    Column("cost_source", Text, nullable=False),
    Column("twin_of", Text, nullable=False, server_default=""),  # the call that it repeats; empty: none
    Column("loop", BigInteger, nullable=False, server_default="0"),
    Column("session", Text, nullable=False, server_default=""),
    # The whole record as JSON. Text, not JSONB: PostgreSQL's JSONB refuses a \u0000 that a caller may send.
    Column("record", Text, nullable=False),
    sqlite_autoincrement=True,  # a number is never given twice, also when the newest row is replaced
)
CLAIMABLE = (calls.c.task == "") & (calls.c.session != "")
"""Calls of a session that named no task: what can be claimed for one."""
# With what a list of them shows, so that it need not look at the rows.
_OF_SESSIONS = (calls.c.user, calls.c.org, calls.c.session, calls.c.at_ms, calls.c.cost_nusd)
Index("calls_session", *_OF_SESSIONS, sqlite_where=CLAIMABLE, postgresql_where=CLAIMABLE)
Index("calls_at", calls.c.at_ms, calls.c.seq)
Index("calls_user", calls.c.user, calls.c.seq)
Index("calls_task", calls.c.task, calls.c.seq)
Index(
    "calls_upstream_call_id",
    calls.c.upstream_call_id,
    sqlite_where=calls.c.upstream_call_id != "",
    postgresql_where=calls.c.upstream_call_id != "",
)
HAS_TWIN = calls.c.twin_of != ""
Index("calls_twins", calls.c.at_ms, sqlite_where=HAS_TWIN, postgresql_where=HAS_TWIN)
TO_REPRICE = (calls.c.cost_source == "assumed") | calls.c.cost_nusd.is_(None)
"""Calls whose price was guessed or unknown: few, and found without reading the others."""
Index("calls_to_reprice", calls.c.seq, sqlite_where=TO_REPRICE, postgresql_where=TO_REPRICE)

hourly = Table(
    "hourly",
    metadata,
    Column("hour_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),  # rollups.digest of the dimensions
    *(Column(name, Text, nullable=False) for name in DIMENSIONS),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in MEASURES),
    sqlite_with_rowid=False,
)

daily = Table(
    "daily",
    metadata,
    # The hours of a day summed up (ledger/daily.py); out of date for a day in `open_days`.
    Column("day_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    *(Column(name, Text, nullable=False) for name in DAY_DIMENSIONS),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in DAY_SUMS),
    sqlite_with_rowid=False,
)

monthly = Table(
    "monthly",
    metadata,
    # The rows of `daily` of a month in UTC summed up, those of open days too (ledger/daily.py).
    Column("month_ms", BigInteger, primary_key=True, autoincrement=False),
    Column("key", Text, primary_key=True),  # rollups.digest of the dimensions
    *(Column(name, Text, nullable=False) for name in DAY_DIMENSIONS),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in DAY_SUMS),
    sqlite_with_rowid=False,
)
HAS_TASK = monthly.c.task != ""
Index("monthly_task", monthly.c.task, monthly.c.org, sqlite_where=HAS_TASK, postgresql_where=HAS_TASK)

open_days = Table(
    "open_days",
    metadata,
    Column("day_ms", BigInteger, primary_key=True, autoincrement=False),
)

tasks = Table(
    "tasks",
    metadata,
    Column("key", Text, primary_key=True),  # rollups.digest of the next four
    Column("org", Text, nullable=False),
    Column("task", Text, nullable=False, index=True),
    Column("user", Text, nullable=False, index=True),
    Column("task_source", Text, nullable=False),
    Column("first_at_ms", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
    *(Column(name, BigInteger, nullable=False, server_default="0") for name in TASK_MEASURES),
    Column("longest_loop", BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)

positions = Table(
    "positions",
    metadata,
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("epoch", Text, nullable=False),
    Column("id", Text, nullable=False),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("user", Text, nullable=False, index=True),
    Column("team", Text, nullable=False),
    Column("org", Text, nullable=False),
    Column("labels", Text, nullable=False),  # JSON object
    Column("kind", Text, nullable=False),
    Column("acts_for", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("version", BigInteger, nullable=False, index=True),
)

raises = Table(
    "raises",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("budget", Text, nullable=False),
    Column("scope", Text, nullable=False),  # JSON object: each name of the budget's `per` with its value
    Column("amount", BigInteger, nullable=False),  # in the unit of the budget
    Column("unit", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False, index=True),
    Column("reason", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

budgets = Table(
    "budgets",
    metadata,
    # One row for each counter identity that was ever in force: what tells a new budget from a changed one.
    Column("identity", Text, primary_key=True),
    Column("since_ms", BigInteger, nullable=False),  # of its latest time in force
    Column("left_ms", BigInteger),  # when it left the policy; NULL while it is in it
    Column("from_ms", BigInteger, nullable=False),  # calls before this are in its counters already
    Column("seeding", Integer, nullable=False),  # 1 until what was spent before it came is in its counters
    Column("rebuilt", Text, nullable=False),  # JSON list: shards whose counters hold that already
)

outcomes = Table(
    "outcomes",
    metadata,
    # One row for each outcome (core.outcomes.Outcome): a change of a task, however many deliveries told of it.
    # `state` moves by itself when `due_ms` comes: the bookkeeper sees to that.
    Column("key", Text, primary_key=True),  # core.outcomes.outcome_key
    Column("org", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("source", Text, nullable=False),  # signed | self_declared
    Column("kind", Text, nullable=False),  # merged | deployed | pushed | declared | the `type` of a Standard Webhook
    Column("task", Text, nullable=False),  # empty: none was found
    Column("repo", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("change", Text, nullable=False),
    Column("per", Text, nullable=False, server_default="change"),  # change | task
    Column("weight", BigInteger, nullable=False),
    Column("accepted_after_ms", BigInteger),  # NULL: never accepted
    Column("state", Text, nullable=False),  # pending | accepted | undone
    Column("reason", Text, nullable=False),
    Column("landed_ms", BigInteger, nullable=False, index=True),
    Column("due_ms", BigInteger),
    Column("accepted_ms", BigInteger, index=True),
    Column("undone_ms", BigInteger),
    Column("reviewed", Integer),  # 1: someone other than the author let it in; NULL: not known
    Column("seen_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False, index=True),
    Column("deliveries", BigInteger, nullable=False),
)
Index("outcomes_task", outcomes.c.org, outcomes.c.task)
PENDING = outcomes.c.state == "pending"
Index("outcomes_due", outcomes.c.due_ms, sqlite_where=PENDING, postgresql_where=PENDING)

outcome_marks = Table(
    "outcome_marks",
    metadata,
    # What happened, by name, in whatever order it became known: a revert may be heard of before what it reverts.
    Column("key", Text, primary_key=True),  # digest of the rest
    Column("org", Text, nullable=False),
    Column("ref", Text, nullable=False),  # the name of what happened: a commit, a pull request, a deployment
    Column("undoes", Text, nullable=False),  # the name of what it takes back; empty where it landed
    Column("outcome", Text, nullable=False, index=True),  # the key of what landed; empty where it takes back
    Column("reason", Text, nullable=False),
    # Where it only tells the task of what has this name, which may come later.
    Column("task", Text, nullable=False, server_default=""),
    Column("at_ms", BigInteger, nullable=False, index=True),
)
Index("outcome_marks_ref", outcome_marks.c.org, outcome_marks.c.ref)
Index("outcome_marks_undoes", outcome_marks.c.org, outcome_marks.c.undoes)

deliveries = Table(
    "deliveries",
    metadata,
    # Every delivery of a webhook that was taken: it is taken once.
    Column("rule", Text, primary_key=True),
    Column("delivery", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

claims = Table(
    "claims",
    metadata,
    # Sessions that ran without a task and were given one afterwards, once, by their own user.
    Column("key", Text, primary_key=True),  # digest of org, user and session
    Column("org", Text, nullable=False),
    Column("user", Text, nullable=False, index=True),
    Column("session", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("calls", BigInteger, nullable=False, server_default="0"),
    Column("cost_nusd", BigInteger, nullable=False, server_default="0"),
    Column("at_ms", BigInteger, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    # What is to be told, and was: one row for each rule of `alerts`, event, scope and window.
    Column("key", Text, primary_key=True),
    Column("alert", Text, nullable=False),  # the rule of `alerts` that says where to
    Column("body", Text, nullable=False),  # JSON, as it is sent
    Column("at_ms", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_ms", BigInteger, index=True),  # of the next attempt; NULL: sent, or given up
)

meta = Table(
    "meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
LEDGER_ID = "ledger_id"
SCHEMA = "schema_version"
WRITER = "writer"
"""The row that writers of calls lock, so that `seq` grows in the order of commits."""
CALLS_FROM = "calls_from_ms"
"""The row that says before which hour calls may have been dropped; missing where none ever was."""
SUMS_USED = "sums_used"
"""The row with the names of those sums, parted by spaces, that are not 0 throughout `daily` and `monthly`."""
KEYS_VERSION = "keys_version"
"""The version of the last change to any key; writers of keys lock it."""
