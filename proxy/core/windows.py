"""Windows: from when to when a limit counts. Calendar windows in a time zone, rolling ones, and `ever`.

Every instant lies in exactly one calendar window, and windows follow each other without a gap: also on the days on
which clocks are changed, when a day has 23 or 25 hours, and in zones where midnight is skipped or comes twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

Kind = Literal["calendar", "rolling", "ever"]
Window = tuple[int, int, int]
"""Start, end (exclusive) and length of a sub-bucket, all in ms; 0 where there is none."""
Step = Callable[[date], date]

CALENDAR = ("minute", "hour", "day", "week", "month")

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

ROLLING_UNITS_MS = {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
ROLLING_BUCKETS = 60
"""Sub-buckets of a rolling window: it remembers at most a sixtieth more than its length, never less."""
ROLLING_DAYS_MAX = 366
"""Counters are kept for the whole of their window; a year of them is more than any limit needs."""

_ROLLING = re.compile(r"rolling ([1-9][0-9]{0,5}) ?([mhdw])\Z")
_LONGEST_DAY_MS = 50 * HOUR_MS
"""No calendar day, with all the jumps that zones have made, is longer, and no jump is."""


class Every:
    """The windows of a limit. Immutable but for the window that was asked for last, which is nearly always the next
    one, too."""

    __slots__ = ("_last", "_window", "kind", "length_ms", "text", "timezone", "unit")

    def __init__(self, kind: Kind, unit: str, length_ms: int, timezone: str) -> None:
        self.kind = kind
        self.unit = unit
        self.length_ms = length_ms
        self.timezone = timezone if kind == "calendar" else ""
        self.text = f"rolling {unit}" if kind == "rolling" else unit
        self._window = self._windows()
        self._last: tuple[int, int, Window] = (0, 0, (0, 0, 0))

    @staticmethod
    def parse(text: str, timezone: str = "UTC") -> Every:
        """`day` or `rolling 24h`, and the name of a time zone. Raises ValueError with a sentence for a person."""
        return _every(" ".join(text.split()), timezone)

    def window(self, now_ms: int) -> Window:
        """The window that holds an instant.

        (0, 0, 0) for `ever`. Of a rolling one, the last sub-bucket holds the instant, and the first begins at most
        one sub-bucket before the instant less the length: what it counts too much is forgotten a bucket later.
        """
        since_ms, until_ms, window = self._last
        if since_ms <= now_ms < until_ms:
            return window
        window = self._window(now_ms)
        start_ms, end_ms, bucket_ms = window
        self._last = (end_ms - bucket_ms if bucket_ms else start_ms, end_ms, window)
        return window

    @property
    def identity(self) -> str:
        """What makes these windows others than those: `rolling 24h` and `rolling 1d` are the same."""
        return f"rolling {self.length_ms}" if self.kind == "rolling" else f"{self.unit} {self.timezone}".rstrip()

    @property
    def told(self) -> str:
        """As a sentence says it, after an amount: `a day`, `in any 24h`, `in all`."""
        if self.kind == "ever":
            return "in all"
        if self.kind == "rolling":
            return f"in any {self.unit}"
        return "an hour" if self.unit == "hour" else f"a {self.unit}"

    def _windows(self) -> Callable[[int], Window]:
        if self.kind == "ever":
            return lambda now_ms: (0, 0, 0)
        if self.kind == "rolling":
            return self._rolling
        zone = ZoneInfo(self.timezone)
        if self.unit in ("minute", "hour"):
            length_ms = MINUTE_MS if self.unit == "minute" else HOUR_MS
            return lambda now_ms: _short_window(zone, length_ms, now_ms)
        first_day, next_first = _PERIODS[self.unit]
        return lambda now_ms: _long_window(zone, first_day, next_first, now_ms)

    def _rolling(self, now_ms: int) -> Window:
        bucket_ms = self.length_ms // ROLLING_BUCKETS
        end_ms = now_ms - now_ms % bucket_ms + bucket_ms
        return end_ms - self.length_ms - bucket_ms, end_ms, bucket_ms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Every) and other.identity == self.identity

    def __hash__(self) -> int:
        return hash(self.identity)

    def __repr__(self) -> str:
        return f"Every({self.text}{', ' if self.timezone else ''}{self.timezone})"


@lru_cache(maxsize=1024)
def _every(text: str, timezone: str) -> Every:
    """One object for all rules with the same window, so that it is worked out once for all of them."""
    check_timezone(timezone)
    if text == "ever":
        return Every("ever", text, 0, timezone)
    if text in CALENDAR:
        return Every("calendar", text, 0, timezone)
    found = _ROLLING.match(text)
    if found is None:
        words = [*CALENDAR, "ever"]
        close = get_close_matches(text[:40], [*words, *(f"rolling 24{unit}" for unit in "mhdw")], n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"`{text[:40]}` is no window; write {', '.join(words)}, or one like `rolling 24h`{hint}")
    length_ms = int(found[1]) * ROLLING_UNITS_MS[found[2]]
    if length_ms > ROLLING_DAYS_MAX * DAY_MS:
        raise ValueError(f"`{text}` is longer than the longest rolling window, {ROLLING_DAYS_MAX} days")
    return Every("rolling", found[1] + found[2], length_ms, timezone)


@lru_cache(maxsize=1024)
def check_timezone(name: str) -> None:
    """Raises ValueError with a sentence for a name that is no time zone."""
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        close = get_close_matches(name[:64], available_timezones(), n=1, cutoff=0.7)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"`{name[:64]}` is no time zone; write one like `Europe/Berlin` or `UTC`{hint}") from None


# -- calendar windows -------------------------------------------------------------------------------------------------


def _offset_ms(zone: ZoneInfo, at_ms: int) -> int:
    """What local clocks are ahead of UTC at an instant."""
    offset = datetime.fromtimestamp(at_ms // 1000, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds() * 1000)


def _last_change(zone: ZoneInfo, before_ms: int, after_ms: int) -> int:
    """The instant of the clock change between two instants whose offsets differ."""
    new = _offset_ms(zone, after_ms)
    while after_ms - before_ms > 1000:
        middle_ms = (before_ms + after_ms) // 2000 * 1000
        if middle_ms <= before_ms:
            break
        if _offset_ms(zone, middle_ms) == new:
            after_ms = middle_ms
        else:
            before_ms = middle_ms
    return after_ms


def _short_window(zone: ZoneInfo, length_ms: int, now_ms: int) -> Window:
    """The minute or hour on the local clock. A clock that is put by half an hour (Lord Howe) cuts the hour in two."""
    offset_ms = _offset_ms(zone, now_ms)
    start_ms = (now_ms + offset_ms) // length_ms * length_ms - offset_ms
    end_ms = start_ms + length_ms
    if _offset_ms(zone, start_ms) != offset_ms:
        start_ms = _last_change(zone, start_ms, now_ms - now_ms % 1000)
    if _offset_ms(zone, end_ms - 1000) != offset_ms:
        end_ms = _last_change(zone, now_ms - now_ms % 1000, end_ms - 1000)
    return start_ms, end_ms, 0


def _long_window(
    zone: ZoneInfo, first_day: Callable[[date], date], after: Callable[[date], date], now_ms: int
) -> Window:
    """The day, week or month on the local calendar: from the first instant at which the local date has reached its
    first day. A date that comes again, as when midnight is put back, is over all the same."""
    today = datetime.fromtimestamp(now_ms // 1000, zone).date()
    first = after(first_day(today))
    while _reached(zone, first) > now_ms:
        first = first_day(first - timedelta(days=1))
    following = after(first)
    while (end_ms := _reached(zone, following)) <= now_ms:
        following = after(following)  # a whole day that a zone has skipped
    return _reached(zone, first), end_ms, 0


def _reached(zone: ZoneInfo, day: date) -> int:
    """The first instant at which the local date is `day` or later."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    first_ms = int(midnight.timestamp()) * 1000
    back = datetime.fromtimestamp(first_ms // 1000, zone)
    if back.replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return first_ms
    # Midnight is within the hours that the zone skips: the day begins with the jump over it.
    return _last_change(zone, first_ms - _LONGEST_DAY_MS, first_ms)


def _same_day(day: date) -> date:
    return day


def _next_day(day: date) -> date:
    return day + timedelta(days=1)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())


def _next_monday(day: date) -> date:
    return day + timedelta(days=7)


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def _next_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


_PERIODS: dict[str, tuple[Step, Step]] = {
    "day": (_same_day, _next_day),
    "week": (_monday, _next_monday),
    "month": (_first_of_month, _next_month),
}


def told_instant(at_ms: int) -> str:
    """An instant for a sentence: `2026-11-24T00:00Z`, with seconds only where they matter."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment.second else f"{moment:%Y-%m-%dT%H:%MZ}"
