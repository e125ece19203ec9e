"""Cover: cuts a time into the coarsest pieces that roll-ups have, some of which are taken away again. Pure.

A month of which more than half lies in the time is read whole, and what of it lies outside is taken away; of another
month, what lies in the time is read by days. Days are treated the same with hours, and hours with calls. So no edge of
a time, and no time zone, makes a report read more than half a month by days, half a day by hours, half an hour by
calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from .rollups import DAY_MS, HOUR_MS, day_of, hour_of, month_of, next_month

Range = tuple[int, int]
"""From the first ms to before the second."""
Level = Literal["monthly", "daily", "hourly", "calls"]
"""The table that a piece is read from."""


class Piece(NamedTuple):
    """What a table has of a time; `sign` is 1 where it is added, -1 where it is taken away."""

    level: Level
    start_ms: int
    end_ms: int
    sign: int


def cover(start_ms: int, end_ms: int, open_days: Sequence[int]) -> list[Piece]:
    """The pieces that come to the time asked for, each of a table and a sign as long as can be.

    The rows of `daily` for one of `open_days` are out of date, and are what `monthly` has of that day: where a month
    is read whole, they are taken away from it, and the hours of that day are read in their place.
    """
    found: dict[tuple[Level, int], list[Range]] = {}
    for piece in _by_months(start_ms, end_ms, open_days):
        found.setdefault((piece.level, piece.sign), []).append((piece.start_ms, piece.end_ms))
    return [Piece(level, *range_, sign) for (level, sign), ranges in found.items() for range_ in ranges_of(ranges)]


def _by_months(start_ms: int, end_ms: int, open_days: Sequence[int]) -> Iterator[Piece]:
    while start_ms < end_ms:
        first_ms, next_ms = month_of(start_ms), next_month(start_ms)
        stop_ms = min(end_ms, next_ms)
        if 2 * (stop_ms - start_ms) > next_ms - first_ms:
            opened = [day_ms for day_ms in open_days if first_ms <= day_ms < next_ms]
            yield Piece("monthly", first_ms, next_ms, 1)
            for day_ms in opened:
                yield Piece("daily", day_ms, day_ms + DAY_MS, -1)
                yield from _by_hours(max(start_ms, day_ms), min(stop_ms, day_ms + DAY_MS), 1)
            for range_ in _without(opened, [(first_ms, start_ms), (stop_ms, next_ms)]):
                yield from _by_days(*range_, (), -1)
        else:
            yield from _by_days(start_ms, stop_ms, open_days, 1)
        start_ms = stop_ms


def _by_days(start_ms: int, end_ms: int, open_days: Sequence[int], sign: int) -> Iterator[Piece]:
    while start_ms < end_ms:
        first_ms = day_of(start_ms)
        stop_ms = min(end_ms, first_ms + DAY_MS)
        if 2 * (stop_ms - start_ms) > DAY_MS and first_ms not in open_days:
            yield Piece("daily", first_ms, first_ms + DAY_MS, sign)
            yield from _by_hours(first_ms, start_ms, -sign)
            yield from _by_hours(stop_ms, first_ms + DAY_MS, -sign)
        else:
            yield from _by_hours(start_ms, stop_ms, sign)
        start_ms = stop_ms


def _by_hours(start_ms: int, end_ms: int, sign: int) -> Iterator[Piece]:
    while start_ms < end_ms:
        first_ms = hour_of(start_ms)
        stop_ms = min(end_ms, first_ms + HOUR_MS)
        if 2 * (stop_ms - start_ms) > HOUR_MS:
            yield Piece("hourly", first_ms, first_ms + HOUR_MS, sign)
            yield Piece("calls", first_ms, start_ms, -sign)
            yield Piece("calls", stop_ms, first_ms + HOUR_MS, -sign)
        else:
            yield Piece("calls", start_ms, stop_ms, sign)
        start_ms = stop_ms


def _without(days: Iterable[int], ranges: Iterable[Range]) -> Iterator[Range]:
    """What is left of `ranges` when `days`, oldest first, are cut out of them."""
    for start_ms, end_ms in ranges:
        for day_ms in days:
            if start_ms < day_ms + DAY_MS and day_ms < end_ms:
                yield start_ms, day_ms
                start_ms = day_ms + DAY_MS
        yield start_ms, end_ms


def ranges_of(pieces: Iterable[Range]) -> list[Range]:
    """Without empty ones, in the order of time; those that touch are one."""
    found: list[Range] = []
    for start_ms, end_ms in sorted(pieces):
        if start_ms >= end_ms:
            continue
        if found and found[-1][1] == start_ms:
            found[-1] = (found[-1][0], end_ms)
        else:
            found.append((start_ms, end_ms))
    return found
