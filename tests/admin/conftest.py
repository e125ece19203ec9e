"""An admin port over an empty ledger, and a client that knows its token."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin.api import admin_app
from proxy.ledger.database import open_ledger
from tests.support.admin_server import TOKEN, Admin


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield Admin(ledger)
    ledger.close()


@pytest.fixture
async def client(admin: Admin) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with TestClient(TestServer(admin_app(admin.context())), headers=headers) as opened:
        yield opened
