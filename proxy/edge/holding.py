"""Holding: what a call takes of its budgets, steps 4 and 5 of the walk. Plans the takes, reserves them in one round
trip, and finds another way where the first does not fit: a lower limit on the output, or another model."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import msgspec

from ..core.admission import Reserved, Take, fits
from ..core.budget_refusals import refusal_for, shadow_rules, warnings_for
from ..core.budgets import Raises, Scope, StoreOutage, Use, asks_for_bound, other_model, takes_for
from ..core.call import Call
from ..core.caller import Caller
from ..core.expected import Estimate, Learned, foresee, subject_of
from ..core.limits_headers import limit_headers
from ..core.policy import Policy, Upstream
from ..core.prices import Prices
from ..core.record import Record
from ..core.refusal import Refusal, header_text
from ..core.settlement import put_cost
from ..core.trim import trimmed_output
from ..store.calls import CallStore, StoreUnavailable, WindowMoved
from ..wire import takes_other_model, takes_output_limit
from .sentences import store_away

OUTAGE_MEMORY_S = 60.0
"""What was let through while the store was away counts against an allowance for this long after the last such call,
so that a store that comes and goes gives no fresh allowance each time."""
WINDOW_TRIES = 3
"""A window may turn between our look at the clock and the store's; three times in a row is a clock that runs wild."""
STEP_SHARE = 4
"""A stream that outgrows its hold takes a quarter of it more at a time."""


class Way(msgspec.Struct, kw_only=True):
    """One way in which a call may be made: as asked, or with another model."""

    call: Call
    scopes: tuple[Scope, ...]
    estimate: Estimate
    takes: list[Take] = []


class Plan(msgspec.Struct, kw_only=True):
    """A call, the ways in which it may be made, and which one it was.

    output_limit   the limit that has to be put into the body; None: it stays as it is
    headers        `RateLimit` and `RateLimit-Policy` of its answer
    held_tokens    output tokens that the hold covers; a stream beyond them takes more
    """

    caller: Caller
    upstream: Upstream
    ways: list[Way]
    chosen: int = 0
    output_limit: int | None = None
    headers: list[tuple[str, str]] = []
    held_tokens: int = 0
    outage_rules: tuple[str, ...] = ()
    """The rules by whose allowance it was let through while the store was away."""

    @property
    def way(self) -> Way:
        return self.ways[self.chosen]

    @property
    def other_model(self) -> str | None:
        """The model that is used in place of the one asked for."""
        return self.way.call.model if self.chosen else None


