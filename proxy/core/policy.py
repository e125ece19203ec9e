"""Policy: the set of rules in force, and what it says of a call. Decides from what it is given and nothing else.

A policy is loaded whole and checked whole (`policy_file.py`), so that here nothing can fail: every rule is compiled,
and a decision is a plain function of caller, call and upstream, answered with its reasons.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from .alerts import AlertRule
from .budgets import Budget, BudgetIndex, Scopes
from .call import Call
from .caller import Caller
from .duplicates import DuplicateIndex, DuplicateRule, DuplicateScope
from .globs import compiled
from .matching import FIELDS, LABEL, Condition, Match, Mode, Upstream
from .money import NUSD_PER_USD
from .outcomes import OutcomeRule, Team
from .refusal import Refusal, first_by_precedence, header_text, quoted

if TYPE_CHECKING:
    from .price_rules import PriceRule

__all__ = [
    "FIELDS",
    "LABEL",
    "UNKNOWN_CALLS_RULE",
    "AccessRule",
    "Condition",
    "Decision",
    "Defaults",
    "Match",
    "Mode",
    "Policy",
    "Telemetry",
    "Upstream",
]

UNKNOWN_CALLS_RULE = "unknown-calls"
"""What `defaults.unknown_calls: refuse` is called in records; no rule in a file can have the name."""


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What holds where no rule says otherwise. `store_outage` as a number is an allowance in nano-USD per process."""

    mode: Mode = "enforce"
    unknown_calls: Literal["record", "refuse"] = "record"
    unknown_price: Literal["assume", "refuse", "record"] = "assume"
    store_outage: Literal["refuse", "allow"] | int = 5 * NUSD_PER_USD
    max_body_bytes: int = 32 * 2**20
    client_gone: Literal["cancel", "drain"] = "cancel"
    max_output_tokens: int = 32_000


class Telemetry(msgspec.Struct, frozen=True, kw_only=True):
    """How spans are written: for which tools, and whether they join the caller's trace or only link to it."""

    profiles: tuple[str, ...] = ("semconv", "langfuse", "openinference", "mlflow")
    join: Literal["parent", "link", "new"] = "parent"


class AccessRule(msgspec.Struct, frozen=True, kw_only=True):
    """Who may call what: `then` says what happens to calls that match."""

    name: str
    match: Match = Match()
    then: Literal["refuse", "warn"] = "refuse"
    mode: Mode = "enforce"
    help: str = ""

    def refusal(self, caller: Caller, call: Call, upstream: Upstream) -> Refusal:
        """The no of this rule, with what it saw and what to do about it."""
        fields = self.match.fields
        needs_task = "task" in fields or "task_source" in fields
        if "task_source" in fields:
            advice = "make a task key with `callmeter task NAME` and call with it"
        elif "task" in fields:
            advice = "name a task, best with a task key (`callmeter task NAME`)"
        elif "model" in fields:
            advice = "use another model" if self.help else "use another model or ask your admin"
        else:
            advice = "" if self.help else "ask your admin"
        told = f"rule `{self.name}` refuses this call: {self.match.described(caller, call, upstream)}"
        sentence = "; ".join(filter(None, (told, advice, self.help)))
        return Refusal(code="task_required" if needs_task else "not_allowed", sentence=sentence, rule=self.name)

    def warning(self, caller: Caller, call: Call, upstream: Upstream) -> str:
        """`<rule>; <sentence>`, as the warning header carries it."""
        sentence = f"this rule speaks against {self.match.described(caller, call, upstream)}"
        return header_text(f"{self.name}; {sentence}; {self.help}" if self.help else f"{self.name}; {sentence}")


