"""Heads that come again: an agent begins every call of a connection with the same bytes, but for the length of the
body. What the parser made of them is kept beside them, so that the next call is compared rather than parsed.

Only what the parser took for a whole request is kept, and only a request that is all there, with nothing before or
behind it, is known again; whatever else comes is the parser's. That a head ends with the first empty line, and each
header with its own, is what llhttp sees to: it takes no bare line feeds and no folded lines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .request import RawHeaders, Request

if TYPE_CHECKING:
    from .envelope import Envelope

KEPT_BYTES_MAX = 4 * 1024
"""A longer head is parsed each time. One is kept for each connection, idle ones too."""
LENGTH_DIGITS_MAX = 9

_END = b"\r\n\r\n"
_LENGTH = b"content-length"
_OTHERWISE_ENDED = frozenset({b"transfer-encoding", b"upgrade"})


class Head(msgspec.Struct):
    """How the last request began that came alone in one piece.

    before, after   its bytes up to the length of the body, and from there to its end
    headers         what came before the length, and behind it
    opened          the envelope that it led to, and which generation of those that is
    """

    before: bytes
    after: bytes
    method: str
    path: str
    headers: tuple[RawHeaders, RawHeaders]
    length_name: bytes
    opened: tuple[int, Envelope] | None = None

    def __repr__(self) -> str:
        """Without the headers, in which there are credentials."""
        return f"Head({self.method} {self.path})"

    def body(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The length as it was written, and the body, where a piece of input is a whole request with this head."""
        if not data.startswith(self.before):
            return None
        start = len(self.before)
        end = data.find(b"\r", start, start + LENGTH_DIGITS_MAX + 1)
        digits = data[start:end]
        if not digits.isdigit() or not data.startswith(self.after, end):
            return None
        begins = end + len(self.after)
        return (digits, data[begins:]) if len(data) - begins == int(digits) else None


def head_of(data: bytes, request: Request) -> Head | None:
    """The head of a request that the parser made of a piece of input; None where it is none to be kept: the request is
    not all that is in the piece, or its end is told by something else than its length."""
    end = data.find(_END, 0, KEPT_BYTES_MAX) + len(_END)
    size = len(data) - end
    if end < len(_END) or not request.body.complete or request.version != (1, 1) or not request.keep_alive:
        return None
    headers = request.raw_headers
    lowered = [name.lower() for name, _ in headers]
    if lowered.count(_LENGTH) != 1 or not _OTHERWISE_ENDED.isdisjoint(lowered):
        return None
    place = lowered.index(_LENGTH)
    name, digits = headers[place]
    line = b"\r\n%b: %b\r\n" % (name, digits)
    at = data.find(line, 0, end)
    if at < 0 or not digits.isdigit() or len(digits) > LENGTH_DIGITS_MAX or int(digits) != size:
        return None
    digits_at = at + len(line) - len(digits) - 2
    return Head(
        before=data[:digits_at],
        after=data[digits_at + len(digits) : end],
        method=request.method,
        path=request.raw_path,
        headers=(headers[:place], headers[place + 1 :]),
        length_name=name,
    )
