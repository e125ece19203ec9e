"""Takes for calls: what a call takes of the counters of the budgets that it meets.

Calls of one caller meet the same budgets in the same windows, so all but the amounts is worked out once, in a frame,
and serves until a window turns. A `Take` of its own is made only where somebody looks at one: most calls pass, and
nobody does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import itemgetter
from typing import Any, overload

import msgspec

from .admission import Take, admission_span
from .budgets import Budget, Raises, Scope, Scopes, Use
from .expected import Estimate
from .price_tables import FOREVER_MS


class Frame:
    """What the takes of calls alike have in common.

    templates       the takes, with an amount of 0
    several, pick   one budget for each amount that may differ; picks for each take, out of one thing for each of
                    those, the one that is its own
    since, until    ms of the store's clock between which the windows are these
    remembered      what others work out of the frame, by their own names
    """

    __slots__ = ("budgets", "pick", "raises", "remembered", "several", "since_ms", "templates", "until_ms")

    def __init__(self, scopes: Sequence[Scope], now_ms: int, raises: Raises | None) -> None:
        self.budgets: tuple[Budget, ...] = tuple([scope.budget for scope in scopes])
        self.several, places = alike(self.budgets)
        self.pick = picker(places)
        self.templates = tuple([template_of(scope, now_ms, raises) for scope in scopes])
        self.raises = raises
        spans = [admission_span(take) for take in self.templates]
        ends = [end_ms for _, end_ms in spans if end_ms]
        ends += [more.until_ms for scope in scopes for more in raised(scope, raises) if more.until_ms > now_ms]
        self.since_ms = max((start_ms for start_ms, end_ms in spans if end_ms), default=0)
        self.until_ms = min(ends, default=FOREVER_MS)
        self.remembered: dict[Hashable, Any] = {}

    def serves(self, now_ms: int, raises: Raises | None) -> bool:
        """Whether it is the frame of this moment."""
        return self.since_ms <= now_ms < self.until_ms and self.raises is raises


class Taken(Sequence[Take]):
    """What one call takes of each of its counters: a frame and the amounts. `several`: the amounts that may differ."""

    __slots__ = ("_estimate", "_takes", "amounts", "frame", "several")

    def __init__(self, frame: Frame, estimate: Estimate) -> None:
        self.frame = frame
        self.several = [budget.amount(estimate) for budget in frame.several]
        self.amounts: tuple[int, ...] = frame.pick(self.several)
        self._estimate = estimate
        self._takes: list[Take] | None = None

    @property
    def takes(self) -> list[Take]:
        """One by one, for whoever looks closer."""
        if self._takes is None:
            self._takes = [
                msgspec.structs.replace(template, amount=amount, grows=budget.grows(self._estimate))
                for template, amount, budget in zip(self.frame.templates, self.amounts, self.frame.budgets, strict=True)
            ]
        return self._takes

    def __len__(self) -> int:
        return len(self.amounts)

    def __iter__(self) -> Iterator[Take]:
        return iter(self.takes)

    @overload
    def __getitem__(self, place: int) -> Take: ...
    @overload
    def __getitem__(self, place: slice) -> list[Take]: ...
    def __getitem__(self, place: int | slice) -> Take | list[Take]:
        return self.takes[place]


def takes_for(scopes: Sequence[Scope], estimate: Estimate, now_ms: int, raises: Raises | None = None) -> Sequence[Take]:
    """What a call takes of each of its counters, in the order of `scopes`. `now_ms` by the clock of the store."""
    if not scopes:
        return ()
    raises = raises or None
    if not isinstance(scopes, Scopes):
        return Taken(Frame(scopes, now_ms, raises), estimate)
    frame: Frame | None = scopes.frame
    if frame is None or not frame.serves(now_ms, raises):
        frame = scopes.frame = Frame(scopes, now_ms, raises)
    return Taken(frame, estimate)


def alike(budgets: Sequence[Budget]) -> tuple[list[Budget], list[int]]:
    """Budgets that take different amounts of calls, and for each budget the place of the one that takes what it takes:
    many count the expected cost, over another scope or window."""
    several: dict[Hashable, Budget] = {}
    kinds = [(budget.unit, budget.reserve, budget.unbounded_nusd) for budget in budgets]
    for kind, budget in zip(kinds, budgets, strict=True):
        several.setdefault(kind, budget)
    order = list(several)
    return list(several.values()), [order.index(kind) for kind in kinds]


def picker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What picks from these places of a list."""
    if len(places) > 1:
        return itemgetter(*places)  # a loop takes ten times as long
    return lambda several: tuple([several[place] for place in places])


def template_of(scope: Scope, now_ms: int, raises: Raises | None) -> Take:
    """A take of this counter, of nothing yet."""
    budget = scope.budget
    start_ms, end_ms, bucket_ms = budget.every.window(now_ms)
    return Take(
        counter=scope.counter,
        budget=budget.name,
        unit=budget.unit,
        limit=budget.limit_for(scope.values, raises, now_ms, org=scope.org),
        amount=0,
        window_start_ms=start_ms,
        window_end_ms=end_ms,
        bucket_ms=bucket_ms,
        enforce=budget.enforced,
    )


def raised(scope: Scope, raises: Raises | None) -> Sequence[Any]:
    """The raises of this counter."""
    return raises.get((scope.budget.name, scope.values), ()) if raises else ()


def other_model(scopes: Sequence[Scope], dialect: str) -> str | None:
    """The model to offer beside the one asked for, by the first budget that has one for the dialect."""
    if isinstance(scopes, Scopes) and not scopes.offers_models:
        return None
    for scope in scopes:
        then = scope.budget.then
        if isinstance(then, Use) and scope.budget.mode == "enforce" and dialect in then.models:
            return then.models[dialect]
    return None
