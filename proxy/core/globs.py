"""Globs: how a rule names people, models and upstreams. `*` is any run of characters, `?` one; all else is itself.

Values come from callers and may be of any length, so that matching must never be slower than linear in them: the
part between two stars is taken at its first place and never tried again (an atomic group).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

ABSENT = "none"
"""The one pattern that an absent value matches. `*` stands for any value that is there."""

CACHED_MAX = 1024
"""How many sets of patterns from task keys stay compiled; a worker sees a few dozen different ones at a time."""


def has_wildcard(pattern: str) -> bool:
    """Whether the pattern stands for more than the one text it spells."""
    return "*" in pattern or "?" in pattern


def _expression(pattern: str) -> str:
    """One glob as a regular expression for the whole value."""
    first, *others = [re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern)]
    if not others:
        return first + r"\Z"
    middle = "".join(f"(?>.*?{part})" for part in others[:-1] if part)
    return f"{first}{middle}.*{others[-1]}" + r"\Z"


class Globs:
    """Patterns, compiled once and immutable; a value matches when any of them does.

    Case matters: users, tasks and models are told apart by it.
    """

    __slots__ = ("_absent", "_exact", "_wild", "patterns")

    patterns: tuple[str, ...]
    _absent: bool
    _exact: frozenset[str]
    _wild: Callable[[str], object] | None

    def __init__(self, patterns: str | Iterable[str]) -> None:
        self.patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._absent = ABSENT in self.patterns
        self._exact = frozenset(pattern for pattern in self.patterns if not has_wildcard(pattern))
        wild = [_expression(pattern) for pattern in self.patterns if has_wildcard(pattern)]
        self._wild = re.compile("|".join(wild), re.DOTALL).match if wild else None

    def matches(self, value: str | None) -> bool:
        """Whether a value matches; an absent one (None or empty) matches the pattern `none` alone."""
        if not value:
            return self._absent
        if value in self._exact:
            return True
        return self._wild is not None and self._wild(value) is not None

    def __repr__(self) -> str:
        return f"Globs({', '.join(self.patterns)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Globs) and other.patterns == self.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)


@lru_cache(maxsize=CACHED_MAX)
def compiled(patterns: tuple[str, ...]) -> Globs:
    """Globs that arrive with calls, as the caveats of task keys do, so that each set is compiled once."""
    return Globs(patterns)
