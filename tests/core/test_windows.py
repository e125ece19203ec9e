"""Windows: each instant in exactly one, on every kind of day that a zone has."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.windows import CALENDAR, DAY_MS, HOUR_MS, MINUTE_MS, ROLLING_BUCKETS, Every, told_instant

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/St_Johns",
    "America/Havana",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Africa/Cairo",
    "Pacific/Apia",
    "Pacific/Kwajalein",
)
instants = st.integers(min_value=0, max_value=4_000_000_000_000)


def at(text: str, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp() * 1000)


def fresh(text: str, zone: str = "UTC") -> Every:
    """One that remembers no window."""
    every = Every.parse(text, zone)
    return Every(every.kind, every.unit, every.length_ms, zone)


@given(instants, st.sampled_from(CALENDAR), st.sampled_from(ZONES))
@example(at("2011-12-29T23:59:59", "Pacific/Apia"), "day", "Pacific/Apia")  # the 30th never was
@example(at("2006-10-29T00:00:30", "America/St_Johns"), "day", "America/St_Johns")  # midnight, and an hour back
@example(at("2006-10-29T03:00:00"), "day", "America/St_Johns")
@example(at("2024-11-03T00:30:00", "America/Havana", fold=1), "day", "America/Havana")  # midnight twice
@example(at("2018-11-04T02:59:59"), "day", "America/Sao_Paulo")  # midnight skipped
@example(at("2026-04-04T15:00:00"), "hour", "Australia/Lord_Howe")
@example(at("2026-10-03T15:29:59"), "hour", "Australia/Lord_Howe")
def test_every_instant_lies_in_exactly_one_calendar_window(now_ms: int, unit: str, zone: str) -> None:
    start_ms, end_ms, bucket_ms = fresh(unit, zone).window(now_ms)
    assert bucket_ms == 0
    assert start_ms <= now_ms < end_ms
    for inside_ms in {start_ms, (start_ms + end_ms) // 2, end_ms - 1}:
        assert fresh(unit, zone).window(inside_ms) == (start_ms, end_ms, 0)
    assert fresh(unit, zone).window(end_ms)[0] == end_ms
    assert fresh(unit, zone).window(start_ms - 1)[1] == start_ms


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Europe/Berlin", "2026-10-26", 24),
        ("America/New_York", "2026-03-08", 23),
        ("America/New_York", "2026-11-01", 25),
        ("Australia/Lord_Howe", "2026-10-04", 23.5),
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("Africa/Cairo", "2026-04-24", 23),
    ],
)
def test_a_day_has_the_hours_that_its_zone_gives_it(zone: str, day: str, hours: float) -> None:
    noon_ms = at(f"{day}T12:00:00", zone)
    start_ms, end_ms, _ = fresh("day", zone).window(noon_ms)
    assert (end_ms - start_ms) / HOUR_MS == hours
    assert datetime.fromtimestamp(start_ms / 1000, ZoneInfo(zone)).date().isoformat() == day


def test_weeks_begin_on_monday_and_months_on_the_first_of_the_local_calendar() -> None:
    now_ms = at("2026-11-01T00:30:00", "Europe/Berlin")  # a Sunday, and still October in UTC
    week = fresh("week", "Europe/Berlin").window(now_ms)
    assert week == (at("2026-10-26T00:00:00", "Europe/Berlin"), at("2026-11-02T00:00:00", "Europe/Berlin"), 0)
    month = fresh("month", "Europe/Berlin").window(now_ms)
    assert month == (at("2026-11-01T00:00:00", "Europe/Berlin"), at("2026-12-01T00:00:00", "Europe/Berlin"), 0)
    assert fresh("month").window(now_ms)[1] == at("2026-11-01T00:00:00")


def test_hours_follow_the_local_clock() -> None:
    assert fresh("hour", "Asia/Kolkata").window(at("2026-01-01T10:40:00"))[0] == at("2026-01-01T10:30:00")


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    first_ms = at("2026-10-25T02:30:00", "Europe/Berlin")
    again_ms = at("2026-10-25T02:30:00", "Europe/Berlin", fold=1)
    assert again_ms - first_ms == HOUR_MS
    hour = fresh("hour", "Europe/Berlin")
    assert hour.window(first_ms)[1] == hour.window(again_ms)[0]


@given(instants, st.sampled_from(["1m", "10m", "90m", "24h", "7d", "2w", "366d"]))
def test_a_rolling_window_forgets_at_most_one_sub_bucket_late_and_never_early(now_ms: int, length: str) -> None:
    every = fresh(f"rolling {length}")
    start_ms, end_ms, bucket_ms = every.window(now_ms)
    assert bucket_ms * ROLLING_BUCKETS == every.length_ms
    assert end_ms - bucket_ms <= now_ms < end_ms
    assert now_ms - every.length_ms - bucket_ms < start_ms <= now_ms - every.length_ms
    assert start_ms % bucket_ms == end_ms % bucket_ms == 0
    assert fresh(f"rolling {length}").window(end_ms)[1] == end_ms + bucket_ms


@given(st.lists(instants, min_size=1, max_size=20), st.sampled_from(["hour", "day", "rolling 24h", "ever"]))
def test_what_is_remembered_never_changes_the_answer(moments: list[int], text: str) -> None:
    every = fresh(text, "America/New_York")
    for now_ms in moments:
        assert every.window(now_ms) == fresh(text, "America/New_York").window(now_ms)


def test_ever_has_no_bounds() -> None:
    assert Every.parse("ever").window(1) == (0, 0, 0)


def test_windows_of_the_same_length_have_the_same_identity() -> None:
    assert Every.parse("rolling 24h").identity == Every.parse("rolling 1d").identity
    assert Every.parse("rolling 24h").text == "rolling 24h"
    assert Every.parse("rolling 24h", "Asia/Tokyo") == Every.parse("rolling 24h")  # no calendar, no zone
    assert Every.parse("day", "Asia/Tokyo") != Every.parse("day")
    assert len({Every.parse("day"), Every.parse("day", "UTC"), Every.parse("ever")}) == 2


@pytest.mark.parametrize(
    ("text", "zone", "sentence"),
    [
        ("dayly", "UTC", "`dayly` is no window; write minute, hour, day, week, month, ever, or one like "
         "`rolling 24h`; did you mean `day`?"),
        ("rolling", "UTC", "`rolling` is no window"),
        ("rolling 0h", "UTC", "`rolling 0h` is no window"),
        ("rolling -1h", "UTC", "`rolling -1h` is no window"),
        ("rolling NaN", "UTC", "`rolling NaN` is no window"),
        ("rolling 30s", "UTC", "`rolling 30s` is no window"),
        ("rolling 2y", "UTC", "`rolling 2y` is no window"),
        ("rolling 999999w", "UTC", "`rolling 999999w` is longer than the longest rolling window, 366 days"),
        ("", "UTC", "`` is no window"),
        ("day", "Europe/Berln", "`Europe/Berln` is no time zone; write one like `Europe/Berlin` or `UTC`; did you "
         "mean `Europe/Berlin`?"),
        ("day", "Europe", "`Europe` is no time zone"),
        ("day", "../../etc/passwd", "`../../etc/passwd` is no time zone"),
        ("day", "/etc/localtime", "`/etc/localtime` is no time zone"),
        ("day", "", "`` is no time zone"),
        ("day", "a\x00b", "is no time zone"),
    ],
)  # fmt: skip
def test_what_is_no_window_or_no_zone_is_said_in_a_sentence(text: str, zone: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Every.parse(text, zone)


def test_a_window_reads_well_after_an_amount() -> None:
    told = {text: Every.parse(text).told for text in ("hour", "day", "rolling 24h", "ever")}
    assert told == {"hour": "an hour", "day": "a day", "rolling 24h": "in any 24h", "ever": "in all"}


def test_an_instant_is_told_to_the_minute() -> None:
    assert told_instant(at("2026-11-24T00:00:00")) == "2026-11-24T00:00Z"
    assert told_instant(int(datetime(2026, 11, 24, 0, 0, 5, tzinfo=UTC).timestamp() * 1000)) == "2026-11-24T00:00:05Z"


def test_lengths_are_what_they_say() -> None:
    assert Every.parse("rolling 10m").length_ms == 10 * MINUTE_MS
    assert Every.parse("rolling 7d").length_ms == Every.parse("rolling 1w").length_ms == 7 * DAY_MS
