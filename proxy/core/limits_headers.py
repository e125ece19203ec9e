"""`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-11): what each budget allows and has left.

Both are lists of structured fields (RFC 9651), whose integers have at most 15 digits, so that money is told in
micro-USD, and what is left of it rounded down.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

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


class _Told(NamedTuple):
    """One budget of a frame, as far as its header is always the same."""

    place: int
    beginning: str
    per: int
    limit: int
    resets_at_ms: int


def _told_of_frame(takes: Taken, states: Sequence[State], now_ms: int, admitted: bool) -> list[tuple[str, str]]:
    """The same for calls alike, whose budgets have the same names, limits and windows."""
    remembered, amounts, parts = takes.frame.remembered, takes.amounts, []
    policy, told = remembered.get("limits") or _remember_limits(takes.frame)
    for (place, beginning, per, limit, _), end in zip(told, _ends(remembered, told, now_ms), strict=True):
        state = states[place]
        left = limit - state.spent - state.held - (amounts[place] if admitted else 0)
        parts.append(f"{beginning}{min(left // per, INTEGER_MAX) if left > 0 else 0}{end}")
    return [("ratelimit-policy", policy), ("ratelimit", ", ".join(parts))] if parts else []


def _ends(remembered: dict[Hashable, Any], told: list[_Told], now_ms: int) -> list[str]:
    """The seconds until each budget's window turns; the same for all calls of one second of each window."""
    at_s, ends = remembered.get("ends") or (None, [])
    if at_s != now_ms // 1000:
        ends = [f";t={max(0, -((now_ms - one.resets_at_ms) // 1000))}" if one.resets_at_ms else "" for one in told]
        remembered["ends"] = (now_ms // 1000, ends)
    return ends


def _remember_limits(frame: Frame) -> tuple[str, list[_Told]]:
    listed = [(place, take) for place, take in enumerate(frame.templates) if take.enforce and take.limit < NUSD_MAX]
    told = [
        _Told(
            place,
            f'"{take.budget}";r=',
            NUSD_PER_MICRO_USD if take.unit == "nusd" else 1,
            take.limit,
            0 if take.bucket_ms else take.window_end_ms,
        )
        for place, take in listed
    ]
    known = frame.remembered["limits"] = (", ".join([_policy(take) for _, take in listed]), told)
    return known


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
