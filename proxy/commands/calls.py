"""`callmeter calls`: the calls in the ledger, one by one, and with --follow as they come."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, get_args

import click

from ..core.cells import csv_lines
from ..core.money import format_usd
from ..core.record import Record, Result
from ..core.refusal import CODES
from ..core.usage import TOKEN_FIELDS
from .admin_client import AdminClient, AdminError, find_admin
from .output import clipped, further_back, printable, table_line

PAGE_CALLS = 500
FOLLOW_S = 1.0
"""A call is in the ledger within a second of its end; looking more often would show nothing sooner."""
RESULTS: tuple[str, ...] = get_args(Result)

LENT = ("replayed", "joined")
"""What the table shows of calls that were answered from their twins, the second of those that waited for it."""

HEADS = ("TIME (UTC)", "USER", "TASK", "MODEL", "RESULT", "TOKENS", "COST", "MS")
WIDTHS = (14, 11, 16, 20, 20, 9, 10, 6)
"""120 columns with the spaces between."""
NUMBERS = 3

_NESTED = frozenset(
    ["labels", "max_cost_nusd", "shadow", "warnings", "usage", "cost_parts_nusd", "estimate", "finish_reasons"]
)
CSV_FIELDS = ["at" if name == "at_ms" else name for name in Record.__struct_fields__ if name not in _NESTED]
"""Every plain field of a record; usage, labels and warnings follow, the rest is for jsonl."""
CSV_USAGE = (*TOKEN_FIELDS, "reasoning", "requests", "seconds", "images", "characters")


class ResultChoice(click.Choice[str]):
    """Results by name. What the table shows of a refused call is why, which is asked for in another way."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if value in CODES:
            self.fail(f"`{value}` is why calls are refused; ask with --refusal {value}", parameter, context)
        if value in LENT:
            self.fail(
                f"`{value}` calls are `ok`; look for them in the table, or at `replayed` in `--format jsonl`",
                parameter,
                context,
            )
        return super().convert(value, parameter, context)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--since", default="1h", show_default=True, help="How long ago (1h, 7d), or a time in RFC 3339.")
@click.option("--until", help="As --since. Default: now.")
@click.option("--user")
@click.option("--team")
@click.option("--task")
@click.option("--model", help="As asked for, or as answered.")
@click.option("--result", type=ResultChoice(RESULTS))
@click.option("--rule", help="The rule that decided.")
@click.option("--refusal", type=click.Choice(tuple(CODES)), metavar="CODE", help="Why we said no, such as `loop`.")
@click.option("--follow", is_flag=True, help="Stay, and show calls as they come. Ctrl-C ends it.")
@click.option("--format", "form", type=click.Choice(("table", "jsonl", "csv")), default="table", show_default=True)
def calls(follow: bool, form: str, **filters: str | None) -> None:
    """Show calls, oldest first. Needs a running proxy.

    A cost that begins with ~ rests on an assumed price or on usage that the provider did not report in full.
    """
    admin = find_admin()
    if follow and filters["until"]:
        raise click.UsageError("--follow has no end; leave out --until")
    shown = 0
    try:
        for page in pages(admin, filters, follow):
            if page and not shown and form != "jsonl":
                click.echo(head(form))
            for call in page:
                click.echo(line(call, form))
            shown += len(page)
    except KeyboardInterrupt:
        return
    if not shown:
        if form == "csv":
            click.echo(head(form))  # also an empty file has its columns
        click.echo(nothing(filters), err=True)


def pages(admin: AdminClient, filters: dict[str, str | None], follow: bool) -> Iterator[list[dict[str, Any]]]:
    """Pages of calls, until there are no more; with `follow` without end, also over a restart of the proxy."""
    query: dict[str, str | int | None] = {**filters, "limit": PAGE_CALLS}
    if follow:
        query["follow"] = "true"
    reachable = True
    begun = False
    while True:
        try:
            answer = admin.get("/api/calls", query)
        except AdminError as error:
            if not (follow and begun):
                raise
            if reachable:
                click.echo(f"{error.message} Waiting.", err=True)
            reachable = False
            time.sleep(FOLLOW_S)
            continue
        reachable = begun = True
        yield answer["calls"]
        if answer["next"] is None:
            return
        query["cursor"] = answer["next"]
        if len(answer["calls"]) < PAGE_CALLS and follow:
            time.sleep(FOLLOW_S)


def nothing(filters: dict[str, str | None]) -> str:
    named = [f"{name} `{printable(value)}`" for name, value in filters.items() if value and name != "since"]
    of = f" with {' and '.join(named)}" if named else ""
    return f"no calls since {filters['since']}{of}{further_back(filters['since'], filters['until'], 30)}"


def head(form: str) -> str:
    if form == "csv":
        return csv_lines([[*CSV_FIELDS, *CSV_USAGE, "labels", "warnings"]]).rstrip("\n")
    return table_line(HEADS, WIDTHS, NUMBERS)


def line(call: dict[str, Any], form: str) -> str:
    if form == "jsonl":
        return json.dumps(call, ensure_ascii=False, separators=(",", ":"))
    return csv_line(call) if form == "csv" else table_row(call)


def csv_line(call: dict[str, Any]) -> str:
    usage = dict(call["usage"])
    usage["requests"] = sum(usage["requests"].values())
    cells = [call[name] for name in CSV_FIELDS] + [usage[name] for name in CSV_USAGE]
    labels = ";".join(f"{name}={value}" for name, value in sorted(call["labels"].items()))
    return csv_lines([[*cells, labels, ";".join(call["warnings"])]]).rstrip("\n")


def table_row(call: dict[str, Any]) -> str:
    result = call["refusal"] or call["result"]
    if call["replayed"] and call["result"] == "ok":
        result = LENT[call["joined"]]
    if call["count"] > 1:
        result = f"{call['count']}x {result}"
    cells = (
        f"{call['at'][5:10]} {call['at'][11:19]}",
        call["user"],
        call["task"] or "-",
        call["model"] or call["model_asked"] or "-",
        result,
        f"{sum(call['usage'][name] for name in TOKEN_FIELDS):,}",
        cost(call),
        f"{call['ms_total']:.0f}",
    )
    shown = [clipped(printable(cell), width) for cell, width in zip(cells[:-NUMBERS], WIDTHS[:-NUMBERS], strict=True)]
    return table_line([*shown, *cells[-NUMBERS:]], WIDTHS, NUMBERS)


def cost(call: dict[str, Any]) -> str:
    if call["cost_nusd"] is None:
        return "unpriced"
    guessed = call["cost_source"] == "assumed" or call["usage_source"] in ("estimated", "partial")
    # A free or refused call has a cost that nobody guessed.
    return ("~" if guessed and call["cost_nusd"] else "") + format_usd(call["cost_nusd"])
