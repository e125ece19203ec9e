"""`callmeter explain`: the rules that apply to a call or to somebody, in order, and what they stand at now."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.amounts import told_amount
from ..core.money import format_usd
from .admin_client import find_admin
from .budgets import numbers, told_scope
from .output import printable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("call_id", required=False)
@click.option("--user")
@click.option("--team", help="Default: that of a key of the user.")
@click.option("--task")
@click.option("--model")
@click.option("--upstream", help="Default: the only one of the policy.")
@click.option("--format", "form", type=click.Choice(("text", "json")), default="text", show_default=True)
def explain(call_id: str | None, form: str, **who: str | None) -> None:
    """Show why a call was let pass or refused (CALL_ID), or which rules a call of --user would meet.

    The rules are those in force now, with what is left of each budget at the moment. Needs a running proxy.
    """
    if (call_id is None) == (who["user"] is None):
        raise click.UsageError("name either a CALL_ID, or somebody with --user")
    answer: dict[str, Any] = find_admin().get("/api/explain", who if call_id is None else {"call_id": call_id})
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    lines = call_lines(answer["call"]) if answer["call"] else []
    lines += scope_lines(answer["scope"])
    lines += rule_lines(answer)
    click.echo("\n".join(lines))


def call_lines(call: dict[str, Any]) -> list[str]:
    """What the record says of the decision."""
    outcome = call["refusal"] or call["result"]
    rule = f" by rule `{call['rule']}`" if call["rule"] else ""
    lines = [f"call {call['call_id']} at {call['at']}: {outcome}{rule}"]
    if call["estimate"]:
        told = ", ".join(f"{name} {value}" for name, value in call["estimate"].items())
        lines.append(f"  held     {format_usd(call['hold_nusd'])} before it ran ({printable(told)})")
    cost = "no price" if call["cost_nusd"] is None else format_usd(call["cost_nusd"])
    lines.append(f"  cost     {cost} ({call['cost_source']}), usage {call['usage_source']}")
    lines += [f"  warning  {printable(warning)}" for warning in call["warnings"]]
    if call["shadow"]:
        lines.append(f"  shadow   would have been refused by {', '.join(call['shadow'])}")
    if call["degraded"]:
        lines.append("  degraded decided while the store was away")
    if call.get("replayed"):
        waited = ", which it waited for" if call["joined"] else ""
        lines.append(f"  answer   that of call {call['twin_of']}{waited}, once more at no cost")
    if call.get("twin_of"):
        lines.append(f"  twin     of call {call['twin_of']}, found by rule `{call['twin_rule']}` ({call['twin_kind']})")
    lines.append(f"  policy   {call['policy_version']}")
    return [*lines, ""]


def scope_lines(scope: dict[str, Any]) -> list[str]:
    named = [f"{name} {printable(str(value))}" for name, value in scope.items() if value not in (None, "none")]
    return [f"for {', '.join(named)}", ""]


def rule_lines(answer: dict[str, Any]) -> list[str]:
    """The rules in force that apply, in order."""
    lines = [f"rules of policy {answer['policy_version']} that apply, in order:"]
    for rule in answer["access"]:
        shadow = " (shadow)" if rule["mode"] == "shadow" else ""
        lines.append(f"  access {rule['name']}{shadow}: {printable(rule['sentence'])}")
    for rule in answer["duplicates"]:
        shadow = " (shadow)" if rule["mode"] == "shadow" else ""
        passing = f"{rule['limit']} may pass in {rule['window']}, the next one meets `{rule['then']}`"
        lines.append(f"  duplicates {rule['name']}{shadow} ({rule['kind']}) for {told_scope(rule['scope'])}: {passing}")
    for row in answer["budgets"]:
        amounts = {name: told_amount(row["unit"], numbers(row, name)) for name in ("limit", "spent", "held", "left")}
        shadow = " (shadow)" if row["mode"] == "shadow" else ""
        resets = f", resets {row['resets_at'][:16]}Z" if row["resets_at"] else ""
        whose = told_scope(row["scope"])
        lines.append(f"  budget {row['name']}{shadow} for {whose}: {amounts['limit']}, {row['window']}")
        lines.append(f"    spent {amounts['spent']}, held {amounts['held']}, left {amounts['left']}{resets}")
    if len(lines) == 1:
        lines.append("  none: everything with a valid key passes")
    return lines
