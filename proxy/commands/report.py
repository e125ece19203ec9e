"""`callmeter report`: what calls came to, by task, team, model and the like, in the order of names."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from ..core.attribution import FATES
from ..core.cells import csv_lines
from ..core.money import decimal_usd, format_usd
from .admin_client import find_admin
from .output import further_back, printable, table_line

COUNTS = (
    "calls",
    "refused",
    "shadow_refused",
    "failed",
    "client_gone",
    "lost",
    "unpriced_calls",
    "assumed_calls",
    "repeat_calls",
    "tokens",
)
WORK = ("accepted_outcomes", "undone_outcomes", "lead_ms", "unproven_share", "undone_share", "repeated_share")
"""What is said of work: empty in rows of one person."""
FATE_SUMS = tuple(f"{fate}_nusd" for fate in FATES)
DAY_MS = 86_400_000

Cell = Callable[[dict[str, Any]], str]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--by",
    default="task",
    show_default=True,
    metavar="NAMES",
    help="One or more of task, team, user, model, agent, outcome, month, provider, api, org, upstream, with commas "
    "between.",
)
@click.option("--since", default="30d", show_default=True, help="How long ago (7d), or a time in RFC 3339.")
@click.option("--until", help="As --since. Default: now.")
@click.option("--timezone", help="Of months, and of times without an offset. Default: UTC.")
@click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table", show_default=True)
def report(by: str, since: str, until: str | None, timezone: str | None, form: str) -> None:
    """Sum up calls, and what they came to. Needs a running proxy.

    Rows stand in the order of names and cannot be sorted by use: this product ranks nobody.
    """
    query = {"by": by, "since": since, "until": until, "timezone": timezone}
    answer: dict[str, Any] = find_admin().get("/api/report", query)
    if form == "json":
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif form == "csv":
        click.echo(as_csv(answer), nl=False)
    elif not answer["rows"]:
        click.echo(f"no calls since {since}{further_back(since, until, 365)}", err=True)
    else:
        click.echo(as_table(answer))


# -- CSV --------------------------------------------------------------------------------------------------------------


def as_csv(answer: dict[str, Any]) -> str:
    """A line for each row and one for the total, told apart by the first column."""
    by, total = answer["by"], answer["total"]
    usage = list(total["usage"])
    spread = [f"cost_per_accepted_{name}_nusd" for name in ("median", "p25", "p75", "mean")]
    before = ["before_cost_nusd", "before_accepted_outcomes", "before_cost_per_accepted_nusd"]
    delivery = ["delivery_unit", "team_size", "delivery_units", "cost_per_unit_nusd", "units_per_person_week"]
    money = ["cost_nusd", "cost_usd", "list_nusd", "repeat_nusd", *FATE_SUMS]
    rows: list[list[Any]] = [["row", *by, *COUNTS, *usage, *money, *WORK, *spread, *before, *delivery]]
    for kind, row in [*(("row", row) for row in answer["rows"]), ("total", total)]:
        shown = [kind, *(row.get(name) for name in by), *(row[name] for name in COUNTS)]
        shown += [row["usage"][name] for name in usage]
        shown += [row["cost_nusd"], decimal_usd(row["cost_nusd"]), row["list_nusd"], row["repeat_nusd"]]
        shown += [row[name] for name in (*FATE_SUMS, *WORK)]
        for name, columns in (("cost_per_accepted_nusd", spread), ("before", before), ("delivery", delivery)):
            shown += list(row[name].values()) if row[name] is not None else [None] * len(columns)
        rows.append(shown)
    return csv_lines(rows)


# -- the table --------------------------------------------------------------------------------------------------------


def as_table(answer: dict[str, Any]) -> str:
    by, total = answer["by"], answer["total"]
    columns = columns_of(answer)
    lines = [[*(name.upper() for name in by), *columns]]
    for row in answer["rows"]:
        lines.append([*(label(answer, name, row) for name in by), *(cell(row) for cell in columns.values())])
    lines.append(["TOTAL", *("" for _ in by[1:]), *(cell(total) for cell in columns.values())])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [table_line(line, widths, len(columns)) for line in lines]
    text.insert(-1, "-" * max(map(len, text)))
    return "\n".join([*text, *teams(answer), *notes(total)])


def columns_of(answer: dict[str, Any]) -> dict[str, Cell]:
    """The columns by their heads; those about outcomes where there are any."""
    total = answer["total"]
    columns: dict[str, Cell] = {
        name.upper(): lambda row, name=name: f"{row[name]:,}"  # type: ignore[misc]  # a default binds it now
        for name in ("calls", "refused", "failed", "tokens")
    }
    columns["REPEATED"] = lambda row: percent(row["repeat_nusd"], row["cost_nusd"])
    columns["COST"] = lambda row: format_usd(row["cost_nusd"])
    if total["before"] is not None and total["before"]["cost_nusd"]:
        columns["TREND"] = trend
    if any(total[name] for name in ("accepted_outcomes", "undone_outcomes", *FATE_SUMS[:3])):
        columns["ACCEPTED"] = lambda row: "-" if row["accepted_outcomes"] is None else f"{row['accepted_outcomes']:,}"
        columns["PER CHANGE"] = lambda row: usd(row["cost_per_accepted_nusd"], "median")
        columns["HALF LIE IN"] = middle_half
        columns["UNPROVEN"] = lambda row: ratio(row["unproven_share"])
        columns["UNDONE"] = lambda row: ratio(row["undone_share"])
    return columns


def label(answer: dict[str, Any], name: str, row: dict[str, Any]) -> str:
    """A name, and of an outcome what it is."""
    value = row[name]
    told = answer["outcomes"].get(value) if name == "outcome" else None
    if told is not None:
        value = " ".join(part for part in (told["rule"], told["repo"], told["change"][:12], told["state"]) if part)
    return printable(value or "-")


def usd(amounts: dict[str, Any] | None, name: str) -> str:
    return "-" if amounts is None else format_usd(amounts[name])


def middle_half(row: dict[str, Any]) -> str:
    amounts = row["cost_per_accepted_nusd"]
    return "-" if amounts is None else f"{format_usd(amounts['p25'])} to {format_usd(amounts['p75'])}"


def trend(row: dict[str, Any]) -> str:
    """The cost against that of the window before."""
    before = None if row["before"] is None else row["before"]["cost_nusd"]
    return f"{(row['cost_nusd'] - before) * 100 / before:+.0f}%" if before else "-"


def ratio(share: float | None) -> str:
    return "-" if share is None else percent(round(share * 10_000), 10_000)


def percent(part: int, whole: int) -> str:
    """A share in percent; any of it is more than 0 %."""
    if not part or not whole:
        return "-"
    share = part * 100 / whole
    return f"{share:.0f}%" if share >= 1 else "<1%"


def teams(answer: dict[str, Any]) -> list[str]:
    """What each team delivered, beside what keeps the figure honest."""
    found = []
    for row in answer["rows"]:
        delivery = row["delivery"]
        if delivery is None:
            continue
        name = " ".join(printable(row[name]) for name in answer["by"] if row[name])
        cost = delivery["cost_per_unit_nusd"]
        each = "none delivered" if cost is None else f"{format_usd(cost)} each"
        lead = "-" if row["lead_ms"] is None else f"{row['lead_ms'] / DAY_MS:.1f} days"
        found.append(
            f"{name}: {delivery['units']:,} x {delivery['unit']}, {each}, "
            f"{delivery['units_per_person_week']:.2f} per person and week; undone {ratio(row['undone_share'])}, "
            f"repeated {ratio(row['repeated_share'])}, unproven {ratio(row['unproven_share'])}, lead {lead}"
        )
    if answer["withheld"]:
        names = ", ".join(printable(name) for name in answer["withheld"])
        found.append(f"{names}: fewer than 5 people, whose delivery is not shown apart")
    return ["", *found] if found else []


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
        found.append("Add the missing prices to the policy, then run `callmeter reprice`.")
    if count := total["lost"]:
        one, many = "call was cut off with the proxy and counts", "calls were cut off with the proxy and count"
        found.append(f"{count:,} {one if count == 1 else many} with what was estimated.")
    if count := total["shadow_refused"]:
        one, many = "call passed that a rule", "calls passed that rules"
        found.append(f"{count:,} {one if count == 1 else many} in shadow mode would have refused.")
    if amount := total["for_nothing_nusd"]:
        found.append(f"{format_usd(amount)} went into tasks that have come to nothing yet.")
    return ["", *found] if found else []
