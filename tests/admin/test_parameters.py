"""Parameters: every form of a time that people write, and a sentence for everything else."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.answers import Problem
from proxy.admin.parameters import chosen, known_only, moment_ms, number, read_moment_ms, whole_hour

NOW_MS = 1_790_000_000_000


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", NOW_MS - 3_600_000),
        ("7d", NOW_MS - 7 * 86_400_000),
        ("2w", NOW_MS - 14 * 86_400_000),
        ("90s", NOW_MS - 90_000),
        ("500ms", NOW_MS - 500),
        ("0s", NOW_MS),
        ("1790000000123", 1_790_000_000_123),
        ("2026-11-01", at("2026-11-01T00:00:00+00:00")),
        ("2026-11-01T08:00:00Z", at("2026-11-01T08:00:00+00:00")),
        ("2026-11-01t08:00:00.123456789z", at("2026-11-01T08:00:00.123+00:00")),
        ("2026-11-01T08:00:00.5Z", at("2026-11-01T08:00:00.500+00:00")),
        ("2026-11-01 08:00", at("2026-11-01T08:00:00+00:00")),
        ("2026-11-01T08:00:00+02:00", at("2026-11-01T06:00:00+00:00")),
        ("2026-11-01T08:00:00 02:00", at("2026-11-01T06:00:00+00:00")),  # a `+` that was not quoted
        ("1969-01-01", 0),
        ("999999999w", 0),
    ],
)
def test_times_are_read_in_every_form_that_people_write(text: str, expected: int) -> None:
    assert read_moment_ms(text, NOW_MS) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "1",
        "1y",
        "-1h",
        "yesterday",
        "2026-13-01",
        "2026-11-01T25:00:00Z",
        "1h2",
        "١h",
        "999999999999999",
        "2026-11-01Z",
    ],
)
def test_what_is_no_time_is_told_with_the_forms_there_are(text: str) -> None:
    assert read_moment_ms(text, NOW_MS) is None
    if text:
        with pytest.raises(Problem, match=r"`since` is .*write `1h`") as raised:
            moment_ms({"since": text}, "since", NOW_MS)
        assert raised.value.parameter == "since"


def test_a_time_without_an_offset_is_that_of_the_zone_asked_for() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert read_moment_ms("2026-07-01", NOW_MS, berlin) == at("2026-06-30T22:00:00+00:00")
    assert read_moment_ms("2026-07-01T00:00:00Z", NOW_MS, berlin) == at("2026-07-01T00:00:00+00:00")


def test_a_duration_begins_with_a_whole_hour_and_a_written_time_is_kept() -> None:
    odd_ms = round(datetime(2026, 11, 1, 8, 17, tzinfo=UTC).timestamp() * 1000)
    assert whole_hour({"since": "7d"}, "since", odd_ms) == odd_ms - 17 * 60_000
    assert whole_hour({"since": "2026-11-01T08:17:00Z"}, "since", odd_ms) == odd_ms


def test_an_absent_or_empty_parameter_has_its_default() -> None:
    assert moment_ms({}, "since", NOW_MS) is None
    assert moment_ms({"since": ""}, "since", NOW_MS) is None
    assert number({"limit": ""}, "limit", 100, 1000) == 100
    assert chosen({}, "result", ("ok",)) is None


@pytest.mark.parametrize("text", ["0", "1001", "-1", "1.5", "many", "²", "9" * 40])
def test_a_number_out_of_bounds_is_told_with_its_bounds(text: str) -> None:
    with pytest.raises(Problem, match="whole number from 1 to 1000"):
        number({"limit": text}, "limit", 100, 1000)


def test_a_misspelled_parameter_is_no_report_about_everyone() -> None:
    with pytest.raises(Problem, match="`usr` is no parameter here; there are task, user"):
        known_only({"usr": "ada"}, ("user", "task"))


@given(st.text(max_size=40))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    moment = read_moment_ms(text, NOW_MS)
    assert moment is None or moment >= 0
