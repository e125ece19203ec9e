"""`callmeter keys`: makes, shows, changes and revokes keys, one at a time or from a CSV file."""

from __future__ import annotations

import csv
import io
import json
import time
import urllib.parse
from collections.abc import Iterable
from typing import Any

import click

from ..core.keys import TAG_CHARS_MAX, expiry_ms, is_tag
from ..core.record import rfc3339
from .admin_client import find_admin

KINDS = ("person", "service")
COLUMNS = ("user", "team", "org", "labels", "expires", "kind")
ROWS_MAX = 10_000
"""One import is one transaction and one answer; a larger company imports in parts."""
NEVER = "never"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def keys() -> None:
    """Make, list, change and revoke keys. Needs a running proxy."""


@keys.command()
@click.option("--user", required=True, help="Whose key it is: the user of every call made with it.")
@click.option("--team", default="default", show_default=True)
@click.option("--org", default="default", show_default=True)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Goes into every record. Repeatable.")
@click.option("--expires", metavar="90d", help="For how long (90d, 8h), or until when (RFC 3339). Default: for ever.")
@click.option("--kind", type=click.Choice(KINDS), default="person", show_default=True)
@click.option("--acts-for", metavar="GLOB", help="Users that a service key may name in `x-callmeter-user`.")
def create(
    user: str, team: str, org: str, labels: tuple[str, ...], expires: str | None, kind: str, acts_for: str | None
) -> None:
    """Make a key and print it, alone. It is shown this once."""
    for option, value in (("--user", user), ("--team", team), ("--org", org), ("--acts-for", acts_for)):
        _need_name(option, value)
    if acts_for is not None and kind != "service":
        raise click.UsageError("--acts-for is for service keys: add `--kind service`")
    body = {
        "user": user,
        "team": team,
        "org": org,
        "labels": _labels(labels),
        "kind": kind,
        "acts_for": acts_for,
        "expires_at": _expires_at(expires),
    }
    click.echo(find_admin().post("/api/keys", body)["key"])


