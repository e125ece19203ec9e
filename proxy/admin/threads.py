"""Threads: where the admin port waits for SQL, so that health checks and metrics are answered meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 4
"""Reports at once; with the writer and the exporters they stay below the connections of the ledger."""

_T = TypeVar("_T")


class Threads:
    """A few threads of the admin port's own: a slow report must not take those of the bookkeeper."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS, "admin")

    async def run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def close(self) -> None:
        """Work that was not begun is dropped; what runs ends by the database's own time limit."""
        self._executor.shutdown(wait=False, cancel_futures=True)
