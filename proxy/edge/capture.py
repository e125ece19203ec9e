"""Capture: what leaves of an answer, gathered while it leaves, for the twins of its call."""

from __future__ import annotations

import msgspec

from .answers import Fields

ANSWER_BYTES_MAX = 1024 * 1024
"""A longer answer is not kept: a twin that waited for it goes upstream itself."""

_NOT_KEPT = frozenset({b"set-cookie", b"date", b"content-length", b"transfer-encoding", b"connection", b"retry-after"})
"""Headers that speak of the first answer's own connection, time or client."""


class Capture(msgspec.Struct):
    """What leaves of an answer, gathered for its twins. `lives_ms`: under which names, and for how long. Not
    `lendable`: no twin can be given it, and they are only told that it is over."""

    lives_ms: dict[str, int]
    lendable: bool = True
    status: int = 0
    fields: Fields = []
    parts: list[bytes] = []
    size: int = 0

    def begin(self, status: int, fields: Fields) -> None:
        """The head of the answer: of its headers, those that are given again with it."""
        self.status = status
        for name, value in fields:
            lower = name.lower()
            if lower not in _NOT_KEPT and b"ratelimit" not in lower and not lower.startswith(b"x-callmeter"):
                self.fields.append((name, value))

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= ANSWER_BYTES_MAX:
            self.parts.append(data)
        else:
            self.parts = []
