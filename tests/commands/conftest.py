"""The admin port that commands talk to, over a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.admin_server import Admin, admin_server


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    with admin_server(tmp_path) as admin:
        for name, value in admin.environ.items():
            monkeypatch.setenv(name, value)
        yield admin