@keys.command("list")
@click.option("--format", "form", type=click.Choice(("table", "json")), default="table", show_default=True)
def list_keys(form: str) -> None:
    """List all keys with what they stand for, by user. Keys themselves are stored nowhere."""
    found: list[dict[str, Any]] = find_admin().get("/api/keys")["keys"]
    found.sort(key=lambda key: (str(key.get("user")), str(key.get("key_id"))))
    if form == "json":
        click.echo(json.dumps({"keys": found}, indent=2))
        return
    if not found:
        click.echo("no keys yet; make one with `callmeter keys create --user NAME`", err=True)
        return
    heads = ("KEY ID", "USER", "TEAM", "ORG", "KIND", "ACTS FOR", "LABELS", "EXPIRES", "STATE")
    rows = [heads, *(_row(key, int(time.time() * 1000)) for key in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@keys.command()
@click.argument("key_id", metavar="ID")
@click.option("--team")
@click.option("--org")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Replaces all labels. Repeatable.")
@click.option("--no-labels", is_flag=True, help="Takes all labels away.")
@click.option("--expires", metavar="90d", help="As for create; `never` takes the expiry away.")
@click.option("--kind", type=click.Choice(KINDS))
@click.option("--acts-for", metavar="GLOB")
def update(
    key_id: str,
    team: str | None,
    org: str | None,
    labels: tuple[str, ...],
    no_labels: bool,
    expires: str | None,
    kind: str | None,
    acts_for: str | None,
) -> None:
    """Change what the key ID stands for. Its user stays: another user needs another key."""
    for option, value in (("--team", team), ("--org", org), ("--acts-for", acts_for)):
        _need_name(option, value)
    if labels and no_labels:
        raise click.UsageError("--label and --no-labels contradict each other")
    named = {"team": team, "org": org, "kind": kind, "acts_for": acts_for}
    body: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if labels or no_labels:
        body["labels"] = _labels(labels)
    if expires is not None:
        body["expires_at"] = None if expires == NEVER else _expires_at(expires)
    if not body:
        raise click.UsageError("nothing to change; say what, as in `--team payments`")
    find_admin().patch(_key_path(key_id), body)
    click.echo(f"key {key_id} changed", err=True)


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """Refuse the key ID, and every task key made from it, from now on and for good."""
    find_admin().post(_key_path(key_id) + "/revoke", {})
    click.echo(f"key {key_id} revoked", err=True)


@keys.command("import")
@click.argument("file", metavar="CSV", type=click.File("rb"))
def import_keys(file: io.BufferedReader) -> None:
    """Make a key for each line of a CSV file (`-`: standard input) and print them as CSV: user,key_id,key.

    The first line names the columns: user, and any of team, org, labels (`a=b;c=d`), expires, kind. With any fault
    in the file, no key is made.
    """
    rows, faults = read_rows(file.read())
    if faults:
        name = getattr(file, "name", "-")
        raise click.ClickException("\n".join([*(f"{name}:{fault}" for fault in faults), "no key was made"]))
    made = find_admin().post("/api/keys/import", {"keys": rows})["keys"]
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(("user", "key_id", "key"))
    writer.writerows((key["user"], key["key_id"], key["key"]) for key in made)
    click.echo(output.getvalue(), nl=False)


def read_rows(data: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """The keys that a CSV file asks for, as the API takes them, and every fault as `LINE: sentence`."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError:
        return [], ["1: the file is not UTF-8 text"]
    except csv.Error as error:
        return [], [f"{reader.line_num}: {error}"]
    if not lines:
        return [], ["1: the file is empty; its first line names the columns, such as `user,team`"]
    head_line, head = lines[0]
    columns = [cell.strip().lower() for cell in head]
    faults = [f"{head_line}: unknown column `{c}`; use {', '.join(COLUMNS)}" for c in columns if c not in COLUMNS]
    faults += [f"{head_line}: column `{c}` comes twice" for c in sorted(set(columns)) if columns.count(c) > 1]
    if "user" not in columns:
        faults.append(f"{head_line}: the column `user` is missing")
    if faults:
        return [], faults
    if len(lines) == 1:
        return [], [f"{head_line}: no keys below the first line"]
    if len(lines) - 1 > ROWS_MAX:
        return [], [f"{lines[ROWS_MAX + 1][0]}: more than {ROWS_MAX} keys; split the file"]
    rows: list[dict[str, Any]] = []
    first_line: dict[tuple[str, ...], int] = {}
    for line, cells in lines[1:]:
        cells = [cell.strip() for cell in cells]
        if len(cells) > len(columns):
            faults.append(f"{line}: {len(cells)} values for {len(columns)} columns")
            continue
        same_line = first_line.setdefault(tuple(cells), line)
        if same_line != line:
            faults.append(f"{line}: the same as line {same_line}")
        row, row_faults = _read_row(dict(zip(columns, cells, strict=False)))
        rows.append(row)
        faults += [f"{line}: {fault}" for fault in row_faults]
    return rows, faults


def _read_row(values: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    faults: list[str] = []
    row: dict[str, Any] = {
        "user": values["user"],
        "team": values.get("team") or "default",
        "org": values.get("org") or "default",
        "kind": values.get("kind") or "person",
    }
    if not row["user"]:
        faults.append("`user` is empty")
    faults += [
        f"`{name}` is not a short, printable name"
        for name in ("user", "team", "org")
        if row[name] and not is_tag(row[name])
    ]
    if row["kind"] not in KINDS:
        faults.append(f"`kind` is `{row['kind']}`; write `person` or `service`")
    try:
        row["labels"] = _labels(filter(None, map(str.strip, (values.get("labels") or "").split(";"))))
    except click.UsageError as error:
        faults.append(error.message)
    try:
        row["expires_at"] = _expires_at(values.get("expires") or None)
    except click.UsageError as error:
        faults.append(error.message)
    return row, faults


def _need_name(option: str, value: str | None) -> None:
    if value is not None and not is_tag(value):
        raise click.UsageError(f"{option} is `{value}`; give it 1 to {TAG_CHARS_MAX} printable characters")


def _labels(texts: Iterable[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not is_tag(name) or not is_tag(value):
            raise click.UsageError(f"`{text}` is no label; write `name=value`")
        if name in labels:
            raise click.UsageError(f"label `{name}` comes twice")
        labels[name] = value
    return labels


def _expires_at(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return rfc3339(expiry_ms(text, int(time.time() * 1000)))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _key_path(key_id: str) -> str:
    """A whole key, given where its id is asked for, is not sent on: it would stand in logs."""
    if key_id.startswith("cm_"):
        raise click.UsageError("give the id of the key, not the key; `callmeter keys list` shows it")
    return "/api/keys/" + urllib.parse.quote(key_id, safe="")


def _row(key: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    expires = key.get("expires_at") or NEVER
    state = "revoked" if key.get("revoked_at") else "expired" if _is_past(expires, now_ms) else "valid"
    labels = ",".join(f"{name}={value}" for name, value in sorted((key.get("labels") or {}).items()))
    names = (str(key.get(name) or "") for name in ("key_id", "user", "team", "org", "kind", "acts_for"))
    return (*names, labels, str(expires), state)


def _is_past(expires: str, now_ms: int) -> bool:
    # RFC 3339 in UTC with the same number of digits sorts as time does.
    return expires != NEVER and str(expires) <= rfc3339(now_ms)
