"""Attribution: how an amount is shared out among those it belongs to, in whole numbers that add up to it exactly."""

from __future__ import annotations

from collections.abc import Sequence


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
