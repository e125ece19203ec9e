"""Budgets: limits over a scope and a window, which of them a call meets, and what it takes of each.

A policy may hold thousands of budgets, of which a call meets a handful. They are found by the literal values that they
match on, and what was found for one caller is remembered for the next call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from .admission import Unit
from .amounts import told_amount
from .call import Call
from .caller import Caller
from .expected import Estimate
from .globs import ABSENT
from .matching import Condition, Match, Read, Upstream, reader_of
from .money import NUSD_MAX, NUSD_PER_USD
from .windows import Every

MAX_COST_RULE = "max-cost"
"""What the `max_cost` of a task key is called in records and headers; no rule in a file can have the name."""

UNBOUNDED_NUSD_DEFAULT = NUSD_PER_USD // 4
UNBOUNDED_LIMIT_SHARE = 10
"""What an unbounded call holds at least: $0.25, and of a small budget no more than a tenth."""

SCOPES_REMEMBERED = 2_000
"""Callers whose budgets are remembered; emptied when full. Callers choose task names, so the memory is bounded."""

COUNTER_BYTES = 8
"""Of the digest that names a counter: with ten million counters two meet by chance once in 400,000 shards."""

Reserve = Literal["expected", "worst_case"] | int
StoreOutage = Literal["refuse", "allow"] | int


class Use(msgspec.Struct, frozen=True):
    """The other model to go on with, by dialect."""

    models: dict[str, str]


class Raise(msgspec.Struct, frozen=True, kw_only=True):
    """More room in one counter of a budget for a while, as `callmeter budgets raise` gives it. `by` is in the budget's
    unit; `values` are those of `per`, as `Scope.values` shows them."""

    budget: str
    values: tuple[str, ...]
    by: int
    until_ms: int
    org: str | None = None
    """None: of whatever org."""


Raises = Mapping[tuple[str, tuple[str, ...]], Sequence[Raise]]
"""All raises by budget and values."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """One budget of the policy. Amounts in nano-USD, tokens, calls or running calls, by `unit`.

    per             fields whose values have a counter each; without any, one counter for the org
    limits          exceptions: values of `per`, joined by `/` -> limit
    reserve         what a call holds while it runs; a number is a fixed amount in nano-USD
    unbounded_nusd  what a call without a bound holds at least
    warn_at         thousandths of the limit from which answers carry a warning, ascending
    store_outage    None: as `defaults` say
    unproven        it is a rule of `unproven`: what a task may cost in a window in which it has no outcome
    """

    name: str
    match: Match = Match()
    per: tuple[str, ...] = ("org",)
    unit: Unit = "nusd"
    limit: int
    limits: dict[str, int] = {}
    every: Every
    reserve: Reserve = "expected"
    unbounded_nusd: int = UNBOUNDED_NUSD_DEFAULT
    when_outgrown: Literal["finish", "cut"] = "finish"
    trim: bool = False
    warn_at: tuple[int, ...] = ()
    then: Literal["refuse", "warn"] | Use = "refuse"
    mode: Literal["enforce", "shadow"] = "enforce"
    store_outage: StoreOutage | None = None
    help: str = ""
    unproven: bool = False
    identity: str = ""
    """What makes its counters its own; worked out, whatever is given. Limit and match are not among it: changing them
    keeps what was spent."""

    def __post_init__(self) -> None:
        identity = _encode((self.name, self.per, self.unit, self.every.identity)).decode()
        msgspec.structs.force_setattr(self, "identity", identity)

    @property
    def enforced(self) -> bool:
        """Whether it can keep a call from passing as it was asked for."""
        return self.mode == "enforce" and self.then != "warn"

    def counter(self, caller: Caller, call: Call, upstream: Upstream) -> tuple[str, tuple[str, ...]]:
        """The id of the counter that a call falls into, and its values of `per` (`none` where there is none).

        Orgs never share a counter, and calls without a task have one for each user, not one for all.
        """
        digest, seen = counter_of(self.identity, self.per, caller, call, upstream)
        return digest, tuple([value or ABSENT for value in seen])

    def limit_for(
        self, values: tuple[str, ...], raises: Raises | None = None, now_ms: int = 0, *, org: str = ""
    ) -> int:
        """The limit of one counter, with exceptions and with the raises in force."""
        limit = self.limits.get("/".join(values), self.limit) if self.limits else self.limit
        for more in raises.get((self.name, values), ()) if raises else ():
            if now_ms < more.until_ms and more.org in (None, org):
                limit += more.by
        return min(limit, NUSD_MAX)

    def amount(self, estimate: Estimate) -> int:
        """What a call holds, in this budget's unit."""
        if self.unit == "nusd":
            if isinstance(self.reserve, int):
                return self.reserve
            if estimate.unbounded:
                return max(estimate.expected_nusd, self.unbounded_nusd)
            return estimate.worst_nusd if self.reserve == "worst_case" else estimate.expected_nusd
        if self.unit == "tokens":
            return estimate.worst_tokens if self.reserve == "worst_case" else min(estimate.expected_tokens, NUSD_MAX)
        return 1

    def grows(self, estimate: Estimate) -> bool:
        """Whether a call may outgrow what it holds here: anything but a bound on it."""
        return self.reserve != "worst_case" or bool(estimate.unbounded)

    def told(self, amount: int) -> str:
        """An amount in this budget's unit, for a person."""
        return told_amount(self.unit, amount)


