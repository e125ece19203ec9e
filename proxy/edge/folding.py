"""Folding: identical refusals in a row become one record with a count; a looping client cannot fill the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from ..core.record import Record

FOLD_S = 0.5
"""A refusal is written at once; its repeats within this time follow as one record, still within a second."""
FOLDS_MAX = 10_000
"""Different refusals remembered at a time; above it they are written one by one."""


class RefusalFolder:
    def __init__(self, write: Callable[[Record], Awaitable[None]]) -> None:
        self._write = write
        self._waiting: dict[tuple[object, ...], Record | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, record: Record) -> None:
        """Writes the record, or counts it into the one that will be written for its like."""
        who = (record.key_id, record.user, record.task)
        like = (*who, record.upstream, record.api, record.model_asked, record.refusal, record.rule, record.status)
        if like in self._waiting:
            folded = self._waiting[like]
            if folded is None:
                self._waiting[like] = record
            else:
                folded.count += 1
            return
        if len(self._waiting) < FOLDS_MAX:
            self._waiting[like] = None
            task = asyncio.get_running_loop().create_task(self._write_repeats(like))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await self._write(record)

    async def _write_repeats(self, like: tuple[object, ...]) -> None:
        await asyncio.sleep(FOLD_S)
        await self._flush(like)

    async def _flush(self, like: tuple[object, ...]) -> None:
        folded = self._waiting.pop(like, None)
        if folded is not None:
            await self._write(folded)

    async def close(self) -> None:
        """Writes what is folded; the process ends."""
        for like in list(self._waiting):
            await self._flush(like)
        await asyncio.gather(*self._tasks)  # those that sleep find nothing left; one that writes must not be cut
