"""Known models: whether a glob in a policy fits any model that has a price, so that a slip of the finger is noticed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

from .globs import Globs, has_wildcard
from .price_tables import PriceBook

PATTERNS_REMEMBERED = 1024


def known_model_of(book: PriceBook, also: Iterable[str] = ()) -> Callable[[str], bool]:
    """What `policy_file.load` takes as `known_model`. `also` are globs of models that the policy prices itself.

    Looks through the whole book, which unpacks all of it: for `callmeter check`, not for a worker.
    """
    named = Globs(tuple(also))

    @lru_cache(maxsize=1)
    def names() -> tuple[str, ...]:
        tables = [book.table(provider_id) for provider_id in book.entries]
        return tuple({name for table in tables for name in (*table.exact, *(model.name for model in table.models))})

    @lru_cache(maxsize=PATTERNS_REMEMBERED)
    def known(pattern: str) -> bool:
        if pattern in named.patterns or (not has_wildcard(pattern) and named.matches(pattern)):
            return True
        if not has_wildcard(pattern):
            return any(book.find(provider_id, pattern) is not None for provider_id in book.entries)
        globs = Globs(pattern)
        return any(globs.matches(name) for name in names())

    return known
