"""Beginning: what a bookkeeper needs before it can work, waited for while it says what is missing."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from aiohttp import web

from ..admin.waiting import waiting_app
from ..ledger.database import Ledger, open_ledger
from ..ledger.errors import LedgerUnavailable
from .seat import Seat

URL_FILE = "admin.url"
"""Where commands that are run on this machine find the admin port."""
LOOK_S = 0.5
"""How often the seat is tried and the ledger's database asked while they are missing."""

log = logging.getLogger("callmeter.bookkeeper")


class Beginning:
    """The seat of the data directory and the opened ledger, as soon as both are there. Meanwhile records wait in the
    store's streams, and the admin port answers with what is waited for."""

    def __init__(self, data: Path, ledger_url: str, admin_url: str) -> None:
        self._data = data
        self._ledger_url = ledger_url
        self._admin_url = admin_url
        self._runner: web.AppRunner | None = None
        self.seat: Seat | None = None
        self.ledger: Ledger | None = None
        self.missing: dict[str, str] = {}
        """What is waited for, `bookkeeper` or `ledger`, with a sentence for each."""

    async def look(self) -> bool:
        """Whether everything is there now. Raises LedgerRefused."""
        if self.seat is None and not self._take_seat():
            return False
        if self.ledger is None:
            try:
                self.ledger = await asyncio.to_thread(open_ledger, self._ledger_url)
            except LedgerUnavailable as away:
                self._miss("ledger", "the ledger cannot be reached; records wait in the store until it is there", away)
                return False
        return True

    async def serve(self, host: str, port: int) -> None:
        """Says on the admin port what is missing."""
        self._runner = web.AppRunner(waiting_app(lambda: self.missing), access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, reuse_port=True).start()

    async def wait(self, stopping: asyncio.Future[None]) -> bool:
        """Until everything is there; False where it was told to stop before. Raises LedgerRefused."""
        while not stopping.done():
            await asyncio.wait([stopping], timeout=LOOK_S)
            if not stopping.done() and await self.look():
                log.warning("what was missing is there; this bookkeeper begins")
                return True
        return False

    async def close(self) -> None:
        """The real admin port answers now, or none needs to."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _take_seat(self) -> bool:
        self.seat = Seat.take(self._data)
        if self.seat is None:
            self._miss(
                "bookkeeper", f"another bookkeeper works in {self._data}; this one stands by until that one ends"
            )
            return False
        # Here, since who stands by must not draw the commands of this directory to itself: it knows no figures, and
        # may be gone before the one that works.
        (self._data / URL_FILE).write_text(f"{self._admin_url}\n")
        self.missing.pop("bookkeeper", None)
        return True

    def _miss(self, part: str, sentence: str, reason: Exception | None = None) -> None:
        if part not in self.missing:
            log.warning("%s%s", sentence, f" ({reason})" if reason is not None else "")
        self.missing[part] = sentence
