"""Matching names against the clauses of a price book: plain data, so that a compiled book carries them."""

from __future__ import annotations

import re
from datetime import date

import msgspec


class Equals(msgspec.Struct, frozen=True, array_like=True, tag="equals"):
    text: str


class StartsWith(msgspec.Struct, frozen=True, array_like=True, tag="starts"):
    text: str


class EndsWith(msgspec.Struct, frozen=True, array_like=True, tag="ends"):
    text: str


class Contains(msgspec.Struct, frozen=True, array_like=True, tag="contains"):
    text: str


class Pattern(msgspec.Struct, frozen=True, array_like=True, tag="regex"):
    text: str


class AnyOf(msgspec.Struct, frozen=True, array_like=True, tag="any"):
    clauses: tuple[Clause, ...]


class AllOf(msgspec.Struct, frozen=True, array_like=True, tag="all"):
    clauses: tuple[Clause, ...]


Clause = Equals | StartsWith | EndsWith | Contains | Pattern | AnyOf | AllOf


def matches(clause: Clause, name: str) -> bool:
    """Whether `name`, which must be in lower case as the texts of a compiled book are, is meant by the clause."""
    match clause:
        case Equals(text):
            return name == text
        case StartsWith(text):
            return name.startswith(text)
        case EndsWith(text):
            return name.endswith(text)
        case Contains(text):
            return text in name
        case Pattern(text):
            return re.search(text, name) is not None
        case AnyOf(clauses):
            return any(matches(part, name) for part in clauses)
        case AllOf(clauses):
            return all(matches(part, name) for part in clauses)


def exact_names(clause: Clause) -> tuple[list[str], Clause | None]:
    """Splits a clause into the names that it spells out and what is left of it, for an index by name."""
    if isinstance(clause, Equals):
        return [clause.text], None
    if isinstance(clause, AnyOf):
        names = [part.text for part in clause.clauses if isinstance(part, Equals)]
        rest = tuple(part for part in clause.clauses if not isinstance(part, Equals))
        return names, AnyOf(rest) if rest else None
    return [], clause


_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


def with_dashed_date(name: str) -> str:
    """`gpt-5.2-20251211` -> `gpt-5.2-2025-12-11`: routers write dates without the dashes that makers use."""

    def dashed(found: re.Match[str]) -> str:
        year, month, day = found.groups()
        try:
            date(int(year), int(month), int(day))
        except ValueError:
            return found.group()
        return f"-{year}-{month}-{day}"

    return _COMPACT_DATE.sub(dashed, name)
