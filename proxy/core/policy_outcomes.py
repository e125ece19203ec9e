"""Outcomes, teams and `unproven` of policy files: whether their keys go together, and the rules that they make."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from .budgets import Budget
from .globs import Globs
from .matching import Mode
from .outcomes import KINDS, STANDARD_SECRET, UNITS, OutcomeMatch, OutcomeRule, Team, standard_secret
from .policy_budgets import Written, match_of
from .policy_values import listed, suggestion
from .windows import DAY_MS, Every
from .yaml_nodes import Scalar, shown

ACCEPTED_AFTER_MS_DEFAULT = 14 * DAY_MS
EVENT_BY_ORIGIN = {"github": "pull_request.merged", "gitlab": "merge_request.merged"}
"""What is meant where a rule names no event."""


def check_outcome(written: Written) -> None:
    """Puts every fault and warning about one outcome rule into its report."""
    fields = written.fields
    origin = fields.get("from")
    if origin is None:
        return
    if (fields.get("match") or {}).get("not") == {}:
        written.fault("an empty `not` never lets the rule apply", "match", "not")
    if origin == "declared":
        for key in ("secret", "event", "match", "task"):
            if key in fields:
                written.fault("is not for `from: declared`: nobody signs what a person declares", key)
    elif "secret" not in fields:
        written.fault("the key `secret` is missing: without it anybody could tell of outcomes")
    _check_event(written, origin)
    if "undone_by" in fields and origin != "standard":
        written.fault("is only for `from: standard`; the other sources say so in their own words", "undone_by")
    if "task" not in fields and origin in ("github", "gitlab"):
        written.warn("has no `task`: only a line `Task: NAME` in a commit message or description names one")
    for secret in (fields.get("secret") or "").split(","):
        if secret.strip().startswith(STANDARD_SECRET):
            try:
                standard_secret(secret.strip())
            except ValueError:
                written.fault(f"begins with `{STANDARD_SECRET}`, and what follows is not base64", "secret")


def _check_event(written: Written, origin: str) -> None:
    event = written.fields.get("event")
    if origin == "standard":
        if "event" not in written.fields:
            written.fault("the key `event` is missing: which `type` of event is an outcome?")
        elif event is not None and any(event == word for _, word in written.fields.get("undone_by") or ()):
            written.fault(f"`{shown(event)}` is what makes the outcome", "undone_by")
    elif origin in EVENT_BY_ORIGIN and event is not None:
        known = [name for source, name in KINDS if source == origin]
        if event not in known:
            hint = suggestion(event, known)
            written.fault(f"`{shown(event)}` is nothing that `{origin}` tells here: {listed(known)}{hint}", "event")


def outcome_of(written: Written) -> OutcomeRule:
    """The rule. Only of one without faults."""
    fields = written.fields
    origin = fields["from"]
    return OutcomeRule(
        name=fields["name"],
        origin=origin,
        secret=fields.get("secret", ""),
        event=fields.get("event", EVENT_BY_ORIGIN.get(origin, "")),
        match=_match_of(fields.get("match")),
        task=fields.get("task", ""),
        accepted_after_ms=fields.get("accepted_after", ACCEPTED_AFTER_MS_DEFAULT),
        weight=fields.get("weight", 1),
        per=fields.get("per", "change"),
        undone_by=tuple(word for _, word in fields.get("undone_by", ())),
        org=fields.get("org", "default"),
    )


def _match_of(fields: dict[str, Any] | None) -> OutcomeMatch:
    match = dict(fields or {})
    inverted = match.pop("not", {})
    reviewed = match.pop("reviewed", None)
    return OutcomeMatch(
        conditions=tuple((field, Globs(globs)) for field, globs in match.items()),
        inverted=tuple((field, Globs(globs)) for field, globs in inverted.items()),
        reviewed=reviewed,
    )


# -- teams ------------------------------------------------------------------------------------------------------------


def check_team(name: Scalar, written: Written, outcomes: Sequence[Written]) -> None:
    """A unit must be something that is counted."""
    unit = written.fields.get("unit")
    if unit is None:
        return
    rules = {each.fields["name"]: each for each in outcomes if each.fields.get("name")}
    if unit in rules:
        return
    if unit not in UNITS:
        known: Collection[str] = [*rules, *UNITS]
        hint = suggestion(unit, known)
        written.fault(f"`{shown(unit)}` is no rule of `outcomes`, nor one of {listed(UNITS)}{hint}", "unit")
    elif not any(_kind_of(each) == UNITS[unit] for each in outcomes):
        written.warn(
            f"no rule of `outcomes` tells of a {unit}, so that team `{shown(name.text)}` delivers none", "unit"
        )


def _kind_of(written: Written) -> str | None:
    origin = written.fields.get("from") or ""
    event = written.fields.get("event") or EVENT_BY_ORIGIN.get(origin, "")
    return KINDS.get((origin, event))


def team_of(name: str, fields: dict[str, Any]) -> Team:
    """The team. Only of one without faults."""
    return Team(name=name, unit=fields["unit"], size=fields["size"])


# -- unproven ---------------------------------------------------------------------------------------------------------


def check_unproven(written: Written) -> None:
    """Puts every fault and warning about one rule of `unproven` into its report."""
    fields = written.fields
    if (fields.get("match") or {}).get("not") == {}:
        written.fault("an empty `not` never lets the rule apply", "match", "not")
    every = fields.get("every")
    if every is not None and "timezone" in fields and Every.parse(every).kind != "calendar":
        written.warn(f"makes no difference to `{every}`, which follows no calendar", "timezone")


def unproven_of(written: Written, mode: Mode) -> Budget:
    """The rule, as the budget that it is. Only of one without faults."""
    fields = written.fields
    return Budget(
        name=fields["name"],
        match=match_of(fields.get("match")),
        per=("task",),
        limit=fields["limit"],
        every=Every.parse(fields["every"], fields.get("timezone", "UTC")),
        then=fields.get("then", "refuse"),
        mode=fields.get("mode", mode),
        help=fields.get("help", ""),
        unproven=True,
    )
