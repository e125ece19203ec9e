"""`callmeter check`: every fault of the policy files, where it stands and what to do about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ..core.policy import Policy


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
def check(directory: Path | None) -> None:
    """Check the policy files in DIR (default: CALLMETER_POLICIES, else `policies`).

    Prints every fault as FILE:LINE:COLUMN: message and exits with 1 if there is any. Warnings are marked as such and
    are no faults. Needs no running proxy.
    """
    # Imported here, so that `callmeter --help` does not wait for YAML.
    from ..core.price_book import compile_book
    from ..policy_watch import load_directory

    directory = directory or Path(os.environ.get("CALLMETER_POLICIES") or "policies")
    loaded = load_directory(directory, os.environ, compile_book())
    for warning in loaded.warnings:
        click.echo(f"{warning.file}:{warning.line}:{warning.column}: warning: {warning.message}")
    for fault in loaded.faults:
        click.echo(str(fault))
    if loaded.policy is None:
        raise click.exceptions.Exit(1)
    click.echo(f"{directory}: no faults; policy {loaded.policy.version} has {summary(loaded.policy)}")


def summary(policy: Policy) -> str:
    """What a policy holds, counted: `3 upstreams, 1 access rule, 2 budgets, ...`."""
    counts = (
        ("upstream", policy.upstreams),
        ("access rule", policy.access),
        ("budget", policy.budgets),
        ("duplicates rule", policy.duplicates),
        ("outcomes rule", policy.outcomes),
        ("unproven rule", policy.unproven),
        ("price", policy.prices),
    )
    return ", ".join(f"{len(things)} {name}{'' if len(things) == 1 else 's'}" for name, things in counts)
