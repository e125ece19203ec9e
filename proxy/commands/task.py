"""`callmeter task`: a task key, made offline from CALLMETER_KEY; and the environment that agents take it from."""

from __future__ import annotations

import json
import os
import shlex
import time
import urllib.parse
from collections.abc import Mapping

import click

from ..core.keys import Caveat, KeyInvalid, attenuate, expiry_ms, parse
from ..core.money import parse_usd
from ..core.record import rfc3339

URL_DEFAULT = "http://127.0.0.1:8080"
"""Where `callmeter serve` listens unless it was told otherwise."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name")
@click.option("--max-cost", metavar="$5", help="What calls with this task key, and with keys made from it, may cost.")
@click.option("--expires", metavar="8h", help="For how long (8h, 90d), or until when (RFC 3339).")
@click.option("--models", multiple=True, metavar="GLOB", help="Only these models. Repeatable, or with commas.")
@click.option("--upstreams", multiple=True, metavar="GLOB", help="Only these upstreams. Repeatable, or with commas.")
@click.option(
    "--shell", "form", flag_value="shell", help='Print export lines, for `eval "$(callmeter task T --shell)"`.'
)
@click.option("--json", "form", flag_value="json", help="Print the task key and the environment as JSON.")
def task(
    name: str,
    max_cost: str | None,
    expires: str | None,
    models: tuple[str, ...],
    upstreams: tuple[str, ...],
    form: str | None,
) -> None:
    """Print a key for the task NAME, made from CALLMETER_KEY. Needs no running proxy.

    Whoever holds it can work on this task alone, as you, and cannot undo any limit given here. The line that links
    what the work comes to with the task goes to standard error.
    """
    caveats = [Caveat("task", name)]
    try:
        if max_cost is not None:
            caveats.append(Caveat("max_cost", parse_usd(max_cost)))
        if expires is not None:
            caveats.append(Caveat("expires", expiry_ms(expires, int(time.time() * 1000))))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for kind, globs in (("models", _split(models)), ("upstreams", _split(upstreams))):
        if not globs and (models if kind == "models" else upstreams):
            # `--models "$UNSET"` must not give a task key for all of them.
            raise click.UsageError(f"--{kind} is empty; name at least one, or leave it out for all")
        if globs:
            caveats.append(Caveat("models" if kind == "models" else "upstreams", globs))
    key = task_key(os.environ, caveats)
    environment = agent_environment(os.environ, key)
    if form == "shell":
        for variable, value in environment.items():
            click.echo(f"export {variable}={shlex.quote(value)}")
    elif form == "json":
        expires_at_ms = parse(key).expires_at_ms
        expires_at = None if expires_at_ms is None else rfc3339(expires_at_ms)
        shown: dict[str, object] = {"task": name, "key": key, "expires_at": expires_at, "trailer": trailer(name)}
        shown["environment"] = environment
        click.echo(json.dumps(shown, indent=2))
    else:
        click.echo(key)
    if form != "json":
        # Beside the key, which stands alone on standard output.
        click.echo(f"put this line into the commit or pull request that it comes to: {trailer(name)}", err=True)


def trailer(task_name: str) -> str:
    """The line by which a commit, or the description of a pull request, names its task."""
    return f"Task: {task_name}"


def task_key(environ: Mapping[str, str], caveats: list[Caveat]) -> str:
    """CALLMETER_KEY narrowed by these caveats. Raises click.ClickException."""
    try:
        return attenuate(caller_key(environ), caveats)
    except KeyInvalid as invalid:
        raise click.ClickException(str(invalid)) from None


def caller_key(environ: Mapping[str, str]) -> str:
    """CALLMETER_KEY, well formed. Raises click.ClickException."""
    key = environ.get("CALLMETER_KEY", "").strip()
    if not key:
        raise click.ClickException(
            "CALLMETER_KEY is not set: export the key that your admin gave you "
            "(made with `callmeter keys create --user NAME`)"
        )
    try:
        parse(key)
    except KeyInvalid as invalid:
        raise click.ClickException(f"CALLMETER_KEY: {invalid}") from None
    return key


def proxy_url(environ: Mapping[str, str]) -> str:
    """CALLMETER_URL without a slash at its end, else the default of this machine. Raises click.ClickException."""
    url = (environ.get("CALLMETER_URL") or URL_DEFAULT).rstrip("/")
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise click.ClickException(f"CALLMETER_URL is `{url}`; write it like {URL_DEFAULT}")
    return url


def agent_environment(environ: Mapping[str, str], key: str) -> dict[str, str]:
    """The variables that point SDKs and agents at the proxy, with this key.

    Base URLs differ: OpenAI's SDKs add `/chat/completions` to one that ends in `/v1`; those of Anthropic and Google
    add the whole path. `OPENAI_API_BASE` is what aider and older SDKs read.
    """
    url = proxy_url(environ)
    environment = {
        "CALLMETER_URL": url,
        "CALLMETER_KEY": key,
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
        # Claude Code prefers this one to a saved login, which would otherwise go past the proxy's key.
        "ANTHROPIC_AUTH_TOKEN": key,
        "GOOGLE_GEMINI_BASE_URL": url,
        "GEMINI_API_KEY": key,
    }
    if environ.get("GOOGLE_API_KEY"):
        # Google's SDKs take this one first where both are set.
        environment["GOOGLE_API_KEY"] = key
    return environment


def _split(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(glob.strip() for text in texts for glob in text.split(",") if glob.strip())
