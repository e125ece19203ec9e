"""The real admin port over a real ledger, in a thread of its own, for tests of the commands that talk to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.admin.api import AdminContext, admin_app
from proxy.bookkeeping.figures import BudgetFigures
from proxy.core.policy import Policy
from proxy.core.record import Record
from proxy.ledger.database import Ledger, open_ledger
from proxy.store.client import Client
from proxy.telemetry.prometheus import Metrics
from tests.support.ledger_calls import AT_MS

TOKEN = "admin-token-of-the-tests"
NOW_MS = AT_MS + 30 * 60_000
"""The clock of the tests: half an hour after their first calls."""


@dataclass
class Admin:
    """`faults` are what is not ready; `price` prices again; `policy` is in force; `charged` are the
    calls that were priced again, as they were and as they are. All may be changed while the server
    runs. There is no store, so budgets are shown as the ledger knows them."""

    ledger: Ledger
    url: str = ""
    faults: dict[str, str] = field(default_factory=dict)
    price: Callable[[Record], Record | None] = lambda record: None
    policy: Policy = field(default_factory=Policy)
    now_ms: int = NOW_MS
    metrics: Metrics = field(default_factory=Metrics)
    charged: list[tuple[Record, Record]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def environ(self) -> dict[str, str]:
        return {"CALLMETER_ADMIN_URL": self.url, "CALLMETER_ADMIN_TOKEN": TOKEN}

    def context(self) -> AdminContext:
        async def readiness() -> Mapping[str, str]:
            return self.faults

        def make_key() -> tuple[str, str]:
            key_id = f"testkey{next(self._numbers):09d}"
            return key_id, f"cm_{key_id}_secret"

        def policy() -> Mapping[str, Any]:
            return {"version": "v1", "faults": []}

        return AdminContext(
            ledger=self.ledger,
            admin_token=TOKEN,
            make_key=make_key,
            metrics=lambda: (b"callmeter_up 1\n", "text/plain; version=0.0.4; charset=utf-8"),
            readiness=readiness,
            policy=policy,
            price=lambda record: self.price(record),
            charge=self.charged.extend,
            rules=lambda: self.policy,
            budgets=BudgetFigures(
                Client("unix:///nowhere/callmeter.sock"),
                self.ledger,
                policy=lambda: self.policy,
                clock_ms=lambda: self.now_ms,
            ),
            alert_secret="whsec_of-the-tests",
            outcome_metrics=self.metrics,
            clock_ms=lambda: self.now_ms,
        )


@contextmanager
def admin_server(directory: Path) -> Iterator[Admin]:
    """On a free port of 127.0.0.1, with an empty ledger in `directory`."""
    admin = Admin(open_ledger(f"sqlite:///{directory / 'ledger.db'}"))
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(admin_app(admin.context()))

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        admin.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield admin
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(runner.cleanup())
        loop.close()
        admin.ledger.close()
