"""`callmeter export`: the ledger as a file for others: FOCUS and CSV for finance, OTLP for trace backends."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec

from ..core.cells import csv_lines
from ..core.record import Record, ms_of_rfc3339
from .admin_client import AdminClient, find_admin
from .calls import CSV_FIELDS, CSV_USAGE

PAGE_CALLS = 1_000

ABOUT_PEOPLE = frozenset({"user", "key_id", "session", "user_agent"})
"""Fields that lead to a person: left out unless `--with-users` is said."""

Query = dict[str, str | int | None]


def options(command: Callable[..., None]) -> Callable[..., None]:
    """What every export takes."""
    for option in (
        click.option("--since", default="30d", show_default=True, help="How long ago (7d), or a time in RFC 3339."),
        click.option("--until", help="As --since. Default: now."),
        click.option("--timezone", help="Of months, and of times without an offset. Default: UTC."),
        click.option("--with-users", is_flag=True, help="Say whose calls they are; without it nobody is named."),
        click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; else stdout."),
    ):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def export() -> None:
    """Write what the ledger holds for other tools. Needs a running proxy.

    A file is written beside its name and put in place when it is whole.
    """


@export.command()
@options
def focus(since: str, until: str | None, timezone: str | None, with_users: bool, output: Path | None) -> None:
    """FOCUS 1.2 as CSV: a row for each hour, task, outcome, agent and model."""
    query: Query = {
        "since": since,
        "until": until,
        "timezone": timezone,
        "with_users": "true" if with_users else None,
    }
    admin = find_admin()
    with opened(output) as file:
        for part in admin.stream("/api/export/focus", query):
            file.write(part)


@export.command()
@options
def csv(since: str, until: str | None, timezone: str | None, with_users: bool, output: Path | None) -> None:
    """CSV: a line for each call, in the order in which calls came into the ledger."""
    fields = [name for name in CSV_FIELDS if with_users or name not in ABOUT_PEOPLE]
    last = ["labels", "warnings"] if with_users else ["warnings"]
    admin = find_admin()
    with opened(output) as file:
        file.write(csv_lines([[*fields, *CSV_USAGE, *last]]).encode())
        for page in pages(admin, {"since": since, "until": until, "timezone": timezone}):
            file.write(csv_lines(csv_row(call, fields, with_users=with_users) for call in page).encode())


def csv_row(call: dict[str, Any], fields: list[str], *, with_users: bool) -> list[Any]:
    usage = dict(call["usage"])
    usage["requests"] = sum(usage["requests"].values())
    cells = [call[name] for name in fields] + [usage[name] for name in CSV_USAGE]
    if with_users:
        cells.append(";".join(f"{name}={value}" for name, value in sorted(call["labels"].items())))
    return [*cells, ";".join(call["warnings"])]


@export.command()
@options
def otlp(since: str, until: str | None, timezone: str | None, with_users: bool, output: Path | None) -> None:
    """OTLP as JSON lines: the spans that were exported, or would have been, with the same ids.

    The collector's `otlpjsonfile` receiver reads it. Names and version come from OTEL_SERVICE_NAME and
    OTEL_RESOURCE_ATTRIBUTES, as while serving.
    """
    from ..telemetry.exporter import resource_from_environment
    from ..telemetry.otlp import encode_json
    from ..telemetry.spans import record_spans

    resource = resource_from_environment(os.environ)
    admin = find_admin()
    with opened(output) as file:
        for page in pages(admin, {"since": since, "until": until, "timezone": timezone}):
            spans = []
            for call in page:
                record = record_of(call)
                spans += record_spans(record if with_users else without_person(record), resource=resource)
            file.write(encode_json(spans) + b"\n")


def record_of(call: dict[str, Any]) -> Record:
    """A record as the admin port shows it -> the record."""
    fields = dict(call)
    fields["at_ms"] = ms_of_rfc3339(fields.pop("at"))
    return msgspec.convert(fields, Record)


def without_person(record: Record) -> Record:
    """The record with nobody in it. Its own trace and span ids stay: they are what makes the export repeatable."""
    return msgspec.structs.replace(record, user="", key_id="", session=None, user_agent="", labels={})


def pages(admin: AdminClient, filters: Query) -> Iterator[list[dict[str, Any]]]:
    """All calls, page by page. What comes in meanwhile stays out, or a busy ledger would never end."""
    query: Query = {**filters, "limit": PAGE_CALLS}
    if not query["until"]:
        query["until"] = int(time.time() * 1000)
    while True:
        answer = admin.get("/api/calls", query)
        if answer["calls"]:
            yield answer["calls"]
        if answer["next"] is None:
            return
        query["cursor"] = answer["next"]


@contextmanager
def opened(output: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that takes its name only when everything is in it: what breaks off leaves no half of one."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if output.exists() and not output.is_file():
        # A device or a pipe, such as /dev/stdout: a file must not take its place.
        with writing(output), output.open("wb") as file:
            yield file
        return
    output = output.resolve()  # what a link leads to takes the new content; the link stays
    with writing(output):
        handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
        unfinished = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write {output}: {error.strerror}") from None
