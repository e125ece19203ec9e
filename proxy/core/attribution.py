"""Attribution: what became of money, and how it is shared out, in whole numbers that add up exactly.

A task's cost goes to its outcomes, by weight, whatever their state: to those that held (`accepted`), that have yet to
hold (`pending`), that did not (`undone`). The cost of a task without one is `unproven`, and what of it is older than
the window of the `unproven` rule is `for_nothing`: spent for nothing yet. A call without a task is `untasked`. Each
nano-USD is in exactly one of the six.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

FATES = ("accepted", "pending", "undone", "unproven", "for_nothing", "untasked")
"""What can have become of money. Shown as `accepted_nusd` and so on."""
STATES = FATES[:3]


class Mix(NamedTuple):
    """The weights of a task's outcomes by STATES; all 0 where it has none that counts."""

    accepted: int
    pending: int
    undone: int


NO_OUTCOME = Mix(0, 0, 0)


def shares(amount: int, weights: Sequence[int]) -> list[int]:
    """Cuts `amount` in proportion to `weights`, of which one at least is above 0.

    Each share ends where the running sum of weights ends, rounded down, so nothing is lost and nothing is made up;
    the same amount and weights in the same order are always cut in the same places.
    """
    whole = sum(weights)
    found: list[int] = []
    reached = begun = 0
    for weight in weights:
        reached += weight
        ends = amount * reached // whole
        found.append(ends - begun)
        begun = ends
    return found


def fates(amount: int, mix: Mix, *, has_task: bool, is_old: bool) -> list[int]:
    """What became of an amount that one task cost, by FATES. `is_old`: it was spent before the window of the `unproven`
    rule, whose patience it has used up."""
    if any(mix):
        return [*shares(amount, mix), 0, 0, 0]
    found = [0] * len(FATES)
    found[FATES.index("untasked" if not has_task else "for_nothing" if is_old else "unproven")] = amount
    return found


class Spread(msgspec.Struct, frozen=True, gc=False):
    """Some amounts, as a reader should see them: the mean alone is what one dear change makes of it. In nano-USD."""

    median: int
    p25: int
    p75: int
    mean: int


def spread(amounts: Sequence[int]) -> Spread | None:
    """None for no amounts. Quartiles are amounts that occur (nearest rank)."""
    if not amounts:
        return None
    if len(amounts) == 1:  # as in most rows of a report of tasks
        return Spread(amounts[0], amounts[0], amounts[0], amounts[0])
    ordered = sorted(amounts)

    def rank(percent: int) -> int:
        return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]

    return Spread(median(ordered), rank(25), rank(75), sum(ordered) // len(ordered))


def median(ordered: Sequence[int]) -> int:
    """Of amounts in order, one at least: the middle one, or what lies half-way between two."""
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) // 2


def share(part: int, whole: int) -> float | None:
    """A ratio to look at, never to count with; None of nothing."""
    return round(part / whole, 4) if whole else None
