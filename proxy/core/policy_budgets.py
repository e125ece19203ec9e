"""Budgets of policy files: what was read of one, whether its keys go together, and the budget that it makes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import msgspec

from .admission import Unit
from .amounts import told_amount
from .budgets import UNBOUNDED_LIMIT_SHARE, UNBOUNDED_NUSD_DEFAULT, Budget, Use
from .globs import ABSENT, Globs
from .matching import APIS, Condition, Match, Mode, Upstream
from .policy_values import Report, suggestion
from .windows import Every
from .yaml_nodes import Listing, Node, Table, shown

ONLY_FOR: dict[str, tuple[Unit, ...]] = {
    "every": ("nusd", "tokens", "calls"),
    "timezone": ("nusd", "tokens", "calls"),
    "reserve": ("nusd", "tokens"),
    "unbounded": ("nusd",),
    "when_outgrown": ("nusd", "tokens"),
    "trim": ("nusd", "tokens"),
}
"""Keys that mean something only for limits in these units."""

_WHAT: dict[Unit, str] = {"nusd": "money", "tokens": "tokens", "calls": "calls", "concurrent": "concurrent calls"}

MODEL_MAKERS = (
    ("anthropic", ("claude-", "claude_")),
    ("gemini", ("gemini-", "gemma-")),
    ("openai", ("gpt-", "chatgpt-", "o1", "o3", "o4")),
)
"""How the names of models begin that are spoken to in their maker's dialect."""

OWN_MODELS_ONLY = frozenset({"openai", "azure", "groq", "mistral", "deepseek", "x-ai", "cerebras", "moonshotai"})
"""Providers in OpenAI's dialect that never serve the models of Anthropic or Google. Gateways, whose upstream may have
any other name, do, and so do those two in their own compatible endpoints."""

TASK_SOURCES = ("key", "path", "header", "baggage", "agent")

ABOVE_TASK = frozenset({"org", "team", "user", "key"})
"""What a caller cannot make up. A budget per task alone has a fresh counter for each new name."""


class Written(msgspec.Struct, frozen=True):
    """A budget as it stands in a file: the values that were read, and where."""

    fields: dict[str, Any]
    node: Node
    report: Report

    def at(self, *path: str) -> Node:
        """The node of a value, for pointing at it; the one around it where it is not there."""
        node = self.node
        for key in path:
            entries = node.entries if isinstance(node, Table) else []
            node = next((value for name, value in entries if name.text == key), node)
        return node

    def fault(self, message: str, *path: str) -> None:
        """Something wrong with a value, at its place."""
        self._under(path).fault(self.at(*path), message)

    def warn(self, message: str, *path: str) -> None:
        """Something seldom meant about a value, at its place."""
        self._under(path).warn(self.at(*path), message)

    def _under(self, path: tuple[str, ...]) -> Report:
        report = self.report
        for key in path:
            report = report.under(key)
        return report


def check_budget(written: Written) -> None:
    """Puts every fault and warning about one budget into its report."""
    fields = written.fields
    if (fields.get("match") or {}).get("not") == {}:
        written.fault("an empty `not` never lets the rule apply", "match", "not")
    if fields.get("limit") is None:
        return
    unit, limit = fields["limit"]
    for key, units in ONLY_FOR.items():
        if key in fields and unit not in units:
            known = " or ".join(_WHAT[each] for each in units)
            written.fault(f"is only for limits in {known}; this one is in {_WHAT[unit]}", key)
    if unit != "concurrent" and "every" not in fields:
        written.fault("the key `every` is missing: how often does the limit start anew?")
    reserve = fields.get("reserve")
    if unit == "tokens" and isinstance(reserve, int):
        written.fault("a fixed amount is money, and this limit is in tokens", "reserve")
    elif unit == "nusd" and isinstance(reserve, int) and reserve > limit:
        told = f"{told_amount('nusd', reserve)} is more than the limit of {told_amount('nusd', limit)}"
        written.fault(f"{told}: no call would ever fit", "reserve")
    if isinstance(reserve, int) and fields.get("trim"):
        written.warn("a shorter answer holds no less where `reserve` is a fixed amount", "trim")
    every = fields.get("every")
    if every is not None and "timezone" in fields and Every.parse(every).kind != "calendar":
        written.warn(f"makes no difference to `{every}`, which follows no calendar", "timezone")
    if isinstance(fields.get("then"), dict) and fields["then"].get("use") == {}:
        written.fault("names no model; write one for each dialect, like `openai: gpt-5-mini`", "then", "use")
    _check_limits(written, unit)


