"""Twins: groups of tasks that are the same work, by what their calls repeat of one another.

A call names the call that it repeats. Where the two belong to different tasks, people or conversations, these are
twins, and so are their twins. Conversations of one task are told apart where the agent names its sessions. Nothing is
guessed here, and nothing stands in an order of use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, and_, func, or_, select

from ..core.record import decode
from .engine import Database
from .queries import TASK_COLUMNS
from .rollups import TaskTotals
from .tables import HAS_TWIN, calls, tasks
from .writer import find, parts

REPEATS_MAX = 500_000
"""Calls that one question looks through: a few seconds. More is asked for in parts."""

Work = tuple[str, str, str]
"""org, task, user: somebody's work on a task, whatever told us of the task."""
Talk = tuple[str, str, str, str]
"""Work and session: one conversation of it, or all of it where sessions are not told (an empty session)."""


class TwinsInvalid(ValueError):
    """A question that cannot be answered as it was asked. The sentence says what to change."""


class Repeat(msgspec.Struct, frozen=True):
    """The first call by which some work is known to repeat other work, and the call that it repeats.

    task, user   whose work is repeated
    rule, kind   the rule that saw it, and its kind: `similar` says that it is much alike, others that it is the same
    """

    call_id: str
    twin_of: str
    task: str
    user: str
    rule: str | None = None
    kind: str | None = None


class TwinTask(msgspec.Struct, frozen=True, kw_only=True):
    """One of a group. `calls` and `cost_nusd` are all that it ever had, `refused` of the calls those that came to
    nothing, `conversations` those that are the same work.
    `repeat` is None for the one that was first, and for one that others repeat without repeating any."""

    org: str
    task: str
    user: str
    first_at_ms: int
    last_at_ms: int
    conversations: int
    calls: int
    refused: int
    cost_nusd: int
    repeat: Repeat | None


class TwinGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that are the same work, in the order of their names, and what they cost together.

    `one_cost_nusd` is what the conversation that was begun first cost, or the first task where sessions are not told:
    what the work would have cost if it had been done once.
    """

    tasks: list[TwinTask]
    calls: int
    cost_nusd: int
    one_cost_nusd: int


def twins(database: Database, since_ms: int, until_ms: int) -> list[TwinGroup]:
    """The groups that calls admitted from `since_ms` to before `until_ms` belong to, in the order of the names of
    their first tasks. Calls without a task are in none. Raises TwinsInvalid, LedgerUnavailable."""
    with database.reading() as connection:
        repeats = repeats_between(connection, since_ms, until_ms)
        totals = totals_of(connection, {talk[:3] for pair in repeats for talk in pair})
        shown_by: dict[Work, Repeat] = {}
        for (talk, _), repeat in repeats.items():
            shown_by.setdefault(talk[:3], repeat)
        shown_by = with_rules(connection, shown_by)
        groups = [group_of(connection, talks, shown_by, totals) for talks in together(repeats)]
    return sorted(groups, key=lambda group: [(each.task, each.user, each.org) for each in group.tasks])


def repeats_between(connection: Connection, since_ms: int, until_ms: int) -> dict[tuple[Talk, Talk], Repeat]:
    """Which work repeats which other, with the first call that shows it."""
    twin = calls.alias("twin")
    anew = and_(calls.c.session != twin.c.session, calls.c.session != "", twin.c.session != "")
    other = or_(calls.c.task != twin.c.task, calls.c.user != twin.c.user, anew)
    statement = (
        select(
            calls.c.org,
            calls.c.task,
            calls.c.user,
            calls.c.session,
            twin.c.task.label("twin_task"),
            twin.c.user.label("twin_user"),
            twin.c.session.label("twin_session"),
            calls.c.call_id,
            calls.c.twin_of,
        )
        .join(twin, twin.c.call_id == calls.c.twin_of)
        .where(HAS_TWIN, calls.c.at_ms >= since_ms, calls.c.at_ms < until_ms)
        .where(other, calls.c.task != "", twin.c.task != "", calls.c.org == twin.c.org)
        .order_by(calls.c.at_ms, calls.c.seq)
        .limit(REPEATS_MAX + 1)
    )
    found: dict[tuple[Talk, Talk], Repeat] = {}
    seen = 0
    for row in connection.execute(statement.execution_options(yield_per=1000)):
        seen += 1
        talk = row.org, row.task, row.user, row.session
        pair = talk, (row.org, row.twin_task, row.twin_user, row.twin_session)
        found.setdefault(pair, Repeat(row.call_id, row.twin_of, row.twin_task, row.twin_user))
    if seen > REPEATS_MAX:
        raise TwinsInvalid(f"more than {REPEATS_MAX:,} calls repeat others in that time; ask for a shorter one")
    return found


def with_rules(connection: Connection, shown_by: dict[Work, Repeat]) -> dict[Work, Repeat]:
    """With the rules that saw the repeats, as the records of their calls have them."""
    records = find(connection, [repeat.call_id for repeat in shown_by.values()])
    ruled = {}
    for work, repeat in shown_by.items():
        record = decode(records[repeat.call_id].record)
        ruled[work] = msgspec.structs.replace(repeat, rule=record.twin_rule, kind=record.twin_kind)
    return ruled


def together(pairs: Iterable[tuple[Talk, Talk]]) -> list[list[Talk]]:
    """What is joined by pairs, directly or by way of others, as lists in the order of names."""
    group: dict[Talk, list[Talk]] = {}
    for one, other in pairs:
        mine, theirs = group.setdefault(one, [one]), group.setdefault(other, [other])
        if mine is not theirs:
            mine += theirs
            for talk in theirs:
                group[talk] = mine
    return [sorted(members) for members in {id(members): members for members in group.values()}.values()]


def totals_of(connection: Connection, wanted: set[Work]) -> dict[Work, list[TaskTotals]]:
    """What was spent on each, a row for each source that told us of the task."""
    found: dict[Work, list[TaskTotals]] = {}
    for part in parts({task for _, task, _ in wanted}):
        for row in connection.execute(select(*TASK_COLUMNS).where(tasks.c.task.in_(part))):
            totals = TaskTotals(**row._mapping)
            work = totals.org, totals.task, totals.user
            if work in wanted:
                found.setdefault(work, []).append(totals)
    return found


def group_of(
    connection: Connection,
    talks: list[Talk],
    shown_by: dict[Work, Repeat],
    totals: dict[Work, list[TaskTotals]],
) -> TwinGroup:
    conversations = Counter(talk[:3] for talk in talks)
    begun = {work: min(each.first_at_ms for each in totals[work]) for work in conversations}
    first = min(conversations, key=lambda work: (begun[work], work))
    shown = []
    for work, count in sorted(conversations.items()):
        org, task, user = work
        mine = totals[work]
        shown.append(
            TwinTask(
                org=org,
                task=task,
                user=user,
                first_at_ms=begun[work],
                last_at_ms=max(each.last_at_ms for each in mine),
                conversations=count,
                calls=sum(each.calls for each in mine),
                refused=sum(each.refused for each in mine),
                cost_nusd=sum(each.cost_nusd for each in mine),
                repeat=None if work == first else shown_by.get(work),
            )
        )
    return TwinGroup(
        tasks=shown,
        calls=sum(each.calls for each in shown),
        cost_nusd=sum(each.cost_nusd for each in shown),
        one_cost_nusd=first_cost_nusd(connection, [talk for talk in talks if talk[:3] == first], totals[first]),
    )


def first_cost_nusd(connection: Connection, talks: list[Talk], totals: list[TaskTotals]) -> int:
    """What the first of the conversations cost, all of one task and user; all of it where sessions are not told."""
    org, task, user, _ = talks[0]
    sessions = [session for *_, session in talks]
    if "" in sessions:
        return sum(each.cost_nusd for each in totals)
    cost = func.coalesce(func.sum(calls.c.cost_nusd), 0)
    found: list[tuple[int, int]] = []
    for part in parts(sessions):
        mine = and_(calls.c.org == org, calls.c.task == task, calls.c.user == user, calls.c.session.in_(part))
        by_session = select(func.min(calls.c.at_ms), cost).where(mine).group_by(calls.c.session)
        found += [(begun_ms, int(nusd)) for begun_ms, nusd in connection.execute(by_session)]
    return min(found)[1]
