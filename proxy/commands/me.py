"""`callmeter me`: the tasks of the holder of CALLMETER_KEY, what they came to, what budgets have left, what to link."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ..core.amounts import told_amount
from ..core.money import format_usd
from .budgets import numbers, told_scope
from .data_client import ask
from .output import clipped, printable, table_line

NAME_WIDTH = 40


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def me(form: str) -> None:
    """Show my tasks and what they came to, my budgets, and what to link.

    Asks the data port (CALLMETER_URL) with CALLMETER_KEY. Shows nobody else's figures.
    """
    found: dict[str, Any] = ask("GET", "/callmeter/me")
    if form == "json":
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    click.echo(f"{printable(found['user'])} of team {printable(found['team'])}")
    for title, lines in (
        ("Tasks", task_lines(found["tasks"])),
        ("Sessions without a task", session_lines(found["sessions"])),
        ("Budgets", budget_lines(found["budgets"])),
    ):
        if lines:
            click.echo(f"\n{title}")
            click.echo("\n".join(lines))
    for hint in hints(found):
        click.echo(f"\n{hint}")


def task_lines(tasks: Sequence[dict[str, Any]]) -> list[str]:
    rows = [("TASK", "FROM", "LAST (UTC)", "CAME TO", "CALLS", "COST")]
    for task in tasks:
        states = [f"{outcome['kind']}: {outcome['state']}" for outcome in task["outcomes"]]
        rows.append(
            (
                clipped(printable(task["task"]), NAME_WIDTH),
                task["task_source"],
                task["last_at"][:16].replace("T", " "),
                printable(clipped(", ".join(states), NAME_WIDTH)) or "nothing yet",
                f"{task['calls']:,}",
                format_usd(task["cost_nusd"]),
            )
        )
    return _aligned(rows, 2)


def session_lines(sessions: Sequence[dict[str, Any]]) -> list[str]:
    rows = [("SESSION", "LAST (UTC)", "CALLS", "COST")]
    for session in sessions:
        last = session["last_at"][:16].replace("T", " ")
        name = clipped(printable(session["session"]), NAME_WIDTH)
        rows.append((name, last, f"{session['calls']:,}", format_usd(session["cost_nusd"])))
    return _aligned(rows, 2)


def budget_lines(budgets: Sequence[dict[str, Any]] | None) -> list[str]:
    if budgets is None:
        return ["the store is away; what budgets have left is not known now"]
    rows = [("BUDGET", "FOR", "WINDOW", "RESETS (UTC)", "LIMIT", "USED", "LEFT")]
    for row in budgets:
        resets = row["resets_at"]
        used = numbers(row, "spent") + numbers(row, "held")
        left = "proven" if row.get("proven") else told_amount(row["unit"], numbers(row, "left"))
        rows.append(
            (
                printable(row["name"]),
                clipped(told_scope(row["scope"]), NAME_WIDTH),
                row["window"],
                resets[:16].replace("T", " ") if resets else "-",
                told_amount(row["unit"], numbers(row, "limit")),
                told_amount(row["unit"], used),
                left,
            )
        )
    return _aligned(rows, 3)


def hints(found: dict[str, Any]) -> list[str]:
    """What to do next, in a sentence each."""
    said = []
    links = [printable(task["link"]) for task in found["tasks"] if task["link"]]
    if links:
        said.append(
            "To link what a task came to, put its line into the commit or pull request: "
            f"{', '.join(f'`{link}`' for link in links[:3])}{' ...' if len(links) > 3 else ''}"
        )
    if found["sessions"] or any(task["claimable"] for task in found["tasks"]):
        said.append(
            "A session that named no task (or only itself, from `agent`) can be given one, once: "
            "`callmeter claim SESSION TASK`"
        )
    return said


def _aligned(rows: Sequence[Sequence[str]], numbers_: int) -> list[str]:
    """The lines of a table; none where there is no row but the head."""
    if len(rows) < 2:
        return []
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [table_line(row, widths, numbers_) for row in rows]
