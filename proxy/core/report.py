"""Report: what calls came to and what became of the money, row by row. Pure; rows stand in the order of their names.

There is no other order, on purpose: a list of people by use is what this product exists to replace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add, itemgetter
from typing import Any

import msgspec

from .attribution import FATES, Spread, median, share, spread
from .outcomes import Team
from .usage import TOKEN_FIELDS

WEEK_MS = 7 * 86_400_000
PEOPLE_MIN = 5
"""Groups of fewer people are not shown apart where it is about how they work."""

Values = tuple[str, ...]


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An outcome that was decided in the time of a report: `accepted`, or undone.

    cost_nusd   its share of what its task cost
    lead_ms     from the first call of its task to its acceptance; None where no call of it is known
    """

    key: str
    rule: str
    kind: str
    weight: int
    accepted: bool
    cost_nusd: int
    lead_ms: int | None


class Before(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The window before, of the same length."""

    cost_nusd: int = 0
    accepted_outcomes: int = 0
    cost_per_accepted_nusd: int | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a team delivered. `cost_per_unit_nusd` is all that it spent over its units; None: it delivered none."""

    unit: str
    size: int
    units: int
    cost_per_unit_nusd: int | None
    units_per_person_week: float


class Tally:
    """One row while it is added up: sums by name, what became of the money, and the changes that were decided.

    `sums` and `fates` are empty until something is added.
    """

    __slots__ = ("before_changes", "before_nusd", "changes", "fates", "sums")

    def __init__(self) -> None:
        self.sums: Sequence[int] = ()
        self.fates: Sequence[int] = ()
        self.changes: list[Change] = []
        self.before_nusd = 0
        self.before_changes: list[Change] = []

    def add(self, sums: Sequence[int], became: Sequence[int]) -> None:
        self.sums = list(map(add, self.sums, sums)) if self.sums else sums
        self.fates = list(map(add, self.fates, became)) if self.fates else became


class Row(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Sums of calls. `values` belong to the report's `by`, in its order; None is an absent task, agent or the like.

    `cost_nusd` leaves out the `unpriced_calls` and contains the guess for the `assumed_calls`; `became` cuts it by
    FATES, exactly. `usage` has the record's fields, with `requests` as one number and `audio_ms` for its seconds.
    Outcomes count by their weight. What is about how people work is None in a row of one person.
    """

    values: tuple[str | None, ...]
    calls: int
    refused: int
    failed: int
    client_gone: int
    lost: int
    shadow_refused: int
    unpriced_calls: int
    assumed_calls: int
    repeat_calls: int
    repeat_nusd: int
    cost_nusd: int
    list_nusd: int
    tokens: int
    usage: dict[str, int]
    became: dict[str, int] | None = None
    accepted_outcomes: int | None = None
    undone_outcomes: int | None = None
    cost_per_accepted_nusd: Spread | None = None
    lead_ms: int | None = None
    unproven_share: float | None = None
    undone_share: float | None = None
    repeated_share: float | None = None
    before: Before | None = None
    delivery: Delivery | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Rows by name, and their total, which is exactly their sum. `outcomes` tells what the outcomes in `by` are."""

    by: tuple[str, ...]
    since_ms: int
    until_ms: int
    rows: list[Row]
    total: Row
    outcomes: dict[str, dict[str, Any]] = {}
    withheld: list[str] = []
    """Teams whose delivery is not shown, since they are fewer than PEOPLE_MIN people."""


class Shape:
    """How a row is made of its sums: the names of sums, which of them are usage, and which are counted apart.

    A report of tasks has tens of thousands of rows, so each is made with few steps.
    """

    def __init__(self, names: Sequence[str], usage: Sequence[str], counts: Sequence[str]) -> None:
        self.nothing = (0,) * len(names)
        self.usage = tuple(usage)
        self.counts = tuple(counts)
        self.usage_of, self.counts_of, self.tokens_of, self.heads_of = (
            itemgetter(*map(names.index, each))
            for each in (usage, counts, TOKEN_FIELDS, ("calls", "cost_nusd", "list_nusd", "repeat_nusd"))
        )


def row_of(
    values: Values,
    tally: Tally,
    shape: Shape,
    *,
    of_one_person: bool = False,
    with_before: bool = True,
    delivery: Delivery | None = None,
) -> Row:
    """The row that was added up."""
    sums = tally.sums or shape.nothing
    calls, cost_nusd, list_nusd, repeat_nusd = shape.heads_of(sums)
    more: dict[str, Any] = dict(zip(shape.counts, shape.counts_of(sums), strict=True))
    if not of_one_person:
        more |= work_of(tally, cost_nusd, repeat_nusd)
        more["before"] = before_of(tally) if with_before else None
    return Row(
        values=tuple([value or None for value in values]),
        calls=calls,
        cost_nusd=cost_nusd,
        list_nusd=list_nusd,
        tokens=sum(shape.tokens_of(sums)),
        usage=dict(zip(shape.usage, shape.usage_of(sums), strict=True)),
        delivery=delivery,
        **more,
    )


def work_of(tally: Tally, cost_nusd: int, repeat_nusd: int) -> dict[str, Any]:
    """The fields of a row that are about how people work."""
    became = dict(zip(FATES, tally.fates, strict=True)) if tally.fates else dict.fromkeys(FATES, 0)
    accepted = weight_of(tally.changes, accepted=True)
    undone = weight_of(tally.changes, accepted=False)
    leads = sorted([change.lead_ms for change in tally.changes if change.accepted and change.lead_ms is not None])
    return {
        "became": became,
        "accepted_outcomes": accepted,
        "undone_outcomes": undone,
        "cost_per_accepted_nusd": spread(costs(tally.changes)),
        "lead_ms": median(leads) if leads else None,
        "unproven_share": share(became["unproven"] + became["for_nothing"], cost_nusd),
        "undone_share": share(undone, accepted + undone),
        "repeated_share": share(repeat_nusd, cost_nusd),
    }


def before_of(tally: Tally) -> Before:
    per_change = spread(costs(tally.before_changes))
    return Before(
        cost_nusd=tally.before_nusd,
        accepted_outcomes=weight_of(tally.before_changes, accepted=True),
        cost_per_accepted_nusd=None if per_change is None else per_change.median,
    )


def weight_of(changes: Sequence[Change], *, accepted: bool) -> int:
    return sum([change.weight for change in changes if change.accepted is accepted])


def costs(changes: Sequence[Change]) -> list[int]:
    """What each accepted change cost; one that counts twice may cost twice as much."""
    return [change.cost_nusd // change.weight for change in changes if change.accepted]


def delivery_of(team: Team, tally: Tally, cost_nusd: int, lasted_ms: int) -> Delivery:
    """Units are accepted changes of the kind that the team names as its own."""
    own = [change for change in tally.changes if change.accepted and team.delivers(change.rule, change.kind)]
    units = weight_of(own, accepted=True)
    return Delivery(
        unit=team.unit,
        size=team.size,
        units=units,
        cost_per_unit_nusd=cost_nusd // units if units else None,
        units_per_person_week=round(units * WEEK_MS / (team.size * lasted_ms), 4) if lasted_ms > 0 else 0.0,
    )


def row_fields(by: Sequence[str], row: Row) -> dict[str, Any]:
    """A row as the API and the CLI show it: the values under their names, then the sums, all in one object."""
    fields: dict[str, Any] = msgspec.to_builtins(row)
    values, became = fields.pop("values"), fields.pop("became")
    shown: dict[str, Any] = dict(zip(by, values, strict=False)) | fields
    shown |= {f"{name}_nusd": None if became is None else became[name] for name in FATES}
    return shown


def in_order(rows: Mapping[Values, Any]) -> list[Values]:
    """By name, the absent last."""
    return sorted(rows, key=lambda values: [(not value, value) for value in values])
