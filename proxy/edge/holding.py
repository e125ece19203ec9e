"""Holding: what a call takes of its budgets, steps 4 and 5 of the walk. Plans the takes, reserves them in one round
trip, and finds another way where the first does not fit: a lower limit on the output, or another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..core.admission import NoRoom, Reserved, Take, fits
from ..core.budget_refusals import outgrown_refusal, refusal_for, shadow_rules, warnings_for
from ..core.budgets import Raises, Scope, Scopes, Use
from ..core.call import Call
from ..core.caller import Caller
from ..core.expected import Estimate, Learned, foresee, priced, subject_of
from ..core.limits_headers import limit_headers
from ..core.policy import Policy, Upstream
from ..core.prices import Prices
from ..core.record import Record
from ..core.refusal import Refusal, first_by_precedence, header_text
from ..core.settlement import put_cost
from ..core.takes import other_model, takes_for
from ..core.trim import trimmed_output
from ..core.twins import Looked
from ..core.usage import Usage
from ..store.calls import CallStore, StoreUnavailable, WindowMoved
from ..wire import takes_other_model, takes_output_limit
from .comparing import Compared, Comparer, found, put_finding
from .envelope import Envelope
from .outage import Allowed, Outage, outage_rules
from .sentences import store_away

WINDOW_TRIES = 3
"""A window may turn between our look at the clock and the store's; three times in a row is a clock that runs wild."""
STEP_SHARE = 4
"""A stream that outgrows its hold takes a quarter of what it holds more at a time."""


class Way(msgspec.Struct, kw_only=True):
    """One way in which a call may be made: as asked, or with another model."""

    call: Call
    scopes: Scopes
    estimate: Estimate
    takes: Sequence[Take] = ()


