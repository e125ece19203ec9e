"""`callmeter outcome`: what tasks came to, and outcomes that somebody declares, marked as what they are."""

from __future__ import annotations

import json
from typing import Any

import click

from .admin_client import find_admin
from .output import clipped, printable, table_line

HEADS = ("LANDED (UTC)", "TASK", "RULE", "KIND", "WHERE", "SOURCE", "WEIGHT", "STATE")
WHERE_WIDTH = 40


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def outcome() -> None:
    """Show what tasks came to, or declare an outcome that no source tells of. Needs a running proxy."""


@outcome.command("list")
@click.option("--task", metavar="T", help="Of one task only.")
@click.option("--state", type=click.Choice(("pending", "accepted", "undone")))
@click.option("--since", metavar="30d", help="Landed since then: how long ago, or a time.")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def list_(task: str | None, state: str | None, since: str | None, form: str) -> None:
    """List outcomes, the latest first."""
    answer: dict[str, Any] = find_admin().get("/api/outcomes", {"task": task, "state": state, "since": since})
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif not answer["outcomes"]:
        nothing = "no outcome is known; docs/outcomes.md says how sources tell of them"
        if task or state or since:
            nothing = "no such outcome is known; look without --task, --state and --since"
        click.echo(nothing, err=True)
    else:
        click.echo(outcome_table(answer["outcomes"]))


@outcome.command()
@click.argument("task")
@click.option("--rule", metavar="NAME", help="A rule of `outcomes` with `from: declared`; by default the only one.")
@click.option("--change", metavar="TEXT", help="What it is, so that it is declared once only: a number, a title.")
def add(task: str, rule: str | None, change: str | None) -> None:
    """Declare that TASK came to something. Marked `self_declared`; counts only where a rule says so."""
    made: dict[str, Any] = find_admin().post("/api/outcomes", {"task": task, "rule": rule, "change": change})
    click.echo(outcome_table([made]))
    if made["accepted_after_seconds"] is None:
        click.echo("it is never accepted: the policy has no rule of `outcomes` with `from: declared`", err=True)


def outcome_table(rows: list[dict[str, Any]]) -> str:
    """Outcomes as a table."""
    lines = [HEADS]
    for row in rows:
        where = "@".join(part for part in (row["repo"], row["base"]) if part) or row["change"]
        state = row["state"] if not row["reason"] else f"{row['state']}: {row['reason']}"
        if row["state"] == "pending" and row["due_at"]:
            state = f"pending until {row['due_at'][:16]}Z"
        lines.append(
            (
                row["landed_at"][:16].replace("T", " "),
                printable(row["task"]) or "-",
                printable(row["rule"]) or "-",
                printable(row["kind"]),
                printable(clipped(where, WHERE_WIDTH)),
                row["source"],
                str(row["weight"]),
                state,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return "\n".join(table_line(line, widths, 0) for line in lines)
