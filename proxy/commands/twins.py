"""`callmeter twins`: groups of tasks that are the same work, in the order of names."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.money import format_usd
from .admin_client import find_admin
from .output import further_back, printable, table_line

HEADS = ("TASK", "USER", "BEGUN (UTC)", "REPEATS", "TIMES", "CALLS", "REFUSED", "COST")
NUMBERS = 4
ALIKE = "similar"
"""The kind of rule that sees likeness and no more."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--since", default="7d", show_default=True, help="How long ago (7d), or a time in RFC 3339.")
@click.option("--until", help="As --since. Default: now.")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def twins(since: str, until: str | None, form: str) -> None:
    """List tasks that are the same work. Needs a running proxy, and rules under `duplicates` that see it.

    Groups and their tasks stand in the order of names.

    Tasks are twins when calls of one repeat calls of another in that time. Cost is what each of them cost in all.
    """
    answer: dict[str, Any] = find_admin().get("/api/twins", {"since": since, "until": until})
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif not answer["groups"]:
        click.echo(f"no task repeats another since {since}{further_back(since, until, 365)}", err=True)
    else:
        click.echo("\n\n".join(as_table(group) for group in answer["groups"]))


def as_table(group: dict[str, Any]) -> str:
    """One group: a line for each task, and what they come to."""
    lines = [list(HEADS), *(task_line(task) for task in group["tasks"])]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    text = [table_line(line, widths, NUMBERS) for line in lines]
    return "\n".join([*text, told(group)])


def task_line(task: dict[str, Any]) -> list[str]:
    repeated = task["repeats"]
    like = "like " if repeated and repeated["kind"] == ALIKE else ""
    other = f"{like}{repeated['task']} of {repeated['user']}" if repeated else "-"
    begun = task["first_at"][5:16].replace("T", " ")
    cost = format_usd(task["cost_nusd"])
    counts = [f"{task[name]:,}" for name in ("conversations", "calls", "refused")]
    return [printable(task["task"]), printable(task["user"]), begun, printable(other), *counts, cost]


def told(group: dict[str, Any]) -> str:
    tasks, people = group["tasks"], {(task["org"], task["user"]) for task in group["tasks"]}
    who = "one person" if len(people) == 1 else f"{len(people)} people"
    alike = any(task["repeats"] and task["repeats"]["kind"] == ALIKE for task in tasks)
    what = "The same work, or much alike," if alike else "The same work"
    cost, one = format_usd(group["cost_nusd"]), format_usd(group["one_cost_nusd"])
    times = sum(task["conversations"] for task in tasks)
    count = sum(task["refused"] for task in tasks)
    refused = f", {count:,} of its {group['calls']:,} calls refused" if count else ""
    return f"{what} {times:,} times, by {who}{refused}: {cost} in all; done once, it would have cost {one}."