class Plan(msgspec.Struct, kw_only=True):
    """A call, the ways in which it may be made, and which one it was.

    output_limit   the limit that has to be put into the body; None: it stays as it is
    headers        `RateLimit` and `RateLimit-Policy` of its answer
    held_tokens    output tokens that the hold covers
    grows_at       a stream that has made more output tokens than these takes more
    cutting        the budgets that may cut it (streams alone), by counter
    unheld_tokens  what a stream has made beyond its hold while the store was away
    allowed        what it was let through with meanwhile
    """

    caller: Caller
    upstream: Upstream
    ways: list[Way]
    chosen: int = 0
    output_limit: int | None = None
    headers: list[tuple[str, str]] = []
    held_tokens: int = 0
    grows_at: int = 0
    unheld_tokens: int = 0
    cutting: dict[str, Scope] = {}
    allowed: Allowed = msgspec.field(default_factory=Allowed)
    compared: Compared | None = None
    """The call as duplicate rules see it; None where none is about it."""
    looked: Looked | None = None
    """What the store has for it from its twins: an answer, or the running call to wait for. None: it has its hold."""

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
        comparer: Comparer,
    ) -> None:
        self._store = store
        self._prices = prices
        self._raises = raises
        self._learned = learned
        self._comparer = comparer
        self._outage = Outage()

    def plan(
        self,
        policy: Policy,
        caller: Caller,
        call: Call,
        upstream: Upstream,
        at_ms: int,
        *,
        envelope: Envelope,
        fields: Mapping[str, Any] | bytes,
    ) -> Plan:
        """4  What the call will cost, of which budgets that is taken, and what duplicate rules compare in it."""
        way = self._way(policy, caller, call, upstream, at_ms)
        plan = Plan(caller=caller, upstream=upstream, ways=[way])
        model = other_model(way.scopes, call.dialect)
        if model is not None and model != call.model and takes_other_model(call):
            other = msgspec.structs.replace(call, model=model)
            if policy.decide(caller, other, upstream).refusal is None:  # nor does a task key grow by a budget's model
                plan.ways.append(self._way(policy, caller, other, upstream, at_ms))
        plan.compared = self._comparer.compare(policy, caller, call, upstream, envelope=envelope, fields=fields)
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
            worst=scopes.asks_for_bound,
        )
        return Way(call=call, scopes=scopes, estimate=estimate)

    async def reserve(self, record: Record, plan: Plan, policy: Policy) -> Refusal | None:
        """5  Takes what the call needs of all its budgets at once, or says no. The record is the draft that stands if
        this process dies. After None the call must be settled, and has its hold unless `plan.looked` says otherwise."""
        self._draft(record, plan)
        plan.looked = None
        try:
            reserved = await self._take(record, plan)
        except StoreUnavailable as away:
            return await self._without_store(record, plan, policy, str(away))
        if reserved.blocked and (tokens := self._trimmed(record, plan, policy, reserved)) is not None:
            lower = msgspec.structs.replace(plan.ways[0].call, max_output_tokens=tokens)
            plan.ways = [self._way(policy, plan.caller, lower, plan.upstream, record.at_ms)]
            plan.output_limit = tokens
            self._draft(record, plan)
            try:
                reserved = await self._take(record, plan)
            except StoreUnavailable as away:
                return await self._without_store(record, plan, policy, str(away))
        first = plan.ways[0]
        if reserved.looked is not None and (reserved.looked.replays or reserved.looked.joins):
            plan.looked = reserved.looked
            return None
        no = self._weigh(record, plan, reserved)
        if not reserved.admitted:
            if reserved.states:
                plan.headers = limit_headers(first.takes, reserved.states, now_ms=reserved.now_ms, admitted=False)
            if no is None or reserved.blocked:
                budget = refusal_for(first.scopes, first.takes, reserved, run_s=first.estimate.run_s)
                no = budget if no is None else first_by_precedence([budget, no])
            return no
        plan.chosen = reserved.choice
        self._admitted(record, plan, reserved)
        return None

    def _weigh(self, record: Record, plan: Plan, reserved: Reserved) -> Refusal | None:
        """What duplicate rules make of what the store found: facts into the record, and a refusal where one is due."""
        if plan.compared is None or reserved.looked is None:
            return None
        finding = found(plan.compared, plan.caller, reserved.looked, reserved.now_ms)
        put_finding(record, plan.compared.prints, finding)
        return finding.refusal

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
                marked = None
                if plan.compared is not None:
                    call = plan.ways[0].call
                    marked = self._comparer.marked(plan.compared, plan.caller, call, plan.upstream, now_ms)
                return await self._store.reserve(record, [way.takes for way in plan.ways], marked)
            except WindowMoved as moved:
                now_ms = moved.now_ms
        raise StoreUnavailable("the store's clock and this proxy's do not agree")

    def _admitted(self, record: Record, plan: Plan, reserved: Reserved) -> None:
        way = plan.way
        plan.allowed.held_nusd = record.hold_nusd
        begin(plan)
        if way.estimate.limit_missing and way.scopes.asks_for_bound and takes_output_limit(way.call):
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
            if way.scopes.speaks:
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
        rule = self._outage.take(outage_rules(plan.way.scopes, policy), record.hold_nusd, plan.allowed)
        if rule is not None:
            # The store may have taken the hold all the same, and only its reply was late.
            await self._store.release(record.call_id, record.org)
            return msgspec.structs.replace(store_away(reason), rule=rule or None)
        record.degraded = True
        begin(plan)
        now_ms = self._store.now_ms()
        plan.way.takes = takes_for(plan.way.scopes, plan.way.estimate, now_ms, self._raises())
        self._store.keep(record, plan.way.takes)  # the hold is registered as soon as the store is back
        return None

    # -- while the call runs, and after it ------------------------------------------------------------------------

    async def outgrow(self, record: Record, plan: Plan, policy: Policy, seen_tokens: int) -> Refusal | None:
        """A stream needs more than its hold covers, or will soon: it takes another step. A refusal where a budget with
        `when_outgrown: cut` cannot give what the stream has made already; with `finish` it goes on all the same.

        Budgets that cut are asked for a step ahead of need, so that the stream holds what it makes while they are
        asked, and while a busy process comes to look at it again.
        """
        step, owed = step_of(plan.held_tokens), max(0, seen_tokens - plan.held_tokens)
        try:
            if await self._extend(record, plan, owed + step) is None:
                return None
            full = await self._extend(record, plan, owed) if owed else None
        except StoreUnavailable as away:
            plan.grows_at = seen_tokens + step  # then the whole is asked for once more
            return self._step_without_store(record, plan, policy, owed, str(away)) if owed and plan.cutting else None
        plan.grows_at = plan.held_tokens
        if full is None:
            return None
        scope = plan.cutting[full.counter]
        record.rule = scope.budget.name
        take = next(take for take in plan.way.takes if take.counter == full.counter)
        return outgrown_refusal(scope, take, full.state)

    async def _extend(self, record: Record, plan: Plan, tokens: int) -> NoRoom | None:
        nusd = self._output_nusd(record, plan, tokens)
        full = await self._store.extend(record.call_id, record.org, nusd=nusd, tokens=tokens, within=plan.cutting)
        if full is None:
            covers(plan, plan.held_tokens + tokens)
        return full

    def _output_nusd(self, record: Record, plan: Plan, tokens: int) -> int:
        """What so many more tokens of output come to."""
        way = plan.way
        cost = priced(way.call, Usage(output=tokens), self._prices(), plan.upstream, record.at_ms)
        return cost.cost_nusd or 0

    def _step_without_store(self, record: Record, plan: Plan, policy: Policy, owed: int, reason: str) -> Refusal | None:
        """What the budgets that cut say of a step for which the store cannot be asked."""
        record.degraded = True
        nusd = self._output_nusd(record, plan, owed - plan.unheld_tokens)
        plan.unheld_tokens = owed
        rule = self._outage.take(outage_rules(plan.cutting.values(), policy), nusd, plan.allowed)
        if rule is None:
            return None
        record.rule = rule
        return msgspec.structs.replace(store_away(reason), rule=rule)

    def settled(self, record: Record, plan: Plan, *, answer_s: float, cut: bool) -> None:
        """Learns from a call that was reported in full, and puts right what it counted while the store was away."""
        self._outage.settled(plan.allowed, record.cost_nusd or 0)
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


def step_of(held_tokens: int) -> int:
    """How much more a stream takes at a time."""
    return max(1, held_tokens // STEP_SHARE)


def begin(plan: Plan) -> None:
    """The call has its hold: which budgets may cut it."""
    plan.cutting = plan.way.scopes.cutting if plan.way.call.stream else {}


def begin_stream(plan: Plan) -> None:
    """An answer comes piece by piece: how much of it the hold covers."""
    covers(plan, covered_tokens(plan.way))


def covered_tokens(way: Way) -> int:
    """The output that is covered by what a call holds in each of its budgets that grow."""
    output = way.estimate.usage.output
    fixed_nusd = way.scopes.fixed_nusd
    if fixed_nusd is None:
        return output
    made_nusd = way.estimate.cost.parts_nusd.get("output", 0)
    covered_nusd = fixed_nusd - (way.estimate.expected_nusd - made_nusd)
    return min(output, max(0, covered_nusd) * output // made_nusd) if made_nusd else output


def covers(plan: Plan, tokens: int) -> None:
    """Notes how many tokens of output the hold of a call covers, and from how many on it takes more."""
    plan.held_tokens, plan.unheld_tokens = tokens, 0
    plan.grows_at = tokens - step_of(tokens) if plan.cutting else tokens
