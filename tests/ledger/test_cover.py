"""Cover: each moment of a time counts once, and nothing else does, however much is read and taken away again."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.cover import Piece, cover
from proxy.ledger.rollups import DAY_MS, HOUR_MS, month_of, next_month
from tests.support.ledger_calls import AT_MS

MINUTE_MS = 60_000
BEGIN_MS = month_of(AT_MS)
SPAN_MINUTES = 75 * 24 * 60


def minutes(pieces: list[Piece], *levels: str) -> list[tuple[int, int, int]]:
    return [(start_ms, end_ms, sign) for level, start_ms, end_ms, sign in pieces if level in levels]


def counted(pieces: list[tuple[int, int, int]], at_ms: int) -> int:
    return sum(sign for start_ms, end_ms, sign in pieces if start_ms <= at_ms < end_ms)


@given(
    start=st.integers(0, SPAN_MINUTES),
    length=st.integers(0, SPAN_MINUTES),
    open_days=st.sets(st.integers(0, 80), max_size=6),
    at=st.lists(st.integers(-60 * 24 * 40, SPAN_MINUTES * 2), min_size=20, max_size=40),
)
def test_each_moment_counts_once_and_no_other_does(start: int, length: int, open_days: set[int], at: list[int]) -> None:
    start_ms, end_ms = BEGIN_MS + start * MINUTE_MS, BEGIN_MS + (start + length) * MINUTE_MS
    opened = sorted(BEGIN_MS + day * DAY_MS for day in open_days)
    pieces = cover(start_ms, end_ms, opened)
    edges = {edge for piece in pieces for edge in (piece.start_ms, piece.end_ms - 1)}
    for at_ms in (
        {BEGIN_MS + minute * MINUTE_MS for minute in at} | edges | {start_ms, start_ms - 1, end_ms, end_ms - 1}
    ):
        kept = counted(minutes(pieces, "monthly", "daily"), at_ms)
        fresh = counted(minutes(pieces, "hourly", "calls"), at_ms)
        inside = int(start_ms <= at_ms < end_ms)
        if at_ms - at_ms % DAY_MS in opened:  # what months and days have of it is out of date
            assert (kept, fresh) == (0, inside)
        else:
            assert kept + fresh == inside


def test_what_lies_outside_of_a_month_is_taken_away_from_it() -> None:
    first_ms, next_ms = BEGIN_MS, next_month(BEGIN_MS)
    assert cover(first_ms, next_ms, []) == [Piece("monthly", first_ms, next_ms, 1)]
    assert cover(first_ms + 2 * DAY_MS, next_ms, []) == [
        Piece("monthly", first_ms, next_ms, 1),
        Piece("daily", first_ms, first_ms + 2 * DAY_MS, -1),
    ]
    # As months in a zone an hour off are cut.
    assert cover(first_ms - HOUR_MS, next_ms - HOUR_MS, []) == [
        Piece("hourly", first_ms - HOUR_MS, first_ms, 1),
        Piece("monthly", first_ms, next_ms, 1),
        Piece("hourly", next_ms - HOUR_MS, next_ms, -1),
    ]


def test_of_an_open_day_the_hours_are_read_and_of_a_few_days_no_month() -> None:
    first_ms = BEGIN_MS
    assert cover(first_ms, first_ms + 3 * DAY_MS, [first_ms + DAY_MS]) == [
        Piece("daily", first_ms, first_ms + DAY_MS, 1),
        Piece("daily", first_ms + 2 * DAY_MS, first_ms + 3 * DAY_MS, 1),
        Piece("hourly", first_ms + DAY_MS, first_ms + 2 * DAY_MS, 1),
    ]
    assert cover(first_ms, next_month(first_ms), [first_ms + DAY_MS]) == [
        Piece("monthly", first_ms, next_month(first_ms), 1),
        Piece("daily", first_ms + DAY_MS, first_ms + 2 * DAY_MS, -1),
        Piece("hourly", first_ms + DAY_MS, first_ms + 2 * DAY_MS, 1),
    ]


@given(st.integers(0, 4_102_444_800_000))
def test_months_begin_when_the_calendar_says_so(at_ms: int) -> None:
    begun = datetime.fromtimestamp(at_ms / 1000, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = begun.replace(year=begun.year + begun.month // 12, month=begun.month % 12 + 1)
    assert month_of(at_ms) == int(begun.timestamp()) * 1000
    assert next_month(at_ms) == int(following.timestamp()) * 1000
