from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.ledger.database import Ledger, open_ledger
from tests.support.valkey import own_valkey, store_url, valkey_server

__all__ = ["own_valkey", "store_url", "valkey_server"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()