def _check_limits(written: Written, unit: Unit) -> None:
    per = written.fields.get("per", ("org",))
    for name, value in written.fields.get("limits") or ():
        if value is not None and value[0] != unit:
            told = f"{told_amount(*value)} is in {_WHAT[value[0]]}, and `limit` in {_WHAT[unit]}"
            written.fault(told, "limits", name.text)
        if per is not None and len(per) > 1 and name.text.count("/") < len(per) - 1:
            fields = "/".join(per)
            written.report.fault(name, f"`{shown(name.text)}` must have a value for each of `per`: `{fields}`")


def budget_of(written: Written, mode: Mode) -> Budget:
    """The budget. Only of one without faults."""
    fields = written.fields
    unit, limit = fields["limit"]
    limits = {name.text: value[1] for name, value in fields.get("limits") or ()}
    every = "ever" if unit == "concurrent" else fields["every"]
    then: Any = fields.get("then", "refuse")
    outage: Any = fields.get("store_outage")
    smallest = min([limit, *limits.values()])
    return Budget(
        name=fields["name"],
        match=match_of(fields.get("match")),
        per=fields.get("per", ("org",)),
        unit=unit,
        limit=limit,
        limits=limits,
        every=Every.parse(every, fields.get("timezone", "UTC")),
        reserve=fields.get("reserve", "expected"),
        unbounded_nusd=fields.get("unbounded", min(UNBOUNDED_NUSD_DEFAULT, smallest // UNBOUNDED_LIMIT_SHARE)),
        when_outgrown=fields.get("when_outgrown", "finish"),
        trim=fields.get("trim", False),
        warn_at=tuple(sorted(mark for _, mark in fields.get("warn_at", ()))),
        then=Use(then["use"]) if isinstance(then, dict) else then,
        mode=fields.get("mode", mode),
        store_outage=outage["allow_up_to"] if isinstance(outage, dict) else outage,
        help=fields.get("help", ""),
    )


def match_of(fields: dict[str, Any] | None) -> Match:
    """The match of a rule, as it was read."""
    match = dict(fields or {})
    inverted = match.pop("not", {})
    return Match(
        conditions=tuple(Condition.on(field, globs) for field, globs in match.items()),
        inverted=tuple(Condition.on(field, globs) for field, globs in inverted.items()),
    )


# -- what the budgets of all files say together -----------------------------------------------------------------------


NO_SUCH_MODEL = "`{}` matches no model that the price book or `prices` know"


def check_other_models(
    budgets: Sequence[Written], upstreams: Collection[Upstream], known_model: Callable[[str], bool] | None
) -> None:
    """`use` must name a model that the dialect's upstreams can serve. `known_model` as in `check_globs`."""
    for written in budgets:
        then = written.fields.get("then")
        models = (then.get("use") or {}) if isinstance(then, dict) else {}
        for dialect, model in models.items():
            if model is None:
                continue
            speaking = [upstream for upstream in upstreams if upstream.dialect == dialect]
            path = ("then", "use", dialect)
            if not speaking:
                written.warn(f"no upstream speaks `{dialect}`, so that `{shown(model)}` is never used", *path)
            elif known_model is not None and not known_model(model):
                written.warn(NO_SUCH_MODEL.format(shown(model)), *path)
            maker = _maker(model)
            if maker is None or maker == dialect or _may_resell(dialect, speaking):
                continue
            written.fault(f"`{shown(model)}` is spoken to in the dialect `{maker}`, not in `{dialect}`", *path)


def _maker(model: str) -> str | None:
    return next((dialect for dialect, starts in MODEL_MAKERS if model.lower().startswith(starts)), None)


def _may_resell(dialect: str, speaking: Sequence[Upstream]) -> bool:
    return dialect == "openai" and any(upstream.provider not in OWN_MODELS_ONLY for upstream in speaking)


def check_tasks_are_bounded(budgets: Sequence[Written], unproven: Sequence[Written] = ()) -> None:
    """A caller who names a new task gets a new counter, unless something above the tasks counts, too. That goes for the
    rules of `unproven` as well."""
    for rule in unproven:
        limit = rule.fields.get("limit")
        as_budget = Written(rule.fields | {"limit": None if limit is None else ("nusd", limit)}, rule.node, rule.report)
        if not any(_is_above(other, as_budget) for other in budgets):
            rule.warn("a new task name is counted anew; add a budget `per: user`, `team` or `org` for the same calls")
    for written in budgets:
        if "task" in (written.fields.get("per") or ()) and not any(_is_above(other, written) for other in budgets):
            written.warn(
                "a new task name is a new budget; add one `per: user`, `team` or `org` that meets the same calls", "per"
            )


def _is_above(other: Written, written: Written) -> bool:
    """Whether `other` bounds all tasks of `written` together."""
    above, below = other.fields, written.fields
    per = above.get("per", ("org",))
    if per is None or not set(per) <= ABOVE_TASK or above.get("then") == "warn":
        return False
    if above.get("mode") == "shadow" and below.get("mode") != "shadow":
        return False
    units = [each["limit"][0] for each in (above, below) if each.get("limit") is not None]
    if len(units) < 2 or units[0] not in ("nusd", units[1]):
        return False
    wide, narrow = above.get("match") or {}, below.get("match") or {}
    return all(field in narrow and narrow[field] == globs for field, globs in wide.items())


def check_globs(
    matches: Sequence[Written],
    upstreams: Collection[Upstream],
    known_model: Callable[[str], bool] | None,
) -> None:
    """Warns of globs that match nothing that can be there: a slip of the finger, as a rule.

    Users, teams and tasks come and go, and are not looked at. `known_model` says whether some model fits a glob; None:
    models are not looked at either.
    """
    known: dict[str, Collection[str]] = {"api": APIS, "task_source": TASK_SOURCES}
    if upstreams:
        known["upstream"] = {upstream.name for upstream in upstreams}
        known["provider"] = {upstream.provider for upstream in upstreams}
    for written in matches:
        match = written.fields.get("match") or {}
        for above, fields in ((("match",), match), (("match", "not"), match.get("not") or {})):
            for field, globs in fields.items():
                node = written.at(*above, field)
                nodes = node.items if isinstance(node, Listing) else [node]
                if field == "not" or globs is None or len(nodes) != len(globs):
                    continue
                for item, pattern in zip(nodes, globs, strict=True):
                    _check_glob(item, pattern, field, written.report, known.get(field), known_model)


def _check_glob(
    node: Node,
    pattern: str,
    field: str,
    report: Report,
    known: Collection[str] | None,
    known_model: Callable[[str], bool] | None,
) -> None:
    if pattern == ABSENT:
        return
    if known is not None:
        if not any(Globs(pattern).matches(word) for word in known):
            hint = suggestion(pattern, known)
            report.warn(node, f"`{shown(pattern)}` matches no `{field}` that is known{hint}")
    elif field == "model" and known_model is not None and not known_model(pattern):
        report.warn(node, NO_SUCH_MODEL.format(shown(pattern)))
