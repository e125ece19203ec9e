"""Known models: whether a glob in a policy fits any model that has a price, so that a slip of the finger is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from .globs import Globs, has_wildcard
from .price_tables import PriceBook

PATTERNS_REMEMBERED = 1024


def known_model_of(book: PriceBook, also: Iterable[str] = ()) -> Callable[[str], bool]:
    """Says of a glob whether it fits a model that has a price. `also`: globs of models that the policy prices itself.

    Looks through the whole book, which unpacks all of it: for who tells people, not for a worker.
    """
    named = Globs(tuple(also))

    @lru_cache(maxsize=1)
    def names() -> tuple[str, ...]:
        tables = [book.table(provider_id) for provider_id in book.entries]
        return tuple({name for table in tables for name in (*table.exact, *(model.name for model in table.models))})

    @lru_cache(maxsize=PATTERNS_REMEMBERED)
    def known(pattern: str) -> bool:
        globs = Globs(pattern)
        if named.matches(pattern) or any(globs.matches(name) for name in named.patterns):
            return True
        if not has_wildcard(pattern):
            return any(book.find(provider_id, pattern) is not None for provider_id in book.entries)
        return any(globs.matches(name) for name in names())

    return known