_encode = msgspec.json.Encoder().encode


def counter_of(
    identity: str, per: tuple[str, ...], caller: Caller, call: Call, upstream: Upstream
) -> tuple[str, list[str | None]]:
    """The id of the counter of a rule that a call falls into, and its values of `per` (None where there is none)."""
    seen = [read(caller, call, upstream) or None for read in map(reader_of, per)]
    apart = caller.user if "task" in per and not caller.task else None
    # As JSON, an absent value can never be mistaken for one that is spelled `none`.
    place = identity.encode() + _encode((caller.org, seen, apart))
    return hashlib.blake2b(place, digest_size=COUNTER_BYTES).hexdigest(), seen


class Scope(msgspec.Struct, frozen=True):
    """A budget that a call meets, and the counter that it falls into there."""

    budget: Budget
    counter: str
    values: tuple[str, ...]
    org: str = ""

    @property
    def told(self) -> str:
        """For whom the counter is: ``user `ada` ``."""
        return ", ".join(f"{field} `{value}`" for field, value in zip(self.budget.per, self.values, strict=True))


class Scopes(tuple[Scope, ...]):
    """The scopes of calls alike, remembered for the next one.

    frame            what `takes.py` remembers with them
    asks_for_bound   some budget holds the worst case: the estimate needs a bound, and the call a limited output
    offers_models    some budget has another model to go on with
    speaks           some budget may have something to say of a call that passes
    cutting          the budgets that may cut a stream, by counter
    fixed_nusd       the least that some budget holds of every call, whatever it may cost; None: none does that
    """

    frame: Any
    asks_for_bound: bool
    offers_models: bool
    speaks: bool
    cutting: dict[str, Scope]
    fixed_nusd: int | None

    def __new__(cls, scopes: Iterable[Scope]) -> Scopes:
        made = super().__new__(cls, scopes)
        made.frame = None
        made.asks_for_bound = any(scope.budget.reserve == "worst_case" for scope in made)
        made.offers_models = any(isinstance(scope.budget.then, Use) for scope in made)
        made.speaks = any(scope.budget.warn_at or not scope.budget.enforced for scope in made)
        made.cutting = {
            scope.counter: scope for scope in made if scope.budget.when_outgrown == "cut" and scope.budget.enforced
        }
        fixed = [scope.budget.reserve for scope in made if isinstance(scope.budget.reserve, int)]
        made.fixed_nusd = min(fixed, default=None)
        return made


NO_SCOPES = Scopes(())


