"""Cells of CSV files. Names come from callers: spreadsheets run what looks like a formula, and control characters
steer terminals."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"-\d+(\.\d+)?", re.ASCII)


def csv_lines(rows: Iterable[Sequence[Any]]) -> str:
    output = io.StringIO()
    csv.writer(output, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return output.getvalue()


def csv_cell(value: Any) -> Any:
    """A task named `=cmd()` must stay text in a spreadsheet, which takes it for a formula without the apostrophe."""
    if not isinstance(value, str):
        return value
    if value.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    return _CONTROL.sub("\ufffd", value)
