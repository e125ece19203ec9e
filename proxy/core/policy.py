"""Policy: the set of rules in force, and what it says of a call. Decides from what it is given and nothing else.

A policy is loaded whole and checked whole (`policy_file.py`), so that here nothing can fail: every rule is compiled,
and a decision is a plain function of caller, call and upstream, answered with its reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from .call import Call
from .caller import Caller
from .globs import Globs, compiled
from .money import NUSD_PER_USD
from .refusal import Refusal, first_by_precedence, header_text, quoted

if TYPE_CHECKING:
    from .price_rules import PriceRule

Mode = Literal["enforce", "shadow"]

UNKNOWN_CALLS_RULE = "unknown-calls"
"""What `defaults.unknown_calls: refuse` is called in records; no rule in a file can have the name."""


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """A configured provider endpoint.

    dialect    openai | anthropic | gemini, or "" where calls are relayed without being understood
    provider   who is paid, by the price book's name
    url        scheme, host and the path before the provider's own, without a slash at the end
    key        the provider's key; None: the caller's own credential passes
    billing    `plan`: a subscription; the list cost is kept, the billed cost is 0
    """

    name: str
    dialect: str = ""
    provider: str = ""
    url: str
    key: str | None = None
    billing: Literal["metered", "plan"] = "metered"

    def __repr__(self) -> str:
        """Without the key: an upstream may end up in a log line."""
        key = "set" if self.key else "none"
        return f"Upstream({self.name}, dialect={self.dialect or 'none'}, url={self.url}, key={key})"


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


Read = Callable[[Caller, Call, Upstream], str | None]

FIELDS: dict[str, Read] = {
    "org": lambda caller, call, upstream: caller.org,
    "team": lambda caller, call, upstream: caller.team,
    "user": lambda caller, call, upstream: caller.user,
    "key": lambda caller, call, upstream: caller.key_id,
    "task": lambda caller, call, upstream: caller.task,
    # Identity says `none` for a task that is absent; to a rule that is an absent value, which `*` must not match.
    "task_source": lambda caller, call, upstream: None if caller.task_source == "none" else caller.task_source,
    "agent": lambda caller, call, upstream: caller.agent,
    "upstream": lambda caller, call, upstream: upstream.name,
    "provider": lambda caller, call, upstream: upstream.provider,
    "api": lambda caller, call, upstream: call.api,
    "model": lambda caller, call, upstream: call.model,
}
"""What a rule can match on, beside `label.<name>`."""

LABEL = "label."


class Condition(msgspec.Struct, frozen=True):
    """One line of a `match`: a field and the globs that its value must be in."""

    field: str
    globs: Globs
    read: Read

    @classmethod
    def on(cls, field: str, patterns: tuple[str, ...]) -> Condition:
        """`field` is one of FIELDS or `label.<name>`."""
        if field.startswith(LABEL):
            label = field.removeprefix(LABEL)
            return cls(field, Globs(patterns), lambda caller, call, upstream: caller.labels.get(label))
        return cls(field, Globs(patterns), FIELDS[field])


class Match(msgspec.Struct, frozen=True):
    """When a rule applies: all of `conditions` hold, and those of `inverted`, if any, do not all hold."""

    conditions: tuple[Condition, ...] = ()
    inverted: tuple[Condition, ...] = ()

    def matches(self, caller: Caller, call: Call, upstream: Upstream) -> bool:
        """Whether the rule applies to this call."""
        for condition in self.conditions:
            if not condition.globs.matches(condition.read(caller, call, upstream)):
                return False
        if not self.inverted:
            return True
        return any(not condition.globs.matches(condition.read(caller, call, upstream)) for condition in self.inverted)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it looks at, each once, in order."""
        return tuple(dict.fromkeys(condition.field for condition in (*self.conditions, *self.inverted)))

    def described(self, caller: Caller, call: Call, upstream: Upstream) -> str:
        """What it saw, for a person: each field with its value, `none` where there is none."""
        seen = {condition.field: condition for condition in (*self.conditions, *self.inverted)}
        told = (f"{field} {quoted(each.read(caller, call, upstream))}" for field, each in seen.items())
        return ", ".join(told) or "every call"


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
            advice = "use another model or ask your admin"
        else:
            advice = "ask your admin"
        sentence = f"rule `{self.name}` refuses this call: {self.match.described(caller, call, upstream)}; {advice}"
        if self.help:
            sentence += f"; {self.help}"
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
    prices: tuple[PriceRule, ...] = ()
    telemetry: Telemetry = Telemetry()

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
        """Whether the call may go on, and everything that spoke. Never raises."""
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
