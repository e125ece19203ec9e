"""`callmeter serve`: settings from flags and environment, then the supervisor."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from ..settings import PRIVATE_UMASK, SettingsInvalid, load

if TYPE_CHECKING:
    from ..supervisor import Announcement


@click.command()
@click.option("--host", help="Address of the data port.  [127.0.0.1]")
@click.option("--port", help="Data port; 0: a free one.  [8080]")
@click.option("--admin-host", help="Address of the admin port.  [127.0.0.1]")
@click.option("--admin-port", help="Admin port; 0: a free one.  [8081]")
@click.option("--policies", help="Directory of the policy files.  [policies]")
@click.option("--data", help="Directory for ledger, secret and spool.  [data]")
@click.option("--redis-url", help="Redis or Valkey to use in place of the embedded one.")
@click.option("--workers", help="Worker processes.  [one for each core]")
@click.option("--only", help="`workers` or `bookkeeper`: one kind alone, for orchestrators.")
@click.option("--drain-seconds", help="How long running calls may take to end after SIGTERM.  [30]")
@click.option("--log-format", help="`human` or `json`.  [human]")
@click.option("--log-calls", help="`yes`: a line for every call, not only for failed and refused ones.  [no]")
def serve(**flags: Any) -> None:
    """Serve. Every option is also an environment variable: --admin-port is CALLMETER_ADMIN_PORT, and so on."""
    os.umask(PRIVATE_UMASK)  # also for the store and every process that we start
    try:
        settings = load(os.environ, flags)
    except SettingsInvalid as invalid:
        for fault in invalid.faults:
            click.echo(f"callmeter: {fault}", err=True)
        sys.exit(2)
    from ..supervisor import StartFailed, Supervisor
    from ..telemetry import logs

    logs.configure(settings.log_format)
    try:
        asyncio.run(Supervisor(settings, announce).run())
    except StartFailed as failed:
        click.echo(f"callmeter: {failed}", err=True)
        sys.exit(1)


def announce(told: Announcement) -> None:
    """The first thing a person sees: where it serves, and what to set in an SDK."""
    from ..settings import url_on_this_machine

    settings, first_key = told.settings, told.first_key
    url = url_on_this_machine(settings.host, settings.port)
    admin = url_on_this_machine(settings.admin_host, settings.admin_port)
    if settings.only != "bookkeeper":
        click.echo(f"Callmeter serves on {url}")
    if settings.only != "workers":
        click.echo(f"The admin port is {admin}; its token is in {settings.data / 'admin.token'}")
    if settings.only == "bookkeeper":
        return
    key = first_key or "<your key: `callmeter keys create --user NAME`>"
    if first_key is not None:
        click.echo("\nThe first key, shown this once:")
        click.echo(f"  {first_key}")
    click.echo(
        f"""
Point an agent or SDK at it with three lines, for example:
  export OPENAI_BASE_URL={url}/v1      OPENAI_API_KEY={key}
  export ANTHROPIC_BASE_URL={url}      ANTHROPIC_API_KEY={key}
  export GOOGLE_GEMINI_BASE_URL={url}  GEMINI_API_KEY={key}
"""
    )
    if told.keyless:
        several = len(told.keyless) > 1
        click.echo(
            f"No provider key for the upstream{'s' * several} {', '.join(told.keyless)}: set what `key:` names in the "
            "policy before starting, or let\ncallers bring their own provider key and send the Callmeter key beside it "
            "in the header x-callmeter-key.\n"
        )
    sys.stdout.flush()
