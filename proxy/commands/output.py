"""How commands print rows: a table for people, CSV for spreadsheets. Names come from callers and are not trusted."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def printable(text: str) -> str:
    """Text for a terminal: what could steer it is shown as a replacement character."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def clipped(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def table_line(cells: Sequence[str], widths: Sequence[int], numbers: int) -> str:
    """One line; the last `numbers` cells stand to the right."""
    words = len(cells) - numbers
    aligned = [
        cell.ljust(width) if place < words else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(aligned).rstrip()


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return output.getvalue()


def csv_cell(value: Any) -> Any:
    """A task named `=cmd()` must stay text in a spreadsheet, which takes it for a formula without the apostrophe."""
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return f"'{value}"
    return value
