"""How commands print rows as a table for people. Names come from callers and are not trusted."""

from __future__ import annotations

import re
from collections.abc import Sequence

_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d|w)")
_HOURS = {"ms": 0.0, "s": 1 / 3600, "m": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}


def printable(text: str) -> str:
    """Text for a terminal: what could steer it is shown as a replacement character."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def further_back(since: str | None, until: str | None, days: int) -> str:
    """What to try where nothing was found: to look `days` back, unless that is no further, or an end was named."""
    length = _DURATION.fullmatch((since or "").strip())
    if until or length is None or int(length[1]) * _HOURS[length[2]] >= days * 24:
        return ""
    return f"; look further back with `--since {days}d`"


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