class Decision(msgspec.Struct, kw_only=True):
    """What the policy says of one call. Each caller gets its own, to add to as the call goes on.

    refusal    None: the call may go on
    rule       the rule that decided
    shadow     rules that would have refused
    warnings   `<rule>; <sentence>` of rules that only speak up
    """

    refusal: Refusal | None = None
    rule: str | None = None
    shadow: list[str] = []
    warnings: list[str] = []


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """All rules in force. `version` is a short hash of what the files say, without the keys in them."""

    version: str = ""
    upstreams: dict[str, Upstream] = {}
    defaults: Defaults = Defaults()
    access: tuple[AccessRule, ...] = ()
    budgets: tuple[Budget, ...] = ()
    duplicates: tuple[DuplicateRule, ...] = ()
    outcomes: tuple[OutcomeRule, ...] = ()
    teams: tuple[Team, ...] = ()
    unproven: tuple[Budget, ...] = ()
    """Each is a budget for what a task may cost before it has an outcome."""
    prices: tuple[PriceRule, ...] = ()
    telemetry: Telemetry = Telemetry()
    alerts: tuple[AlertRule, ...] = ()
    budget_index: BudgetIndex = BudgetIndex(())
    """Made from `counted`; whatever is given for it is replaced."""
    duplicate_index: DuplicateIndex = DuplicateIndex(())
    """Likewise from `duplicates`."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "budget_index", BudgetIndex(self.counted))
        msgspec.structs.force_setattr(self, "duplicate_index", DuplicateIndex(self.duplicates))

    @property
    def counted(self) -> tuple[Budget, ...]:
        """Everything that has counters: the budgets, and the rules of `unproven`."""
        return self.budgets + self.unproven

    def scopes_for(self, caller: Caller, call: Call, upstream: Upstream) -> Scopes:
        """The budgets that a call meets, in the order of the policy, with the counter of each; last those of the task
        key (`max_cost`)."""
        return self.budget_index.scopes(caller, call, upstream)

    def duplicates_for(self, caller: Caller, call: Call, upstream: Upstream) -> tuple[DuplicateScope, ...]:
        """The duplicate rules that a call meets, in the order of the policy."""
        return self.duplicate_index.scopes(caller, call, upstream)

    def upstream_for(self, name: str) -> Upstream | None:
        """The upstream of the first path segment, if there is one."""
        return self.upstreams.get(name)

    def short_form(self, dialect: str) -> Upstream | None:
        """Where a path without an upstream goes: to the one named like its dialect, else to the only one of it."""
        named = self.upstreams.get(dialect)
        if named is not None and named.dialect == dialect:
            return named
        speaking = [upstream for upstream in self.upstreams.values() if upstream.dialect == dialect and dialect]
        return speaking[0] if len(speaking) == 1 else None

    def decide(self, caller: Caller, call: Call, upstream: Upstream) -> Decision:
        """Whether the call may go on, also with other models that it names, and everything that spoke. Never raises."""
        decision = self._decide(caller, call, upstream)
        for model in call.other_models:
            if decision.refusal is None and model != call.model:
                other = self._decide(caller, msgspec.structs.replace(call, model=model), upstream)
                decision.refusal, decision.rule = other.refusal, other.rule
                decision.shadow += [name for name in other.shadow if name not in decision.shadow]
                decision.warnings += [told for told in other.warnings if told not in decision.warnings]
        return decision

    def _decide(self, caller: Caller, call: Call, upstream: Upstream) -> Decision:
        speaking = [rule for rule in self.access if rule.match.matches(caller, call, upstream)]
        narrowed = caller.models or caller.upstreams
        unknown = call.api == "unknown" and self.defaults.unknown_calls == "refuse"
        if not speaking and not narrowed and not unknown:
            return Decision()
        return self._weigh(speaking, caller, call, upstream)

    def _weigh(self, speaking: list[AccessRule], caller: Caller, call: Call, upstream: Upstream) -> Decision:
        decision = Decision()
        refusals: list[Refusal] = []
        for rule in speaking:
            if rule.then == "refuse" and rule.mode == "enforce":
                refusals.append(rule.refusal(caller, call, upstream))
            elif rule.then == "refuse":
                decision.shadow.append(rule.name)
            elif rule.mode == "enforce":
                decision.warnings.append(rule.warning(caller, call, upstream))
        refusals.extend(_caveat_refusals(caller, call, upstream))
        if call.api == "unknown" and self.defaults.unknown_calls == "refuse":
            if self.defaults.mode == "shadow":
                decision.shadow.append(UNKNOWN_CALLS_RULE)
            else:
                refusals.append(_unknown_call(call, upstream))
        if refusals:
            decision.refusal = first_by_precedence(refusals)
            decision.rule = decision.refusal.rule
        return decision


def _caveat_refusals(caller: Caller, call: Call, upstream: Upstream) -> Iterator[Refusal]:
    """What the caller's task key does not allow. Always enforced: it is the key's own narrowing, not a rule of ours."""
    for patterns in caller.upstreams:
        if not compiled(patterns).matches(upstream.name):
            yield _caveat_refusal("upstreams", patterns, f"upstream {quoted(upstream.name)}")
    # A free call without a model (a list of models) is harmless; any other could run a model that is not in sight.
    if call.model is None and call.free:
        return
    for patterns in caller.models:
        if not compiled(patterns).matches(call.model):
            yield _caveat_refusal("models", patterns, f"model {quoted(call.model)}")


def _caveat_refusal(caveat: str, patterns: tuple[str, ...], seen: str) -> Refusal:
    allowed = ", ".join(quoted(pattern) for pattern in patterns)
    return Refusal(
        code="not_allowed",
        sentence=f"this task key is narrowed by its caveat `{caveat}` to {allowed}: {seen} is not among them; "
        "use one that is, or another key",
    )


def _unknown_call(call: Call, upstream: Upstream) -> Refusal:
    asked = f"{call.method} {call.route}" if call.route else call.method
    return Refusal(
        code="unknown_call",
        sentence=f"{quoted(asked)} of upstream {quoted(upstream.name)} is not a call that Callmeter knows, and the "
        "policy says `unknown_calls: refuse`: check the base URL and the path, or ask your admin",
        rule=UNKNOWN_CALLS_RULE,
    )
