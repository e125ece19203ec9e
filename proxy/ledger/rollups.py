"""Roll-ups: what a record adds to the sums that reports read. Pure; the one place that says what is summed.

The writer adds records to roll-ups, takes replaced ones out again, and a report folds the raw rows of a broken hour.
All three go through the functions here, so that they cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from operator import add, attrgetter, sub
from typing import Any

import msgspec

from ..core.money import NUSD_MAX
from ..core.record import Record, is_repeat, is_unpriced, stands_still
from ..core.usage import TOKEN_FIELDS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
TEXT_CHARACTERS_MAX = 200
"""Longest text in an indexed column: names come from callers, and PostgreSQL refuses index entries over 2.7 KB."""

DIMENSIONS = ("org", "team", "user", "task", "agent", "provider", "model", "upstream", "api", "result")
"""What an hourly sum is kept apart by, beside the hour. An absent value is the empty text: NULLs never collide."""

USAGE_SUMS = (*TOKEN_FIELDS, "reasoning", "requests", "audio_ms", "images", "characters")
"""Sums of usage: the record's fields, but `requests` as one number and `seconds` as whole `audio_ms`."""

REPEAT_SUMS = ("repeat_calls", "repeat_nusd")
"""Calls that repeat work, and what they cost: a part of `calls` and of `cost_nusd`."""

MEASURES = (
    "calls",
    "cost_nusd",
    "list_nusd",
    "unpriced_calls",
    "assumed_calls",
    "shadow_refused",
    *REPEAT_SUMS,
    *USAGE_SUMS,
)
"""`shadow_refused` are calls that passed and that a rule in the shadow would have refused."""
TASK_MEASURES = ("calls", "refused", "cost_nusd", "list_nusd", "unpriced_calls", "tokens", *REPEAT_SUMS, "still_calls")

RESULTS_APART = ("refused", "failed", "client_gone", "lost")
"""Results that reports count apart; what is left of `calls` went well."""

DAY_DIMENSIONS = DIMENSIONS[:-1]
"""What the sums of a day, and of a month, are kept apart by: results stand side by side."""
DAY_SUMS = (*RESULTS_APART, *MEASURES)

SECONDS_MAX = NUSD_MAX // 1000
"""As `amount`, before a float that is not finite could be rounded."""

TASKS_MAX = 100
"""Tasks of one user, newest first: what a person can look through."""

TaskKey = tuple[str, str, str, str]
"""org, task, user, task_source"""

NEVER_FIRST_MS = NUSD_MAX
NEVER_LAST_MS = 0
"""The span of nothing: later than every first call and earlier than every last one."""


def text(value: str | None) -> str:
    """A name as indexed columns keep it: never NULL, clipped, without the NUL that PostgreSQL cannot hold."""
    if not value:
        return ""
    if len(value) <= TEXT_CHARACTERS_MAX and "\0" not in value:
        return value
    return value[:TEXT_CHARACTERS_MAX].replace("\0", "\ufffd")


def amount(value: int | None) -> int:
    """A number as the columns keep it: a provider that reports nonsense must not overflow the database."""
    return 0 if value is None else min(value, NUSD_MAX)


def hour_of(at_ms: int) -> int:
    return at_ms - at_ms % HOUR_MS


def day_of(at_ms: int) -> int:
    """The day in UTC."""
    return at_ms - at_ms % DAY_MS


def month_of(at_ms: int) -> int:
    """The month in UTC: when it begins."""
    return day_of(at_ms) - (datetime.fromtimestamp(at_ms / 1000, UTC).day - 1) * DAY_MS


def next_month(at_ms: int) -> int:
    """When the month in UTC after that of a moment begins."""
    return month_of(month_of(at_ms) + 31 * DAY_MS)


def dimensions(record: Record) -> tuple[str, ...]:
    """The values of DIMENSIONS. The model is the one that answered, else the one asked for."""
    return (
        text(record.org),
        text(record.team),
        text(record.user),
        text(record.task),
        text(record.agent),
        text(record.provider),
        text(record.model or record.model_asked),
        text(record.upstream),
        text(record.api),
        record.result,
    )


_named: Callable[[Record], tuple[Any, ...]] = attrgetter(
    "org", "team", "user", "task", "agent", "provider", "model", "model_asked", "upstream", "api", "result"
)
"""What `dimensions` depends on, read in one step: records with the same have the same dimensions."""


