"""`callmeter reconcile`: the export of a provider against the ledger, by day and model."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import click

from ..core.cells import csv_lines
from ..core.money import decimal_usd, format_usd
from ..core.statements import TOKENS, Line, Statement, StatementInvalid, read_statement, same_model
from .admin_client import AdminClient, find_admin
from .output import printable, table_line

NO_MODEL = "-"
ALL_MODELS = "all models"

Row = dict[str, Any]
"""day, model, theirs, ours, difference (each by what is counted), calls, reasons"""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(("table", "json", "csv")), default="table", show_default=True)
def reconcile(file: Path, form: str) -> None:
    """Hold a provider's usage or cost export against the ledger. Needs a running proxy.

    FILE is the JSON of OpenAI's Costs or Usage API or of Anthropic's cost or usage report, or a CSV file of OpenAI's
    dashboard or Anthropic's Console. Days are those of UTC.
    """
    try:
        statement = read_statement(file.read_bytes())
    except StatementInvalid as error:
        raise click.ClickException(f"{file}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {file}: {error.strerror}") from None
    rows = compared(find_admin(), statement)
    if form == "json":
        answer = {"provider": statement.provider, "kind": statement.kind, "rows": rows, "total": total_of(rows)}
        click.echo(json.dumps(answer, ensure_ascii=False, indent=2))
    elif form == "csv":
        click.echo(as_csv(rows), nl=False)
    else:
        click.echo(as_table(statement, rows))


def compared(admin: AdminClient, statement: Statement) -> list[Row]:
    """Day by day, so that a year of them neither waits nor needs memory for long."""
    rows = []
    for day in sorted({line.day for line in statement.lines}):
        query = {"provider": statement.provider, "since": day, "until": str(date.fromisoformat(day) + timedelta(1))}
        ours = admin.get("/api/reconcile", query)["models"]
        theirs = [line for line in statement.lines if line.day == day]
        rows += rows_of(day, theirs, ours, statement)
    return rows


def rows_of(day: str, theirs: list[Line], ours: list[Row], statement: Statement) -> list[Row]:
    """One for each model that either side has; names that differ in date or spelling alone are one model."""

    def place(name: str) -> str:
        return same_model(name) if statement.by_model else ALL_MODELS

    found: dict[str, Row] = {}
    for line in theirs:
        row = found.setdefault(place(line.model), new_row(day, line.model or ALL_MODELS))
        for name, value in amounts_of_line(line, statement).items():
            row["theirs"][name] = row["theirs"].get(name, 0) + value
    for model in ours:
        row = found.setdefault(place(model["model"]), new_row(day, model["model"] or NO_MODEL))
        row["calls"] += model["calls"]
        row["reasons"] += model["reasons"]
        for name, value in amounts_of_ours(model, statement).items():
            row["ours"][name] = row["ours"].get(name, 0) + value
    for row in found.values():
        names = sorted({*row["theirs"], *row["ours"]}, key=("cost_nusd", *TOKENS).index)
        row["difference"] = {name: row["ours"].get(name, 0) - row["theirs"].get(name, 0) for name in names}
    return [found[name] for name in sorted(found) if any(found[name]["theirs"].values()) or found[name]["calls"]]


def new_row(day: str, model: str) -> Row:
    return {"day": day, "model": model, "theirs": {}, "ours": {}, "difference": {}, "calls": 0, "reasons": []}


def amounts_of_line(line: Line, statement: Statement) -> dict[str, int]:
    return {"cost_nusd": line.cost_nusd} if statement.kind == "cost" else line.tokens


def amounts_of_ours(model: Row, statement: Statement) -> dict[str, int]:
    if statement.kind == "cost":
        return {"cost_nusd": model["cost_nusd"]}
    # OpenAI does not count what is written into its cache apart.
    return {name: count for name, count in model["tokens"].items() if count or not name.startswith("cache_write")}


def total_of(rows: list[Row]) -> Row:
    total: Row = {"theirs": {}, "ours": {}, "difference": {}}
    for row in rows:
        for side, sums in total.items():
            for name, value in row[side].items():
                sums[name] = sums.get(name, 0) + value
    return total


def told(reason: Row, *, with_calls: bool) -> str:
    """`3 partial ($0.02)`, and which calls."""
    amount = reason["cost_nusd"] or reason["list_nusd"]
    listed = "" if reason["cost_nusd"] or not amount else " at list"
    text = f"{reason['calls']:,} {reason['why']} ({format_usd(amount)}{listed})"
    if with_calls and reason["call_ids"]:
        more = ", ..." if reason["calls"] > len(reason["call_ids"]) else ""
        text += f": {', '.join(reason['call_ids'])}{more}"
    return text


def as_csv(rows: list[Row]) -> str:
    lines: list[list[Any]] = [["day", "model", "counted", "theirs", "ours", "difference", "calls", "explained_by"]]
    for row in rows:
        why = "; ".join(told(reason, with_calls=True) for reason in row["reasons"])
        for name, difference in row["difference"].items():
            sides = [row["theirs"].get(name, 0), row["ours"].get(name, 0), difference]
            cells = [decimal_usd(value) for value in sides] if name == "cost_nusd" else sides
            counted = "cost_usd" if name == "cost_nusd" else f"{name}_tokens"
            model = "" if row["model"] == NO_MODEL else row["model"]
            lines.append([row["day"], model, counted, *cells, row["calls"], why])
    return csv_lines(lines)


def as_table(statement: Statement, rows: list[Row]) -> str:
    lines = [["DAY", "MODEL", "COUNTED", "THEIRS", "OURS", "DIFFERENCE"]]
    notes: dict[int, list[str]] = {}
    for row in [*rows, total_of(rows) | {"day": "TOTAL", "model": "", "reasons": []}]:
        for number, (name, difference) in enumerate(row["difference"].items()):
            counted = "cost" if name == "cost_nusd" else name.replace("_", " ")
            sides = (row["theirs"].get(name, 0), row["ours"].get(name, 0), difference)
            cells = [format_usd(value) if name == "cost_nusd" else f"{value:,}" for value in sides]
            lines.append(
                [row["day"] if not number else "", printable(row["model"]) if not number else "", counted, *cells]
            )
        if any(row["difference"].values()):
            notes[len(lines) - 1] = [told(reason, with_calls=True) for reason in row["reasons"]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = []
    for number, line in enumerate(lines):
        text.append(table_line(line, widths, 3))
        text += [f"    {note}" for note in notes.get(number, [])]
    return "\n".join([f"{statement.provider}, {statement.kind}; the difference is ours less theirs", "", *text])
