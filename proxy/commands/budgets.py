"""`callmeter budgets`: what budgets allow and what is spent and held of them; `raise` gives more for a while."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.amounts import told_amount
from .admin_client import find_admin
from .output import printable, table_line

HEADS = ("BUDGET", "FOR", "WINDOW", "LIMIT", "SPENT", "HELD", "LEFT", "RESETS (UTC)", "MODE")
NUMBERS = slice(3, 7)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
@click.pass_context
def budgets(ctx: click.Context, form: str) -> None:
    """Show what each budget stands at in its open window. Needs a running proxy.

    Rows stand in the order of names and cannot be sorted by use: this product ranks nobody.
    """
    if ctx.invoked_subcommand is not None:
        return
    answer: dict[str, Any] = find_admin().get("/api/budgets")
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif not answer["budgets"]:
        click.echo("no budget has anything spent or held in its open window", err=True)
    else:
        click.echo(budget_table(answer["budgets"]))


@budgets.command("raise")
@click.argument("name")
@click.option("--for", "scope", multiple=True, metavar="FIELD=VALUE", help="Whose, as the budget's `per`. Repeatable.")
@click.option("--by", required=True, help="How much more: `$20`, `2M tokens`, `500 calls`, `4 concurrent`.")
@click.option("--until", required=True, help="For how long (3d, 8h), or until when (RFC 3339).")
@click.option("--reason", required=True, help="Why; it is kept with the raise.")
def raise_(name: str, scope: tuple[str, ...], by: str, until: str, reason: str) -> None:
    """Let a budget allow more for a while. The raise is recorded, and counts within a second."""
    named = {}
    for pair in scope:
        field, equals, value = pair.partition("=")
        if not equals or not field or not value:
            raise click.UsageError(f"`--for {pair}` must name a field and its value, like `--for user=ada`")
        named[field] = value
    body = {"budget": name, "for": named, "by": by, "until": until, "reason": reason}
    made: dict[str, Any] = find_admin().post("/api/budgets/raises", body)
    click.echo(raise_line(made))


@budgets.command()
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def raises(form: str) -> None:
    """List all raises that were ever given."""
    answer: dict[str, Any] = find_admin().get("/api/budgets/raises")
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    if not answer["raises"]:
        click.echo("no budget was ever raised", err=True)
    for given in answer["raises"]:
        click.echo(f"{given['at'][:16]}Z  {'open ' if given['open'] else 'ended'}  {raise_line(given)}")


def raise_line(given: dict[str, Any]) -> str:
    amount = told_amount(given["unit"], given["by_nusd" if given["unit"] == "nusd" else "by"])
    whose = told_scope(given["for"])
    reason = printable(given["reason"])
    return f"{given['budget']} for {whose}: {amount} more until {given['until'][:16]}Z, because: {reason}"


def told_scope(scope: dict[str, str]) -> str:
    """For whom a counter is: `user=ada`."""
    return printable(" ".join(f"{field}={value}" for field, value in scope.items())) or "all"


def numbers(row: dict[str, Any], name: str) -> int:
    """A number of a counter, whichever unit it has."""
    found: int = row[f"{name}_nusd"] if row["unit"] == "nusd" else row[name]
    return found


def budget_table(rows: list[dict[str, Any]]) -> str:
    """The counters as a table."""
    lines = [list(HEADS)]
    for row in rows:
        amounts = [told_amount(row["unit"], numbers(row, name)) for name in ("limit", "spent", "held", "left")]
        if row.get("proven"):
            amounts[-1] = "proven"  # an outcome lifts the rule: nothing is left or used up
        resets = row["resets_at"]
        lines.append(
            [
                printable(row["name"]),
                told_scope(row["scope"]),
                row["window"],
                *amounts,
                resets[:16].replace("T", " ") if resets else "-",
                row["mode"],
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    for line in lines:
        line[NUMBERS] = [cell.rjust(width) for cell, width in zip(line[NUMBERS], widths[NUMBERS], strict=True)]
    return "\n".join(table_line(line, widths, 0) for line in lines)
