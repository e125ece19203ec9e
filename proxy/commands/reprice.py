"""`callmeter reprice`: prices calls again whose price was unknown or assumed when they were made."""

from __future__ import annotations

from typing import Any

import click

from ..core.money import format_usd
from .admin_client import find_admin


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--since", help="How long ago (30d), or a time in RFC 3339. Default: from the beginning.")
def reprice(since: str | None) -> None:
    """Price calls again that have no price or an assumed one. Needs a running proxy.

    Add the missing prices to the policy first. Reports and the counters of open budgets follow at once.
    """
    admin = find_admin()
    looked_at = changed = difference_nusd = 0
    cursor: str | None = None
    while True:
        step: dict[str, Any] = admin.post("/api/reprice", {"since": since, "cursor": cursor})
        looked_at += step["looked_at"]
        changed += step["changed"]
        difference_nusd += step["difference_nusd"]
        cursor = step["next"]
        if cursor is None:
            break
    if not looked_at:
        click.echo("every call has its price; nothing to do", err=True)
        return
    sign = "+" if difference_nusd > 0 else ""
    click.echo(f"{looked_at:,} calls looked at, {changed:,} have another cost now: {sign}{format_usd(difference_nusd)}")
    if changed < looked_at:
        left = looked_at - changed
        click.echo(f"{left:,} are still without a price of their own; add it to `prices:` in the policy", err=True)
