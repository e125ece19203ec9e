"""`callmeter forget`: takes a person out of the ledger, or old calls. Sums stay what they were."""

from __future__ import annotations

from typing import Any

import click

from .admin_client import find_admin

SUMMED = ("keys", "raises", "alerts", "claims")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--user", help="Whom to forget: their calls belong to `forgotten` afterwards.")
@click.option("--calls-before", metavar="TIME", help="Drop single calls older than this (400d, or a time). Sums stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def forget(user: str | None, calls_before: str | None, yes: bool) -> None:
    """Delete a person's data, or old calls; what was spent stays. Needs a running proxy.

    It cannot be undone. The keys of the user are revoked.
    """
    if (user is None) == (calls_before is None):
        raise click.UsageError("say either --user or --calls-before")
    admin = find_admin()
    what = f"everything that tells of `{user}`" if user is not None else f"all single calls before {calls_before}"
    if not yes:
        click.confirm(f"Delete {what} for good?", abort=True, err=True)
    body = {"user": user} if user is not None else {"calls_before": calls_before}
    calls = 0
    while True:
        step: dict[str, Any] = admin.post("/api/forget", body)
        calls += step["calls"]
        if not step["more"]:
            break
    if user is None:
        click.echo(f"{calls:,} calls dropped; reports before {calls_before} count by whole hours now")
        return
    click.echo(
        f"{calls:,} calls of `{user}` belong to `forgotten` now; {', '.join(f'{step[name]} {name}' for name in SUMMED)}"
    )
    click.echo(
        "Not reached from here: counters in the store, which end with their windows; policy files; logs, traces and "
        "exports elsewhere; backups; the provider. Calls that were running come in later: run it again in an hour.",
        err=True,
    )
