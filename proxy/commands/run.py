"""`callmeter run`: starts an agent with the proxy's base URLs and a task key, however that agent takes them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..core.keys import Caveat, is_tag, parse
from .task import agent_environment, caller_key, task_key

GIT_TIMEOUT_S = 5.0
TRUNKS = frozenset(("main", "master", "trunk", "develop", "HEAD"))
"""Branches that everybody works on name no task."""
NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What a shell answers in these two cases."""

GEMINI_AUTH = "gemini-api-key"

_TICKET = re.compile(r"(?<![A-Za-z0-9])[A-Z][A-Z0-9]{1,15}-[0-9]{1,9}(?![A-Za-z0-9])")


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
@click.option("--task", "name", metavar="NAME", help="The task. Default: from the git branch, such as PAY-7.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(name: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND with base URLs and a task key in its environment, or in its config where the agent needs that.

    The command takes the place of this one: its exit code, signals and terminal are its own.
    """
    key = caller_key(os.environ)
    proven = parse(key).task
    task = name or proven or branch_task(Path.cwd())
    if task is None:
        raise click.ClickException(
            "the git branch here names no task; say which one: `callmeter run --task NAME -- ...`"
        )
    if task != proven:
        # A task key for another task refuses here, with both names.
        key = task_key(os.environ, [Caveat("task", task)])
    variables = agent_environment(os.environ, key)
    arguments, environment = prepare(command, os.environ, variables)
    agent = agent_name(command)
    if agent in PREPARATIONS:
        click.echo(f"callmeter: {agent} runs for task `{task}` through {variables['CALLMETER_URL']}", err=True)
    else:
        click.echo(f"callmeter: task `{task}`; set for `{agent}`: {' '.join(variables)}", err=True)
    _replace_by(arguments, environment)


def branch_task(directory: Path) -> str | None:
    """The task that the git branch names: a ticket in it (`PAY-7`), else the branch. None on a trunk or outside git."""
    try:
        found = subprocess.run(
            ["git", "symbolic-ref", "--quiet", "--short", "HEAD"],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    branch = found.stdout.strip()
    if found.returncode != 0 or not branch or branch in TRUNKS:
        return None
    ticket = _TICKET.search(branch)
    task = ticket[0] if ticket else branch
    return task if is_tag(task) else None


def agent_name(command: Sequence[str]) -> str:
    """The program's own name, without its folder and ending."""
    return Path(command[0]).stem if Path(command[0]).suffix in (".exe", ".cmd", ".js") else Path(command[0]).name


def prepare(
    command: Sequence[str], environ: Mapping[str, str], variables: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The arguments and the whole environment for a command: `variables` for all, and what its agent needs beside."""
    arguments = list(command)
    environment = {**without_our_own_path(environ), **variables}
    preparation = PREPARATIONS.get(agent_name(command))
    if preparation is not None:
        preparation(arguments, environment)
    return arguments, environment


def without_our_own_path(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what `./dev` put into it: the agent's own Python must not find our `tests` or `proxy`."""
    ours = str(Path(__file__).resolve().parents[2])
    paths = [path for path in environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != ours]
    rest = {name: value for name, value in environ.items() if name != "PYTHONPATH"}
    return rest | {"PYTHONPATH": os.pathsep.join(paths)} if paths else rest


def _prepare_codex(arguments: list[str], environment: dict[str, str]) -> None:
    """Codex takes a base URL only from a provider in its config; `-c` values are TOML, as these JSON strings are.

    `responses` is the one wire format that its releases since 2026 accept (docs read in November 2026).
    """
    provider = {
        "name": "Callmeter",
        "base_url": environment["OPENAI_BASE_URL"],
        "env_key": "CALLMETER_KEY",
        "wire_api": "responses",
    }
    settings = {"model_provider": "callmeter"}
    settings |= {f"model_providers.callmeter.{name}": value for name, value in provider.items()}
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={json.dumps(value)}")]
    # After the program and before its own arguments, so that a subcommand and what the user says come later.
    arguments[1:1] = flags


def _prepare_opencode(arguments: list[str], environment: dict[str, str]) -> None:
    """opencode merges the JSON in OPENCODE_CONFIG_CONTENT over its files; what the user has there is kept.

    Its SDKs (ai-sdk) want base URLs with the version in them, for all three dialects.
    """
    url = environment["CALLMETER_URL"]
    key = environment["CALLMETER_KEY"]
    try:
        config: Any = json.loads(environment.get("OPENCODE_CONFIG_CONTENT") or "{}")
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise click.ClickException("OPENCODE_CONFIG_CONTENT is set and is no JSON object; correct it or unset it")
    versions = {"openai": "v1", "anthropic": "v1", "google": "v1beta"}
    ours = {name: {"options": {"baseURL": f"{url}/{version}", "apiKey": key}} for name, version in versions.items()}
    environment["OPENCODE_CONFIG_CONTENT"] = json.dumps(_merged(config, {"provider": ours}))


def _prepare_claude(arguments: list[str], environment: dict[str, str]) -> None:
    """Claude Code warns of two credentials, and asks before it takes ANTHROPIC_API_KEY; the token it takes as it is."""
    environment.pop("ANTHROPIC_API_KEY", None)


def _prepare_gemini(arguments: list[str], environment: dict[str, str]) -> None:
    """Gemini CLI uses its API key only where its own settings choose that; with a login it would go past the proxy.

    No variable can choose it, and settings from elsewhere must belong to root, so its user has to do it, once.
    """
    environment.setdefault("GEMINI_DEFAULT_AUTH_TYPE", GEMINI_AUTH)
    settings = Path(environment.get("GEMINI_CLI_HOME") or Path.home()) / ".gemini" / "settings.json"
    try:
        # Looked for rather than parsed: these settings may hold comments.
        chosen = f'"{GEMINI_AUTH}"' in settings.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        chosen = False
    if not chosen:
        wanted = json.dumps({"security": {"auth": {"selectedType": GEMINI_AUTH}}})
        click.echo(f"callmeter: Gemini CLI needs {wanted} in {settings}, once, to use this key", err=True)


def _prepare_qwen(arguments: list[str], environment: dict[str, str]) -> None:
    """Qwen Code takes the variables only when told that it talks to OpenAI's dialect; what its user says stays."""
    if not any(argument.split("=")[0] == "--auth-type" for argument in arguments):
        arguments[1:1] = ["--auth-type", "openai"]


def _prepare_nothing(arguments: list[str], environment: dict[str, str]) -> None:
    """The variables are all that this agent needs."""


PREPARATIONS = {
    "codex": _prepare_codex,
    "opencode": _prepare_opencode,
    "claude": _prepare_claude,
    "gemini": _prepare_gemini,
    "qwen": _prepare_qwen,
    "aider": _prepare_nothing,
}
"""Agents by the name of their program, with what they need beside the variables."""


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both, object by object; `above` wins."""
    merged = dict(below)
    for name, value in above.items():
        under = merged.get(name)
        merged[name] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return merged


def _replace_by(arguments: list[str], environment: dict[str, str]) -> None:
    """Becomes the command. Where a process cannot be replaced (Windows), waits for it and passes on its exit code."""
    try:
        if os.name == "posix":
            sys.stdout.flush()
            sys.stderr.flush()
            os.execvpe(arguments[0], arguments, environment)
        sys.exit(subprocess.run(arguments, env=environment, check=False).returncode)
    except FileNotFoundError:
        click.echo(f"Error: `{arguments[0]}` is not installed, or not on PATH", err=True)
        sys.exit(NOT_FOUND)
    except OSError as error:
        click.echo(f"Error: `{arguments[0]}` cannot be run: {error.strerror}", err=True)
        sys.exit(NOT_EXECUTABLE)
