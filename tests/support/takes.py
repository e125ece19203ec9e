"""Takes for tests of budgets: windows around the present, so that no test has to wait for one."""

from __future__ import annotations

from proxy.core.admission import Take, Unit
from tests.support.store import now_ms

HOUR_MS = 3_600_000


def hours(first: int, last: int) -> tuple[int, int]:
    """A window from so many hours before or after the present hour, to the end of another."""
    present = now_ms() // HOUR_MS * HOUR_MS
    return present + first * HOUR_MS, present + (last + 1) * HOUR_MS


def a_take(counter: str = "a", *, limit: int = 10, amount: int = 1, unit: Unit = "nusd", enforce: bool = True) -> Take:
    """Of a window of eleven hours with the present in its middle."""
    start_ms, end_ms = hours(-5, 5)
    return Take(
        counter=counter,
        budget=f"budget-{counter}",
        unit=unit,
        limit=limit,
        amount=amount,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        enforce=enforce,
    )


def an_endless_take(counter: str = "ever", *, limit: int = 10, amount: int = 1, unit: Unit = "nusd") -> Take:
    return Take(
        counter=counter,
        budget=f"budget-{counter}",
        unit=unit,
        limit=limit,
        amount=amount,
        window_start_ms=0,
        window_end_ms=0,
    )


def a_rolling_take(
    counter: str = "rolling", *, limit: int = 10, amount: int = 1, length_h: int = 6, ago_h: int = 0
) -> Take:
    """In sub-buckets of an hour; admitted so many hours ago."""
    start_ms, end_ms = hours(-length_h - ago_h, -ago_h)
    return Take(
        counter=counter,
        budget=f"budget-{counter}",
        unit="nusd",
        limit=limit,
        amount=amount,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        bucket_ms=HOUR_MS,
    )