class Holder:
    """Takes and keeps holds for the calls of one process."""

    def __init__(
        self,
        *,
        store: CallStore,
        prices: Callable[[], Prices],
        raises: Callable[[], Raises],
        learned: Learned,
    ) -> None:
        self._store = store
        self._prices = prices
        self._raises = raises
        self._learned = learned
        self._outage_nusd: dict[str, int] = {}
        self._outage_at_s = 0.0

    def plan(self, policy: Policy, caller: Caller, call: Call, upstream: Upstream, at_ms: int) -> Plan:
        """4  What the call will cost, and of which budgets that is taken."""
        way = self._way(policy, caller, call, upstream, at_ms)
        plan = Plan(caller=caller, upstream=upstream, ways=[way])
        model = other_model(way.scopes, call.dialect)
        if model is not None and model != call.model and takes_other_model(call):
            other = msgspec.structs.replace(call, model=model)
            plan.ways.append(self._way(policy, caller, other, upstream, at_ms))
        return plan

    def _way(self, policy: Policy, caller: Caller, call: Call, upstream: Upstream, at_ms: int) -> Way:
        scopes = policy.scopes_for(caller, call, upstream)
        estimate = foresee(
            call,
            subject_of(caller, upstream.provider, call.model),
            learned=self._learned,
            prices=self._prices(),
            upstream=upstream,
            max_output_tokens=policy.defaults.max_output_tokens,
            at_ms=at_ms,
            worst=asks_for_bound(scopes),
        )
        return Way(call=call, scopes=scopes, estimate=estimate)

    async def reserve(self, record: Record, plan: Plan, policy: Policy) -> Refusal | None:
        """5  Takes what the call needs of all its budgets at once, or says no. The record is the draft that stands if
        this process dies. After None the call must be settled."""
        self._draft(record, plan)
        try:
            reserved = await self._take(record, plan)
        except StoreUnavailable as away:
            return await self._without_store(record, plan, policy, str(away))
        if not reserved.admitted and (tokens := self._trimmed(record, plan, policy, reserved)) is not None:
            lower = msgspec.structs.replace(plan.ways[0].call, max_output_tokens=tokens)
            plan.ways = [self._way(policy, plan.caller, lower, plan.upstream, record.at_ms)]
            plan.output_limit = tokens
            self._draft(record, plan)
            try:
                reserved = await self._take(record, plan)
            except StoreUnavailable as away:
                return await self._without_store(record, plan, policy, str(away))
        first = plan.ways[0]
        if not reserved.admitted:
            plan.headers = limit_headers(first.takes, reserved.states, now_ms=reserved.now_ms, admitted=False)
            return refusal_for(first.scopes, first.takes, reserved, run_s=first.estimate.run_s)
        plan.chosen = reserved.choice
        self._admitted(record, plan, reserved)
        return None

    def _draft(self, record: Record, plan: Plan) -> None:
        estimate = plan.ways[0].estimate
        record.usage, record.usage_source = estimate.usage, "estimated"
        put_cost(record, estimate.cost)
        record.hold_nusd, record.estimate = estimate.expected_nusd, estimate.explained()

    async def _take(self, record: Record, plan: Plan) -> Reserved:
        """One round trip; more only where a window turned meanwhile."""
        now_ms = self._store.now_ms()
        for _ in range(WINDOW_TRIES):
            for way in plan.ways:
                way.takes = takes_for(way.scopes, way.estimate, now_ms, self._raises())
            try:
                return await self._store.reserve(record, [way.takes for way in plan.ways])
            except WindowMoved as moved:
                now_ms = moved.now_ms
        raise StoreUnavailable("the store's clock and this proxy's do not agree")

    def _admitted(self, record: Record, plan: Plan, reserved: Reserved) -> None:
        way = plan.way
        plan.held_tokens = way.estimate.usage.output
        if way.estimate.limit_missing and asks_for_bound(way.scopes) and takes_output_limit(way.call):
            plan.output_limit = way.estimate.output_tokens  # the worst case is one only with a limit on the output
        if plan.chosen:
            asked = plan.ways[0]
            record.rule = rule = in_the_way(asked, way, reserved)
            record.model = way.call.model
            text = f"{rule}; model `{way.call.model}` is used in place of `{asked.call.model}`"
            record.warnings = [*record.warnings, header_text(text)]
            record.estimate = way.estimate.explained() | {"model": way.call.model}
            record.hold_nusd = way.estimate.expected_nusd
        if reserved.states:
            record.warnings = [*record.warnings, *warnings_for(way.scopes, way.takes, reserved.states)]
            record.shadow = [*record.shadow, *shadow_rules(way.scopes, way.takes, reserved.states)]
            plan.headers = limit_headers(way.takes, reserved.states, now_ms=reserved.now_ms, admitted=True)

    def _trimmed(self, record: Record, plan: Plan, policy: Policy, reserved: Reserved) -> int | None:
        """The limit on the output with which the call fits, where the budgets in its way ask for that."""
        way = plan.ways[0]
        if not takes_output_limit(way.call):
            return None

        def estimate_with(tokens: int) -> Estimate:
            lower = msgspec.structs.replace(way.call, max_output_tokens=tokens)
            return self._way(policy, plan.caller, lower, plan.upstream, record.at_ms).estimate

        return trimmed_output(way.call, way.estimate, way.scopes, way.takes, reserved, estimate_with=estimate_with)

    # -- while the store is away ----------------------------------------------------------------------------------

    async def _without_store(self, record: Record, plan: Plan, policy: Policy, reason: str) -> Refusal | None:
        """What the rules say of a call whose budgets cannot be asked: refuse, allow, or allow up to an amount."""
        if monotonic() - self._outage_at_s > OUTAGE_MEMORY_S:
            self._outage_nusd.clear()
        rules = outage_rules(plan.way.scopes, policy)
        for rule, allowed in rules.items():
            spent = self._outage_nusd.get(rule, 0) + record.hold_nusd
            if allowed == "refuse" or (isinstance(allowed, int) and spent > allowed):
                # The store may have taken the hold all the same, and only its reply was late.
                await self._store.release(record.call_id, record.org)
                return msgspec.structs.replace(store_away(reason), rule=rule or None)
        self._outage_at_s = monotonic()
        plan.outage_rules = tuple(rules)
        for rule in rules:
            self._outage_nusd[rule] = self._outage_nusd.get(rule, 0) + record.hold_nusd
        record.degraded = True
        plan.held_tokens = plan.way.estimate.usage.output
        now_ms = self._store.now_ms()
        plan.way.takes = takes_for(plan.way.scopes, plan.way.estimate, now_ms, self._raises())
        self._store.keep(record, plan.way.takes)  # the hold is registered as soon as the store is back
        return None

    # -- while the call runs, and after it ------------------------------------------------------------------------

    async def outgrow(self, record: Record, plan: Plan, seen_tokens: int) -> Refusal | None:
        """A stream has made more than its hold covers: it takes another step. A refusal where a budget with
        `when_outgrown: cut` has not so much left; with `finish` the stream goes on all the same."""
        way = plan.way
        more = max(seen_tokens - plan.held_tokens, way.estimate.usage.output // STEP_SHARE, 1)
        rate = way.estimate.expected_nusd / max(1, way.estimate.expected_tokens)
        usage = msgspec.structs.replace(way.estimate.usage, input=0, output=more, requests={})
        cost = self._prices().cost(
            provider=record.provider, model=record.model, usage=usage, at_ms=record.at_ms, upstream=record.upstream
        )
        nusd = cost.cost_nusd if cost.cost_nusd is not None else int(more * rate)
        plan.held_tokens += more
        cut = next((scope for scope in way.scopes if scope.budget.when_outgrown == "cut" and enforced(scope)), None)
        try:
            fits = await self._store.extend(record.call_id, record.org, nusd=nusd, tokens=more, force=cut is None)
        except StoreUnavailable:
            return None  # the settle will say what it came to
        if fits or cut is None:
            return None
        budget = cut.budget
        record.rule = budget.name
        return Refusal(
            code="budget_spent",
            sentence=f"budget `{budget.name}` has no more left for this answer (`when_outgrown: cut`), so it ends here",
            rule=budget.name,
        )

    def settled(self, record: Record, plan: Plan, *, answer_s: float, cut: bool) -> None:
        """Learns from a call that was reported in full, and puts right what it counted while the store was away."""
        for rule in plan.outage_rules:
            if rule in self._outage_nusd:
                self._outage_nusd[rule] += (record.cost_nusd or 0) - record.hold_nusd
        if record.usage_source == "reported" and not cut and record.result == "ok":
            call = plan.way.call
            subject = subject_of(plan.caller, plan.upstream.provider, call.model)
            self._learned.learn(subject, call, record.usage, answer_s=answer_s)


def in_the_way(asked: Way, used: Way, reserved: Reserved) -> str:
    """The budget for whose sake another model is used. The store tells what the counters of the model that is used
    stand at; where those of the one that was asked for are others, it is the budget that names another model."""
    states = {take.counter: state for take, state in zip(used.takes, reserved.states, strict=False)}
    for take in asked.takes:
        state = states.get(take.counter)
        if take.enforce and state is not None and not fits(take, state):
            return take.budget
    return next(scope.budget.name for scope in asked.scopes if isinstance(scope.budget.then, Use))


def enforced(scope: Scope) -> bool:
    return scope.budget.enforced


def outage_rules(scopes: tuple[Scope, ...], policy: Policy) -> dict[str, StoreOutage]:
    """What each budget of a call says of a store that is away; the defaults, under "", for calls without any."""
    fallback = policy.defaults.store_outage
    rules = {
        scope.budget.name: fallback if scope.budget.store_outage is None else scope.budget.store_outage
        for scope in scopes
        if scope.budget.enforced
    }
    return rules or {"": fallback}
