"""The `callmeter` command. Each subcommand is a file in `commands/`, imported when it is used, so that every call of
the command starts in a tenth of a second."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from . import __version__

COMMANDS = {
    "serve": ("serve", "Serve: data port, admin port, and the embedded store."),
    "check": ("check", "Check the policy files; print every fault."),
    "keys": ("keys", "Create, list, update, revoke and import keys."),
    "task": ("task", "Derive a task key from CALLMETER_KEY."),
    "run": ("run", "Run an agent with base URLs and a task key in its environment."),
    "me": ("me", "Show my tasks, what they came to, my budgets, and what to link."),
    "claim": ("claim", "Give a session that ran without a task one."),
    "calls": ("calls", "Show recorded calls."),
    "report": ("report", "Sum up cost and use."),
    "export": ("export", "Write FOCUS, CSV or OTLP for finance and trace tools."),
    "twins": ("twins", "List tasks that are the same work."),
    "reconcile": ("reconcile", "Hold a provider's usage or cost export against the ledger."),
    "budgets": ("budgets", "Show what budgets allow, and raise them for a while."),
    "explain": ("explain", "Show the rules that apply to a call or a user."),
    "rehearse": ("rehearse", "Replay recorded calls against a changed policy."),
    "outcome": ("outcome", "Show what tasks came to, or declare an outcome."),
    "forget": ("forget", "Delete a person's data, or old calls; sums stay."),
    "reprice": ("reprice", "Price calls again whose price was guessed or unknown."),
}
"""Subcommand -> the file in `commands/`, and what it does in a line."""


class Lazy(click.Group):
    """Knows its subcommands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".commands.{COMMANDS[cmd_name][0]}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])


OUTPUT_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What can happen to standard output; everything else that fails is told by who tried it."""


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="callmeter")
def callmeter() -> None:
    """Callmeter: a metering proxy for AI agents."""


def main() -> None:
    try:
        callmeter(prog_name="callmeter")
    except BrokenPipeError:  # `callmeter calls | head`
        sys.stderr.close()
    except UnicodeEncodeError:
        sys.exit("Error: an argument is not text in UTF-8; write it in UTF-8")
    except OSError as error:
        if error.errno not in OUTPUT_FULL:
            raise
        sys.exit(f"Error: the output cannot be written: {error.strerror}; make room, or send it elsewhere")
