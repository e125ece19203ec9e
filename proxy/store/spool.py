"""Spool: files where lines wait, fsynced, while the store is away.

Each process appends to a file of its own, which it holds with flock. To be drained, a file is sealed (no more is
appended) and removed once every line of it was done. A file that nobody holds belonged to a process that is dead:
whoever gets its lock drains it. After a crash in the middle of draining, lines are done again; they are made for that.

A line is `crc32 payload`; a last line that was torn by a crash fails the check and is left out.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

SEGMENT_BYTES_MAX = 8 * 1024 * 1024
"""A file is read into memory as a whole when it is drained; beyond this size a new one is begun."""

SUFFIX = ".spool"
CRC_DIGITS = 8

ASIDE = "set-aside.lines"
"""Where lines end that the store will never take."""

log = logging.getLogger("callmeter.store")
Result = TypeVar("Result")


class SpoolFailed(Exception):
    """The line could not be put on disk (full, read-only, broken). The text says which file and why."""


class File:
    """One spool file, held with flock for as long as it is open."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    @classmethod
    def create(cls, directory: Path) -> File:
        path = directory / f"{os.getpid()}-{os.urandom(6).hex()}{SUFFIX}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(folder)  # the name must outlive a crash, too
        finally:
            os.close(folder)
        return cls(path, descriptor)

    @classmethod
    def adopt(cls, path: Path) -> File | None:
        """The file, if nobody holds it."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink == 0:  # drained and removed by another before we had the lock
            os.close(descriptor)
            return None
        return cls(path, descriptor)

    def append(self, data: bytes) -> None:
        """All of `data`, on disk, or nothing of it and an OSError."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self.descriptor, view) :]
            os.fsync(self.descriptor)
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            os.lseek(self.descriptor, self.size, os.SEEK_SET)
            raise
        self.size += len(data)

    def lines(self) -> list[bytes]:
        return list(intact_lines(os.pread(self.descriptor, self.size, 0), self.path))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leaves it to whoever comes next. May be repeated."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def framed(line: bytes) -> bytes:
    return b"%08x %b\n" % (zlib.crc32(line), line)


def intact_lines(data: bytes, path: Path) -> Iterator[bytes]:
    """The payloads of the lines that were written whole."""
    *whole, torn = data.split(b"\n")
    damaged = 1 if torn else 0
    for text in whole:
        check, line = text[:CRC_DIGITS], text[CRC_DIGITS + 1 :]
        if check == b"%08x" % zlib.crc32(line):
            yield line
        else:
            damaged += 1
    if damaged:
        log.warning("%s: %d line(s) were not written whole and are left out.", path, damaged)


class Segment:
    """A sealed file that is being drained: `lines` are still to be done."""

    def __init__(self, file: File, lines: list[bytes]) -> None:
        self.file = file
        self.lines = lines


class Spool:
    """The spool of one process, in `directory`. All work on files is done in one thread, so never at once."""

    def __init__(self, directory: Path, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        self._directory = directory
        self._segment_bytes_max = segment_bytes_max
        self._thread = ThreadPoolExecutor(1, "spool")
        self._unwritten: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._current: File | None = None
        self._sealed: list[File] = []
        self.waiting = 0
        """Lines of ours, and of files we adopted, that are not done yet."""

    async def open(self) -> None:
        """Raises SpoolFailed where the directory cannot be made."""
        try:
            await self._in_thread(lambda: self._directory.mkdir(parents=True, exist_ok=True, mode=0o700))
        except OSError as error:
            raise SpoolFailed(f"{self._directory} cannot be made: {error.strerror}") from None

    async def append(self, line: bytes) -> None:
        """Returns when `line` (without line breaks) is on disk; lines of many callers share an fsync. Raises
        SpoolFailed."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._unwritten.append((framed(line), written))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await written

    async def take(self, *, orphans: bool) -> Segment | None:
        """A file to drain: one of ours, else (if asked for) one whose process is dead."""
        segment, adopted = await self._in_thread(lambda: self._seal_one(orphans))
        self.waiting += adopted
        return segment

    async def done(self, segment: Segment, left: list[bytes]) -> None:
        """Notes which lines of the segment are left; removes its file when none are."""
        self.waiting -= len(segment.lines) - len(left)
        segment.lines = left
        if not left:
            await self._in_thread(segment.file.remove)

    async def leave(self, segment: Segment) -> None:
        """Stops draining: whoever comes next finds the file as it was taken."""
        await self._in_thread(segment.file.close)

    async def set_aside(self, line: bytes) -> None:
        """Keeps a line that can never be done, for a person to look at. Raises SpoolFailed."""
        try:
            await self._in_thread(lambda: self._append_aside(line))
        except OSError as error:
            raise SpoolFailed(f"{self._directory / ASIDE}: {error.strerror or error}") from None

    async def close(self) -> None:
        """Writes what waits. Files with lines stay for whoever drains them next."""
        if self._writer is not None:
            await self._writer
        await self._in_thread(self._close_files)
        self._thread.shutdown()

    # -- in the loop ----------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while self._unwritten:
            batch, self._unwritten = self._unwritten, []
            data = b"".join(line for line, _ in batch)
            failure: SpoolFailed | None = None
            try:
                await self._in_thread(lambda data=data: self._append(data))  # type: ignore[misc]
                self.waiting += len(batch)
            except OSError as error:
                failure = SpoolFailed(f"{self._directory}: {error.strerror or error}")
            for _, written in batch:
                if written.done():
                    continue
                if failure is None:
                    written.set_result(None)
                else:
                    written.set_exception(SpoolFailed(str(failure)))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # -- in the thread --------------------------------------------------------------------------------------------

    def _append(self, data: bytes) -> None:
        if self._current is not None and self._current.size >= self._segment_bytes_max:
            self._sealed.append(self._current)
            self._current = None
        if self._current is None:
            self._current = File.create(self._directory)
        self._current.append(data)

    def _seal_one(self, orphans: bool) -> tuple[Segment | None, int]:
        """The segment, and how many lines in it are new to this process."""
        if self._sealed:
            file = self._sealed.pop(0)
            return Segment(file, file.lines()), 0
        if self._current is not None and self._current.size:
            file, self._current = self._current, None
            return Segment(file, file.lines()), 0
        if not orphans:
            return None, 0
        held = {self._current.path} if self._current is not None else set()
        for path in sorted(set(self._directory.glob(f"*{SUFFIX}")) - held):
            orphan = File.adopt(path)
            if orphan is None:
                continue
            lines = orphan.lines()
            if lines:
                return Segment(orphan, lines), len(lines)
            orphan.remove()
        return None, 0

    def _append_aside(self, line: bytes) -> None:
        with open(self._directory / ASIDE, "ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _close_files(self) -> None:
        for file in self._sealed:
            file.close()
        if self._current is not None:
            if self._current.size:
                self._current.close()
            else:
                self._current.remove()
        self._sealed, self._current = [], None
