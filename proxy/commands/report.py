"""`callmeter report`: what calls came to, by task, team, model and the like, in the order of names."""

from __future__ import annotations

import json
from typing import Any

import click

from ..core.cells import csv_lines
from ..core.money import decimal_usd, format_usd
from .admin_client import find_admin
from .output import printable, table_line

COUNTS = (
    "calls",
    "refused",
    "failed",
    "client_gone",
    "lost",
    "unpriced_calls",
    "assumed_calls",
    "repeat_calls",
    "tokens",
)
HEADS = ("CALLS", "REFUSED", "FAILED", "TOKENS", "REPEATED", "COST")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--by",
    default="task",
    show_default=True,
    metavar="NAMES",
    help="One or more of task, team, user, model, agent, month, provider, api, org, upstream, with commas between.",
)
@click.option("--since", default="30d", show_default=True, help="How long ago (7d), or a time in RFC 3339.")
@click.option("--until", help="As --since. Default: now.")
@click.option("--timezone", help="Of months, and of times without an offset. Default: UTC.")
@click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table", show_default=True)
def report(by: str, since: str, until: str | None, timezone: str | None, form: str) -> None:
    """Sum up calls. Needs a running proxy.

    Rows stand in the order of names and cannot be sorted by use: this product ranks nobody.
    """
    query = {"by": by, "since": since, "until": until, "timezone": timezone}
    answer: dict[str, Any] = find_admin().get("/api/report", query)
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif form == "csv":
        click.echo(as_csv(answer), nl=False)
    elif not answer["rows"]:
        click.echo(f"no calls since {since}; look further back with `--since 365d`", err=True)
    else:
        click.echo(as_table(answer))


def as_csv(answer: dict[str, Any]) -> str:
    """A line for each row and one for the total, told apart by the first column."""
    by, total = answer["by"], answer["total"]
    usage = list(total["usage"])
    rows: list[list[Any]] = [["row", *by, *COUNTS, *usage, "cost_nusd", "cost_usd", "list_nusd", "repeat_nusd"]]
    for kind, row in [*(("row", row) for row in answer["rows"]), ("total", total)]:
        names = [row.get(name) for name in by]
        counts = [row[name] for name in COUNTS] + [row["usage"][name] for name in usage]
        money = [row["cost_nusd"], decimal_usd(row["cost_nusd"]), row["list_nusd"], row["repeat_nusd"]]
        rows.append([kind, *names, *counts, *money])
    return csv_lines(rows)


def as_table(answer: dict[str, Any]) -> str:
    by, total = answer["by"], answer["total"]
    lines = [[*(name.upper() for name in by), *HEADS]]
    lines += [[*(printable(row[name] or "-") for name in by), *sums(row)] for row in answer["rows"]]
    lines.append(["TOTAL", *("" for _ in by[1:]), *sums(total)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [table_line(line, widths, len(HEADS)) for line in lines]
    text.insert(-1, "-" * max(map(len, text)))
    return "\n".join([*text, *notes(total)])


def sums(row: dict[str, Any]) -> list[str]:
    counts = [f"{row[name]:,}" for name in ("calls", "refused", "failed", "tokens")]
    return [*counts, share(row["repeat_nusd"], row["cost_nusd"]), format_usd(row["cost_nusd"])]


def share(part: int, whole: int) -> str:
    """How much of the money went into repeats, in percent; any of it is more than 0 %."""
    if not part or not whole:
        return "-"
    percent = part * 100 / whole
    return f"{percent:.0f}%" if percent >= 1 else "<1%"


def notes(total: dict[str, Any]) -> list[str]:
    """What a reader of the sums must know."""
    found = []
    if count := total["unpriced_calls"]:
        one, many = "call has no price and is", "calls have no price and are"
        found.append(f"{count:,} {one if count == 1 else many} not in the cost.")
    if count := total["assumed_calls"]:
        one, many = "call of an unknown model counts", "calls of unknown models count"
        found.append(f"{count:,} {one if count == 1 else many} at the dearest rate of the provider.")
    if found:
        found.append("Add their prices to the policy, then run `callmeter reprice`.")
    if count := total["lost"]:
        one, many = "call was cut off with the proxy and counts", "calls were cut off with the proxy and count"
        found.append(f"{count:,} {one if count == 1 else many} with what was estimated.")
    return ["", *found] if found else []
