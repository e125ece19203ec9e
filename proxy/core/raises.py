"""Raises: more of a budget for someone, for a while, with a reason. Kept in the ledger; they change no rule."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .admission import Unit
from .budgets import Raise


class GivenRaise(msgspec.Struct, frozen=True, kw_only=True):
    """A raise as it was given.

    scope      each field of the budget's `per`, in its order, with the value that the raise is for
    amount     in the unit of the budget: nano-USD, tokens, calls, concurrent calls
    made_by    who gave it; so far always the holder of the admin token
    """

    id: int = 0
    budget: str
    scope: dict[str, str]
    amount: int
    unit: Unit
    until_ms: int
    reason: str
    made_by: str = "admin"
    at_ms: int


def by_counter(given: Iterable[GivenRaise]) -> dict[tuple[str, tuple[str, ...]], list[Raise]]:
    """As budgets look them up: by name and values of `per`."""
    found: dict[tuple[str, tuple[str, ...]], list[Raise]] = {}
    for each in given:
        values = tuple(each.scope.values())
        more = Raise(budget=each.budget, values=values, by=each.amount, until_ms=each.until_ms)
        found.setdefault((each.budget, values), []).append(more)
    return found
