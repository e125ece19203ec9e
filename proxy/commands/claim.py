"""`callmeter claim`: gives a session that ran without a task one, once."""

from __future__ import annotations

from typing import Any

import click

from ..core.money import format_usd
from .data_client import ask
from .output import printable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("session")
@click.argument("task")
def claim(session: str, task: str) -> None:
    """Give the calls of SESSION, which ran without a task, the TASK that they were for.

    Your own sessions only, once, and before the task has an accepted outcome. The calls are marked as claimed.
    """
    made: dict[str, Any] = ask("POST", "/callmeter/claims", {"session": session, "task": task})
    calls, cost = made["calls"], format_usd(made["cost_nusd"])
    counted, are = ("1 call", "is") if calls == 1 else (f"{calls:,} calls", "are")
    click.echo(f"{counted} of session {printable(session)}, {cost}, {are} of task {printable(task)} now")
