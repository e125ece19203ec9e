"""The desk of a process: the policy in force and the prices that go with it, kept up to date together."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

from .core.policy import Policy
from .core.policy_file import Fault
from .core.price_tables import PriceBook, decode_book, encode_book
from .core.prices import Prices
from .policy_watch import LastGood, PolicyWatch
from .settings import Settings

BOOK_FILE = "prices.book"
"""The compiled price book in the data directory: workers read it rather than compile it, which saves each of them
half a second and the memory of the library that it comes from."""

POLICY_FILE = "policy.good"
"""The last good policy files in the data directory."""


log = logging.getLogger("callmeter.policy")


class PolicyDesk:
    """`policy` and `prices` are replaced together when the files change. Raises PolicyFaulty where there is no good
    policy to begin with.

    beginning      the whole of `serve` begins: the files themselves must be good. A process that is started later goes
                   on with the last good set
    tells          it also looks for models that nobody knows, and logs what is odd about the files
    """

    def __init__(self, settings: Settings, *, beginning: bool = False, tells: bool = False) -> None:
        self._book = load_book(settings.data)
        self._tells = tells
        self._watch = PolicyWatch(
            settings.policies,
            os.environ,
            book=self._book if tells else None,
            last_good=LastGood(settings.data / POLICY_FILE),
            must_be_good=beginning,
            on_policy=self._take,
        )
        self.loaded_at_s = 0.0
        self._take(self._watch.policy)

    def _take(self, policy: Policy) -> None:
        self.policy = policy
        self.prices = Prices(self._book, policy.prices, policy.defaults.unknown_price)
        self.loaded_at_s = time.time()
        for warning in self._watch.warnings if self._tells else ():
            log.info("policy: %s", warning)

    @property
    def faults(self) -> list[Fault]:
        """What is wrong with the files, where they are not the policy in force."""
        return self._watch.faults

    async def run(self) -> None:
        """Follows the files until it is cancelled."""
        await self._watch.run()

    def facts(self) -> dict[str, Any]:
        """What the admin port tells of the policy: no keys."""
        policy = self.policy
        return {
            "version": policy.version,
            "price_version": self.prices.version,
            "loaded_at_s": self.loaded_at_s,
            "upstreams": {
                name: {
                    "dialect": upstream.dialect or None,
                    "provider": upstream.provider,
                    "url": upstream.url,
                    "key": "set" if upstream.key else "none: the caller's own credential passes",
                    "billing": upstream.billing,
                }
                for name, upstream in sorted(policy.upstreams.items())
            },
            "faults": [str(fault) for fault in self.faults],
            "warnings": [str(warning) for warning in self._watch.warnings],
        }


def load_book(data: Path) -> PriceBook:
    """The compiled book of the data directory, made there if it is missing, damaged or of another version."""
    from importlib.metadata import version

    path = data / BOOK_FILE
    wanted = f"genai-prices {version('genai-prices')}"
    try:
        book = decode_book(path.read_bytes())
        if book.version == wanted:
            return book
    except (OSError, ValueError):
        pass  # compiled anew below
    from .core.price_book import compile_book

    book = compile_book()
    made = path.with_suffix(f".{os.getpid()}")
    made.write_bytes(encode_book(book))
    made.replace(path)
    return book
