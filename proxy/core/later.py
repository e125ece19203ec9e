"""Later: calls whose cost is shown by a later retrieval (background answers, batches), and the hold that stands for it.

Such a call is recorded when it is made, without a cost. What it will come to stays held under an id of its own, until
a retrieval shows the usage, or until HELD_MS is over: then it counts as lost, at what was held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from .admission import Charge, Take
from .expected import Estimate
from .policy import Policy
from .record import Record
from .recorded import seen_in
from .takes import takes_for
from .usage import NO_USAGE, Usage

HELD_MS = 25 * 3600 * 1000
"""Batches end within 24 hours, background answers within minutes. Counters outlive their windows by longer."""

NO_CHARGE = Charge()

ENDED_UNSEEN = frozenset({"failed", "cancelled", "expired"})
"""How a call ends that shows no usage."""


def item_call_id(batch_call_id: str, item_id: str) -> str:
    """The id of an item's record: always the same for the same item of the same batch."""
    return hashlib.sha256(f"{batch_call_id}/{item_id}".encode()).hexdigest()[:32]


def pending_call_id(call_id: str) -> str:
    """The id of the hold that stands for the cost to come."""
    return hashlib.sha256(f"{call_id}:pending".encode()).hexdigest()[:32]


def spending(taken: Sequence[Take]) -> list[Take]:
    """The takes that wait for the cost. The call was counted when it was made, and runs no more as far as we know."""
    return [take for take in taken if take.unit in ("nusd", "tokens")]


def pending(made: Record, taken: Sequence[Take]) -> Record:
    """The draft of that hold: the record that tells of a cost that nobody asked for in time."""
    nusd = max((take.amount for take in taken if take.unit == "nusd"), default=0)
    tokens = max((take.amount for take in taken if take.unit == "tokens"), default=0)
    held_nusd = max(made.hold_nusd, nusd)
    return msgspec.structs.replace(
        made,
        call_id=pending_call_id(made.call_id),
        revision=1,
        usage=Usage(output=tokens),
        usage_source="estimated",
        cost_nusd=held_nusd,
        cost_parts_nusd={},
        list_nusd=held_nusd,
        cost_source="none",
        hold_nusd=held_nusd,
        estimate={},
        upstream_call_id=None,
        parent_span_id=made.span_id,
        span_id="",
        client_span_id="",
    )


def shown_after_all(made: Record) -> Record:
    """Takes the place of that record where the usage was shown later than that. The call was counted by `made`."""
    nothing = pending(made, ())
    return msgspec.structs.replace(nothing, usage=NO_USAGE, usage_source="none", cost_nusd=0, list_nusd=0, hold_nusd=0)


def takes_of(made: Record, known: Sequence[Take], policy: Policy) -> list[Take]:
    """What a call is charged to when its cost is shown: what it took, as far as that is known, and the counters of
    budgets that came since, in the windows of its making."""
    scopes = policy.scopes_for(*seen_in(made, policy.upstreams))
    told = made.estimate
    estimate = Estimate(
        usage=made.usage,
        expected_nusd=made.hold_nusd,
        expected_tokens=told.get("input", 0) + told.get("output", 0),
        worst_nusd=told.get("worst_nusd", 0),
        worst_tokens=told.get("worst_tokens", 0),
        unbounded=tuple(told.get("unbounded", ())),
    )
    counters = {take.counter for take in known}
    others = [take for take in takes_for(scopes, estimate, made.at_ms) if take.counter not in counters]
    return spending([*known, *others])
