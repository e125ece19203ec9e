"""How commands print rows as a table for people. Names come from callers and are not trusted."""

from __future__ import annotations

from collections.abc import Sequence


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
