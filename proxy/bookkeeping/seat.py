"""Seat: one bookkeeper at a time works in a data directory, and its successor there knows that it is dead."""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path

SEAT_FILE = "bookkeeper.seat"
NAME_BYTES = 16
"""A name that no other bookkeeper of the same store ever has, whatever its host or directory is called."""


class Seat:
    """The seat of a data directory, held until this process ends or leaves it.

    `holder` is the name under which its holder works, new each time it is taken; `predecessor` the one before it, who
    must be dead, since it would hold the lock otherwise. A copy of the directory gives two successors of one
    predecessor, and still two names.
    """

    def __init__(self, descriptor: int, holder: str, predecessor: str) -> None:
        self._descriptor = descriptor
        self.holder = holder
        self.predecessor = predecessor

    @classmethod
    def take(cls, data: Path) -> Seat | None:
        """None while another process holds it. Raises OSError."""
        descriptor = os.open(data / SEAT_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        predecessor = os.pread(descriptor, 2 * NAME_BYTES, 0).decode("ascii", "replace")
        holder = secrets.token_hex(NAME_BYTES)
        os.pwrite(descriptor, f"{holder}\n".encode(), 0)
        os.fsync(descriptor)
        return cls(descriptor, holder, predecessor)

    def leave(self) -> None:
        """May be repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
