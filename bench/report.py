"""`python -m bench.report`: fills a ledger with ten million records and times its reports, on SQLite and on PostgreSQL.

The records are made in bulk, by the database itself: cells of hour, task, model and result first, as roll-ups keep
them, and from each cell its calls. Both are compared before anything is timed. Days are closed by the code that the
bookkeeper runs, outcomes are rows of their table. What is timed is `Ledger.report`, which reads in one transaction.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import Connection, func, select, text

from proxy.child import keep_what_is_there
from proxy.core.outcomes import Team
from proxy.core.report import Report
from proxy.ledger.database import Ledger
from proxy.ledger.engine import Database
from proxy.ledger.rollups import DAY_MS, DIMENSIONS, HOUR_MS, MEASURES, TASK_MEASURES, digest
from proxy.ledger.tables import calls, daily, hourly, monthly, open_days, outcomes, tasks
from tests.support.postgresql import NoPostgresql, running_postgresql

CALLS = 10_000_000
CALLS_QUICK = 200_000
DAYS = 182
USERS = 500
USERS_QUICK = 10
TEAMS = 25
TASKS_OF_A_USER = 40
HOURS = range(8, 17)
"""Of a working day: nine hours, five days a week."""
MODELS = (("openai", "gpt-5"), ("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-5"))
WITH_OUTCOME = 0.7
STATES = ("accepted", "accepted", "accepted", "accepted", "accepted", "accepted", "accepted", "undone", "pending")
RECORDED = ("org", "team", "task", "agent", "upstream", "provider", "api", "model", "result")
ROWS_AT_ONCE = 20_000
END_MS = 1_793_491_200_000
"""2026-11-01T00:00:00Z."""
START_MS = END_MS - DAYS * DAY_MS

Cell = dict[str, Any]


def cells(wanted: int, users: int, chance: random.Random) -> Iterator[Cell]:
    """Cells of `hourly`, in the order of hours, that stand for about `wanted` calls."""
    working_days = [day for day in range(DAYS) if day % 7 < 5]
    each = wanted / (len(working_days) * users * len(HOURS) * 2.6)
    keys: dict[tuple[str, ...], str] = {}
    for day in working_days:
        on = [int((day + 3 * chance.random()) * TASKS_OF_A_USER / DAYS) % TASKS_OF_A_USER for _ in range(users)]
        for hour in HOURS:
            for user in range(users):
                for _ in range(1 + (chance.random() < 0.6)):
                    provider, model = MODELS[min(2, int(chance.random() * 4))]
                    for result, share in (("ok", 1.0), ("failed", 0.04), ("refused", 0.02)):
                        if share < 1 and chance.random() > 0.3:
                            continue
                        count = max(1, int(each * share * (0.4 + 1.2 * chance.random()) * 1.62))
                        hour_ms = START_MS + day * DAY_MS + hour * HOUR_MS
                        yield cell(hour_ms, user, on[user], (provider, model, result), count, keys)


def cell(
    hour_ms: int, user: int, task: int, what: tuple[str, str, str], count: int, keys: dict[tuple[str, ...], str]
) -> Cell:
    provider, model, result = what
    named = f"T-{user}-{task}" if task % 10 else ""  # a tenth of the work has no task
    team, person = f"team-{user % TEAMS:02d}", f"user-{user:03d}"
    values = ("acme", team, person, named, "codex", provider, model, provider, "chat", result)
    key = keys.get(values)
    if key is None:
        key = keys[values] = digest(values)
    cost = 0 if result == "refused" else 3_000_000 + 1_000 * user + task
    sums = dict.fromkeys(MEASURES, 0)
    sums |= {"calls": count, "cost_nusd": count * cost, "list_nusd": count * cost}
    if result != "refused":
        sums |= {"input": count * 9_000, "cached_input": count * 40_000, "output": count * 700}
    return {"hour_ms": hour_ms, "key": key, **dict(zip(DIMENSIONS, values, strict=True)), **sums}


def fill(database: Database, wanted: int, users: int, *, with_calls: bool) -> None:
    """Cells, then the calls of each, tasks and outcomes."""
    chance = random.Random(1)
    of_tasks: dict[tuple[str, str], Cell] = {}
    rows: list[Cell] = []
    seen: dict[tuple[int, str], Cell] = {}
    with database.writing() as connection:
        if not database.sqlite:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        hour_ms = 0
        for made in cells(wanted, users, chance):
            if made["hour_ms"] != hour_ms:
                rows += seen.values()
                seen, hour_ms = {}, made["hour_ms"]
                if len(rows) > ROWS_AT_ONCE:
                    database.write_rows(connection, database.insert(hourly), rows)
                    rows = []
            twice = seen.setdefault((hour_ms, made["key"]), made)
            if twice is not made:
                for name in MEASURES:
                    twice[name] += made[name]
            if made["task"]:
                add_to_task(of_tasks, made)
        database.write_rows(connection, database.insert(hourly), [*rows, *seen.values()])
        connection.execute(text("INSERT INTO open_days SELECT DISTINCT hour_ms - hour_ms % 86400000 FROM hourly"))
        connection.execute(tasks.insert(), list(of_tasks.values()))
        connection.execute(outcomes.insert(), list(outcome_rows(of_tasks.values(), chance)))
        if with_calls:
            make_calls(connection, sqlite=database.sqlite)
    with database.writing() as connection:
        connection.exec_driver_sql("ANALYZE")


def add_to_task(of_tasks: dict[tuple[str, str], Cell], made: Cell) -> None:
    values = (made["org"], made["task"], made["user"], "key")
    row = of_tasks.get((made["org"], made["task"]))
    if row is None:
        row = of_tasks[(made["org"], made["task"])] = {
            "key": digest(values),
            **dict(zip(("org", "task", "user", "task_source"), values, strict=True)),
            "first_at_ms": made["hour_ms"],
            "last_at_ms": made["hour_ms"],
            "longest_loop": 0,
            **dict.fromkeys(TASK_MEASURES, 0),
        }
    row["last_at_ms"] = made["hour_ms"]
    row["calls"] += made["calls"]
    row["cost_nusd"] += made["cost_nusd"]
    row["list_nusd"] += made["list_nusd"]


def outcome_rows(of_tasks: Any, chance: random.Random) -> Iterator[Cell]:
    for number, task in enumerate(of_tasks):
        if chance.random() > WITH_OUTCOME:
            continue
        state = chance.choice(STATES)
        landed_ms = task["last_at_ms"] + HOUR_MS
        due_ms = landed_ms + 7 * DAY_MS
        yield {
            "key": f"{number:032x}",
            "org": task["org"],
            "rule": "merged",
            "source": "signed",
            "kind": "merged",
            "task": task["task"],
            "repo": "acme/app",
            "base": "main",
            "change": f"{number:040x}",
            "per": "change",
            "weight": 1,
            "accepted_after_ms": 7 * DAY_MS,
            "state": state,
            "reason": "",
            "landed_ms": landed_ms,
            "due_ms": due_ms if state != "undone" else None,
            "accepted_ms": due_ms if state == "accepted" else None,
            "undone_ms": landed_ms + DAY_MS if state == "undone" else None,
            "reviewed": 1,
            "seen_ms": landed_ms,
            "changed_ms": landed_ms,
            "deliveries": 1,
        }


def make_calls(connection: Connection, *, sqlite: bool) -> None:
    """A row and a record for each call of each cell, its minute by its number."""
    if sqlite:
        connection.exec_driver_sql("CREATE TEMP TABLE series (n INTEGER PRIMARY KEY)")
        connection.execute(text("INSERT INTO series VALUES (:n)"), [{"n": n} for n in range(5_000)])
    series = "JOIN series ON n < calls" if sqlite else "CROSS JOIN LATERAL generate_series(0, calls - 1) AS n"
    at = "(hour_ms + (n * 37000) % 3600000)"
    cost = "(cost_nusd / calls)"
    call_id = "(hour_ms || '-' || substr(key, 1, 12) || '-' || n)"
    told = {
        "call_id": f"'\"' || {call_id} || '\"'",
        "at_ms": at,
        **{name: f"'\"' || {name} || '\"'" for name in RECORDED},
        "user": "'\"' || \"user\" || '\"'",
        "key_id": "'\"k7f3a9c2e1\"'",
        "cost_nusd": cost,
        "list_nusd": cost,
        "usage": "'{\"input\":' || (input / calls) || ',\"output\":' || (output / calls) || '}'",
    }
    record = " || ',' || ".join(f"'\"{name}\":' || {value}" for name, value in told.items())
    record = f"'{{' || {record} || '}}'"
    columns = (
        'call_id, revision, store_revision, at_ms, org, team, "user", task, task_source, model_asked, model, upstream, '
        "upstream_call_id, result, refusal, rule, cost_nusd, cost_source, record"
    )
    statement = (
        f"INSERT INTO calls ({columns}) SELECT {call_id}, 1, 1, {at}, org, team, \"user\", task, 'key', model, "
        f"model, upstream, '', result, '', '', {cost}, 'book', {record} FROM hourly {series} ORDER BY hour_ms"
    )
    connection.execute(text(statement))


def check(database: Database, *, with_calls: bool) -> int:
    """How many calls there are; ends where rows and roll-ups do not agree."""
    with database.reading() as connection:
        made = connection.execute(select(func.count(), func.sum(calls.c.cost_nusd)).select_from(calls)).one()
        summed = connection.execute(select(func.sum(hourly.c.calls), func.sum(hourly.c.cost_nusd))).one()
        closed = connection.execute(select(func.sum(daily.c.calls), func.sum(daily.c.cost_nusd))).one()
        months = connection.execute(select(func.sum(monthly.c.calls), func.sum(monthly.c.cost_nusd))).one()
        left = connection.execute(select(func.count()).select_from(open_days)).scalar()
    sides = [
        tuple(map(int, each)) for each in ((made, summed, closed, months) if with_calls else (summed, closed, months))
    ]
    if left or len(set(sides)) > 1:
        raise SystemExit(
            f"bench: calls {made}, hours {summed}, days {closed} and months {months} differ, or {left} days are open"
        )
    return sides[0][0]


REPORTS: tuple[tuple[str, Sequence[str], int, str, int], ...] = (
    ("team, 30 days", ("team",), 30, "UTC", 0),
    ("team, all", ("team",), DAYS, "UTC", 0),
    ("team and month, all, Berlin", ("team", "month"), DAYS, "Europe/Berlin", 0),
    ("team, 30 days to half past, Kolkata", ("team", "month"), 30, "Asia/Kolkata", 1_800_000),
    ("model, all", ("model",), DAYS, "UTC", 0),
    ("user, 30 days", ("user",), 30, "UTC", 0),
    ("task, 30 days", ("task",), 30, "UTC", 0),
    ("outcome, 30 days", ("outcome",), 30, "UTC", 0),
    ("team and outcome, 90 days", ("team", "outcome"), 90, "UTC", 0),
    ("task, all", ("task",), DAYS, "UTC", 0),
)


def timed(url: str, repeats: int) -> None:
    ledger = Ledger(Database(url))
    keep_what_is_there()  # as the bookkeeper does, which makes reports
    print(f"  {'report':38} {'rows':>7} {'first, ms':>9} {'median':>9} {'best':>9} {'our CPU':>9}")
    policy = [Team(name=f"team-{number:02d}", unit="merged", size=USERS // TEAMS) for number in range(TEAMS)]
    for name, by, days, timezone, less_ms in REPORTS:
        took: list[float] = []
        spent: list[float] = []
        for _ in range(repeats):
            begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
            made: Report = ledger.report(
                by, since_ms=END_MS - days * DAY_MS, until_ms=END_MS - less_ms, timezone=timezone, teams=policy
            )
            took.append(time.perf_counter() - begun_s)
            spent.append(time.process_time() - begun_cpu_s)
        figures = (took[0], median(took), min(took), median(spent))
        print(f"  {name:38} {len(made.rows):7,}", *(f"{1000 * each:9.0f}" for each in figures), flush=True)
    ledger.close()


def run(name: str, url: str, asked: argparse.Namespace) -> None:
    database, ledger = Database(url), Ledger(Database(url))
    begun_s = time.perf_counter()
    size = (CALLS_QUICK, USERS_QUICK) if asked.quick else (CALLS, USERS)
    fill(database, *size, with_calls=not asked.sums_only)
    filled_s = time.perf_counter()
    while ledger.close_days(END_MS + DAY_MS):
        pass
    closed_s = time.perf_counter()
    count = check(database, with_calls=not asked.sums_only)
    with database.reading() as connection:
        tables = (hourly, daily, monthly)
        hours, days, months = (connection.execute(select(func.count()).select_from(each)).scalar() for each in tables)
    print(f"{name}: {count:,} records in {filled_s - begun_s:.0f} s, ", end="")
    print(f"{hours:,} rows of hours, {days:,} of days, {months:,} of months, ", end="")
    print(f"closed in {closed_s - filled_s:.0f} s", flush=True)
    ledger.close()
    database.close()
    # In a process of their own, which has not made millions of rows before.
    again = [sys.executable, "-m", "bench.report", "--time", url, "--repeats", str(asked.repeats)]
    subprocess.run(again, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few records: to see that it works")
    parser.add_argument("--repeats", type=int, default=5, help="how often each report is made  [5]")
    parser.add_argument(
        "--sums-only", action="store_true", help="make the sums of ten million records, not the records"
    )
    parser.add_argument("--only", choices=("sqlite", "postgresql"))
    parser.add_argument("--directory", type=Path, help="where the SQLite ledger goes: 6 GB  [a temporary one]")
    parser.add_argument("--time", metavar="URL", help="only time reports of a ledger that this filled before")
    asked = parser.parse_args()
    if asked.time is not None:
        timed(asked.time, asked.repeats)
        return
    if asked.only != "postgresql":
        with tempfile.TemporaryDirectory(prefix="callmeter-bench-", dir=asked.directory) as directory:
            run("SQLite", f"sqlite:///{directory}/ledger.db", asked)
    if asked.only != "sqlite":
        try:
            with running_postgresql() as server:
                run("PostgreSQL", server.fresh_url(), asked)
        except NoPostgresql as reason:
            print(f"PostgreSQL is not measured: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main()
