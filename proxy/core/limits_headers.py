"""`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): what each budget allows and has left.

Both are lists of structured fields (RFC 9651), whose integers have at most 15 digits, so that money is told in
micro-USD, and what is left of it rounded down.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import msgspec

from .admission import State, Take, Unit
from .money import NUSD_MAX
from .takes import Frame, Taken

INTEGER_MAX = 999_999_999_999_999
NUSD_PER_MICRO_USD = 1_000

LISTED_MAX = 16
"""Of more budgets the ones with the smallest share left are told: a header must not grow with the policy."""

QUOTA_UNITS: dict[Unit, str] = {
    "nusd": "micro-usd",
    "tokens": "tokens",
    "calls": "requests",
    "concurrent": "concurrent-requests",
}
"""The last two are registered, and the first of those is the default."""


def limit_headers(
    takes: Sequence[Take], states: Sequence[State], *, now_ms: int, admitted: bool
) -> list[tuple[str, str]]:
    """The two headers, none where no budget is enforced. One without an end, as of a task that is proven, is no limit.

    takes, states   of the candidate that was admitted, or of the call as it was asked for
    admitted        the call holds its amounts, which are then no longer left
    """
    if isinstance(takes, Taken) and len(takes) <= LISTED_MAX:
        return _told_of_frame(takes, states, now_ms, admitted)
    pairs = [
        (take, _left(take, state, admitted))
        for take, state in zip(takes, states, strict=True)
        if take.enforce and take.limit < NUSD_MAX
    ]
    if not pairs:
        return []
    if len(pairs) > LISTED_MAX:
        pairs = sorted(pairs, key=lambda pair: pair[1] / max(1, pair[0].limit))[:LISTED_MAX]
    return [
        ("ratelimit-policy", ", ".join(_policy(take) for take, _ in pairs)),
        ("ratelimit", ", ".join(_limit(take, left, now_ms) for take, left in pairs)),
    ]


class _Told(msgspec.Struct, frozen=True):
    """What the headers of calls alike have in common: the first, and of each budget in the second its place among the
    takes, beginning, unit (divisor), limit and when its window turns (0: never at once)."""

    policy: str
    budgets: list[tuple[int, str, int, int, int]]


def _told_of_frame(takes: Taken, states: Sequence[State], now_ms: int, admitted: bool) -> list[tuple[str, str]]:
    """The same for calls alike, whose budgets have the same names, limits and windows."""
    remembered, amounts = takes.frame.remembered, takes.amounts
    told: _Told = remembered.get("limits") or _remember_limits(takes.frame)
    if not told.budgets:
        return []
    all_left = []
    for place, _, per, limit, _ in told.budgets:
        state = states[place]
        left = limit - state.spent - state.held - (amounts[place] if admitted else 0)
        if per != 1:
            left //= per
        all_left.append(0 if left < 0 else left if left < INTEGER_MAX else INTEGER_MAX)
    form = _form(remembered, told, now_ms) % tuple(all_left)
    return [("ratelimit-policy", told.policy), ("ratelimit", form)]


def _form(remembered: dict[Hashable, Any], told: _Told, now_ms: int) -> str:
    """The second header with `%d` for what is left, and the seconds until each budget's window turns; the same for all
    calls of one second of each window."""
    at_s, form = remembered.get("form") or (None, "")
    if at_s != now_ms // 1000:
        form = ", ".join([beginning + "%d" + _turns(turns_ms, now_ms) for _, beginning, _, _, turns_ms in told.budgets])
        remembered["form"] = (now_ms // 1000, form)
    return form


def _turns(turns_ms: int, now_ms: int) -> str:
    return f";t={max(0, -((now_ms - turns_ms) // 1000))}" if turns_ms else ""


def _remember_limits(frame: Frame) -> _Told:
    listed = [(place, take) for place, take in enumerate(frame.templates) if take.enforce and take.limit < NUSD_MAX]
    budgets = [
        (
            place,
            f'"{take.budget}";r='.replace("%", "%%"),
            NUSD_PER_MICRO_USD if take.unit == "nusd" else 1,
            take.limit,
            0 if take.bucket_ms else take.window_end_ms,
        )
        for place, take in listed
    ]
    told = frame.remembered["limits"] = _Told(", ".join([_policy(take) for _, take in listed]), budgets)
    return told


def _left(take: Take, state: State, admitted: bool) -> int:
    return max(0, take.limit - state.spent - state.held - (take.amount if admitted else 0))


def _whole(take: Take, amount: int) -> int:
    return min(amount // NUSD_PER_MICRO_USD if take.unit == "nusd" else amount, INTEGER_MAX)


def _policy(take: Take) -> str:
    told = f'"{take.budget}";q={_whole(take, take.limit)}'
    if take.unit != "calls":
        told += f';qu="{QUOTA_UNITS[take.unit]}"'
    if take.window_end_ms:
        length_ms = take.window_end_ms - take.window_start_ms - take.bucket_ms
        told += f";w={-(-length_ms // 1000)}"
    return told


def _limit(take: Take, left: int, now_ms: int) -> str:
    told = f'"{take.budget}";r={_whole(take, left)}'
    if take.window_end_ms and not take.bucket_ms:
        # A rolling window has no moment at which all of it is there again.
        told += f";t={max(0, -(-(take.window_end_ms - now_ms) // 1000))}"
    return told
