"""`callmeter rehearse`: what a changed policy would have refused of the calls that were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from ..core.money import format_usd
from .admin_client import find_admin
from .output import printable, table_line

HEADS = ("RULE", "WOULD HAVE", "TASKS STOPPED", "CALLS", "COST")
NUMBERS = 2
TASKS_NAMED = 5
REPLAY_S = 600.0
"""A million calls take a minute."""

WOULD_HAVE = {
    "enforce": "refused",
    "use": "changed the model",
    "shadow": "only said so (shadow, or `then: warn`)",
    "recorded": "(said so, in force as shadow)",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--since", default="7d", show_default=True, help="How long ago, or a time in RFC 3339.")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def rehearse(directory: Path, since: str, form: str) -> None:
    """Replay recorded calls against the policy files in DIR, which are not in force. Changes nothing.

    Calls count with what they really cost. Needs a running proxy; `${NAME}` in the files reads its environment.
    """
    # Imported here, so that `callmeter --help` does not wait for YAML.
    from ..policy_watch import PolicyUnreadable, read_directory

    try:
        files = read_directory(directory)
    except PolicyUnreadable as unreadable:
        raise click.ClickException(str(unreadable)) from None
    answer: dict[str, Any] = find_admin().post("/api/rehearse", {"files": files, "since": since}, timeout_s=REPLAY_S)
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    for fault in answer["faults"] if form == "table" else ():
        click.echo(fault)
    if answer["faults"]:
        raise click.exceptions.Exit(1)
    if form == "table":
        click.echo(told(answer, since))


def told(answer: dict[str, Any], since: str) -> str:
    total = answer["total"]
    share = (
        f"{total['refused_calls']:,} of {total['calls']:,} calls since {since} would have been refused: "
        f"{format_usd(total['refused_nusd'])} of {format_usd(total['cost_nusd'])}"
    )
    if not answer["rules"]:
        return share
    lines = [list(HEADS)]
    for rule in answer["rules"]:
        named = [printable(task) or "(no task)" for task in rule["tasks"][:TASKS_NAMED]]
        if rule["tasks_stopped"] > len(named):
            named.append(f"and {rule['tasks_stopped'] - len(named)} more")
        cost = format_usd(rule["cost_nusd"])
        lines.append([rule["rule"], WOULD_HAVE[rule["mode"]], ", ".join(named), f"{rule['calls']:,}", cost])
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    return "\n".join([*(table_line(line, widths, NUMBERS) for line in lines), "", share])