class BudgetIndex:
    """The budgets of a policy, found by what a call is."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = tuple(budgets)
        self._always: list[int] = []
        self._literal: dict[str, dict[str | None, list[int]]] = {}
        self._prefix: dict[str, dict[int, dict[str, list[int]]]] = {}
        fields: dict[str, None] = {"org": None}
        for place, budget in enumerate(self._budgets):
            self._place(place, budget)
            fields |= dict.fromkeys((*budget.match.fields, *budget.per))
            if "task" in budget.per:
                fields["user"] = None
        self._reads: tuple[Read, ...] = tuple(reader_of(field) for field in fields)
        self._remembered: dict[tuple[Any, ...], Scopes] = {}

    def scopes(self, caller: Caller, call: Call, upstream: Upstream) -> Scopes:
        """The budgets that a call meets, in the order of the policy, with its counter in each; last the ones of its
        task key."""
        if not self._budgets and not caller.max_cost_nusd:
            return NO_SCOPES
        key = (*[read(caller, call, upstream) for read in self._reads], *caller.max_cost_nusd.items())
        scopes = self._remembered.get(key)
        if scopes is None:
            met = self.matching(caller, call, upstream)
            own = [Scope(budget, *budget.counter(caller, call, upstream), caller.org) for budget in met]
            scopes = Scopes([*own, *max_cost_scopes(caller)])
            if len(self._remembered) >= SCOPES_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = scopes
        return scopes

    def matching(self, caller: Caller, call: Call, upstream: Upstream) -> list[Budget]:
        """The budgets of the policy that a call meets, in their order."""
        places = list(self._always)
        for field, literals in self._literal.items():
            places += literals.get(reader_of(field)(caller, call, upstream) or None, ())
        for field, lengths in self._prefix.items():
            value = reader_of(field)(caller, call, upstream) or ""
            for length, prefixes in lengths.items():
                places += prefixes.get(value[:length], ())
        found = (self._budgets[place] for place in sorted(set(places)))
        return [budget for budget in found if budget.match.matches(caller, call, upstream)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BudgetIndex) and other._budgets == self._budgets

    def __hash__(self) -> int:
        return hash(tuple(budget.name for budget in self._budgets))

    def _place(self, place: int, budget: Budget) -> None:
        """Files a budget under the condition that leaves the fewest calls: a longer text fits fewer values."""
        condition = max(budget.match.conditions, key=_shortest, default=None)
        if condition is None or not _shortest(condition):
            self._always.append(place)
            return
        for pattern in condition.globs.patterns:
            prefix = _before_wildcard(pattern)
            if prefix == pattern:
                literals = self._literal.setdefault(condition.field, {})
                literals.setdefault(pattern, []).append(place)
                if pattern == ABSENT:
                    literals.setdefault(None, []).append(place)
            else:
                lengths = self._prefix.setdefault(condition.field, {})
                lengths.setdefault(len(prefix), {}).setdefault(prefix, []).append(place)


def _before_wildcard(pattern: str) -> str:
    """The text with which every value begins that the pattern fits."""
    return pattern.split("*", 1)[0].split("?", 1)[0]


_BROAD = ("org", "upstream", "provider", "api", "task_source")
"""Fields with few values, each of which many calls have."""


def _shortest(condition: Condition) -> int:
    """How well a condition tells calls apart: the shortest text that its patterns begin with; 0 where it cannot."""
    shortest = min(len(_before_wildcard(pattern)) for pattern in condition.globs.patterns)
    return min(shortest, 1) if condition.field in _BROAD else shortest * 2


def max_cost_scopes(caller: Caller) -> tuple[Scope, ...]:
    """The budgets that a task key brings along: one for the chain up to each of its `max_cost` caveats."""
    return tuple([_max_cost_scope(caller.org, chain, limit) for chain, limit in caller.max_cost_nusd.items()])


@lru_cache(maxsize=SCOPES_REMEMBERED)
def _max_cost_scope(org: str, chain: str, limit: int) -> Scope:
    digest = hashlib.blake2b(MAX_COST_RULE.encode(), digest_size=COUNTER_BYTES)
    digest.update(_encode((org, chain)))
    unbounded = min(UNBOUNDED_NUSD_DEFAULT, limit // UNBOUNDED_LIMIT_SHARE)
    budget = Budget(name=MAX_COST_RULE, per=(), limit=limit, every=Every.parse("ever"), unbounded_nusd=unbounded)
    return Scope(budget, digest.hexdigest(), ())