def measures(record: Record) -> tuple[int, ...]:
    """The values of MEASURES. Folded refusals count as the calls they stand for."""
    usage = record.usage
    return bounded(
        (
            record.count,
            record.cost_nusd or 0,
            record.list_nusd or 0,
            record.count if is_unpriced(record) else 0,
            record.count if record.cost_source == "assumed" else 0,
            record.count if record.shadow else 0,
            *repeat_sums(record),
            *usage.token_counts,
            usage.reasoning,
            sum(usage.requests.values()) if usage.requests else 0,
            round(min(usage.seconds, SECONDS_MAX) * 1000) if usage.seconds else 0,
            usage.images,
            usage.characters,
        )
    )


def bounded(values: tuple[int, ...]) -> tuple[int, ...]:
    """Each of them as `amount` gives it; hardly ever is there one to bound."""
    return values if max(values) <= NUSD_MAX else tuple(map(amount, values))


def repeat_sums(record: Record) -> tuple[int, int]:
    """The values of REPEAT_SUMS, not yet bounded."""
    return (record.count, record.cost_nusd or 0) if is_repeat(record) else (0, 0)


def task_key(record: Record) -> TaskKey | None:
    """None for a call without a task: there is nothing to sum it under."""
    if not record.task:
        return None
    return text(record.org), text(record.task), text(record.user), text(record.task_source)


def task_measures(record: Record) -> tuple[int, ...]:
    return bounded(
        (
            record.count,
            record.count if record.result == "refused" else 0,
            record.cost_nusd or 0,
            record.list_nusd or 0,
            record.count if is_unpriced(record) else 0,
            record.usage.tokens,
            *repeat_sums(record),
            record.count if stands_still(record) else 0,
        )
    )


def digest(values: tuple[str, ...]) -> str:
    """A short key for a row of many texts: one small index entry in place of ten long ones."""
    return hashlib.blake2b(msgspec.json.encode(values), digest_size=16).hexdigest()


class TaskTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What one user spent on one task, over all time. `cost_nusd` leaves out the `unpriced_calls`.

    `repeat_calls` repeat work, and cost `repeat_nusd`; the conversations of `still_calls` did not move on;
    `longest_loop` is how often the same rounds of tool use followed one another.
    """

    org: str
    task: str
    user: str
    task_source: str
    first_at_ms: int
    last_at_ms: int
    calls: int
    refused: int
    cost_nusd: int
    list_nusd: int
    unpriced_calls: int
    tokens: int
    repeat_calls: int
    repeat_nusd: int
    still_calls: int
    longest_loop: int


class TaskChange(msgspec.Struct):
    """What a batch does to one per-task row."""

    sums: list[int]
    first_at_ms: int = NEVER_FIRST_MS
    last_at_ms: int = NEVER_LAST_MS
    longest_loop: int = 0


class Changes:
    """What a batch of records does to the roll-ups, gathered in memory so that each row is touched once."""

    def __init__(self) -> None:
        self.hourly: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        self.tasks: dict[TaskKey, TaskChange] = {}
        self._dimensions: dict[tuple[Any, ...], tuple[str, ...]] = {}

    def add(self, record: Record) -> None:
        """A record came in."""
        task = self._change(record, add)
        if task is not None:
            task.first_at_ms = min(task.first_at_ms, record.at_ms)
            task.last_at_ms = max(task.last_at_ms, record.at_ms)
            task.longest_loop = max(task.longest_loop, record.loop)

    def remove(self, record: Record) -> None:
        """A record that was added before is replaced. The span of its task and its longest loop are no sums and stay:
        the caller sets them right."""
        self._change(record, sub)

    def _change(self, record: Record, by: Callable[[int, int], int]) -> TaskChange | None:
        """Adds or takes away; gives the change of the record's task, if it has one."""
        named = _named(record)
        values = self._dimensions.get(named)
        if values is None:
            values = self._dimensions[named] = dimensions(record)
        place = (hour_of(record.at_ms), values)
        sums = self.hourly.get(place)
        if sums is None:
            sums = self.hourly[place] = [0] * len(MEASURES)
        add_to(sums, measures(record), by)
        key = task_key(record)
        if key is None:
            return None
        task = self.tasks.get(key)
        if task is None:
            task = self.tasks[key] = TaskChange([0] * len(TASK_MEASURES))
        add_to(task.sums, task_measures(record), by)
        return task


def add_to(sums: list[int], values: tuple[int, ...], by: Callable[[int, int], int] = add) -> None:
    sums[:] = map(by, sums, values)
