"""Heads that come again: an agent begins every call of a connection with the same bytes, but for the length of the
body. What the parser made of them is kept beside them, so that the next call is compared rather than parsed.

Only what the parser took for a whole request is kept, and only a request that is all there, with nothing behind it, is
known again; whatever else comes is the parser's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .request import RawHeaders, Request

if TYPE_CHECKING:
    from ..core.policy import Policy
    from .envelope import Envelope

HEAD_BYTES_MAX = 16 * 1024
"""A longer head is parsed each time."""
LENGTH_DIGITS_MAX = 9

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\n(content-length): ?(\d+)\r\n", re.IGNORECASE)
_CODING = re.compile(rb"\r\n(?:transfer-encoding|upgrade)", re.IGNORECASE)


class Head(msgspec.Struct):
    """The head of a connection's last request.

    before, after   its bytes up to the length of the body, and from there to its end
    headers         what came before the length, and behind it
    opened          what it led to, and under which policy
    """

    before: bytes
    after: bytes
    method: str
    path: str
    headers: tuple[RawHeaders, RawHeaders]
    length_name: bytes
    opened: tuple[Policy, Envelope] | None = None

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
    not all there is in the piece, or its length is told by something else."""
    end = data.find(_END, 0, HEAD_BYTES_MAX)
    if end < 0 or request.version != (1, 1) or not request.keep_alive or not request.body.complete:
        return None
    end += len(_END)
    lengths = _LENGTH.findall(data, 0, end)
    told = [place for place, (name, _) in enumerate(request.raw_headers) if name.lower() == b"content-length"]
    if len(lengths) != 1 or len(told) != 1 or _CODING.search(data, 0, end) is not None:
        return None
    ((name, digits),) = lengths
    if int(digits) != len(data) - end or len(digits) > LENGTH_DIGITS_MAX or request.body.size != len(data) - end:
        return None
    found = _LENGTH.search(data, 0, end)
    assert found is not None
    (place,) = told
    headers = request.raw_headers
    return Head(
        before=data[: found.start(2)],
        after=data[found.end(2) : end],
        method=request.method,
        path=request.raw_path,
        headers=(headers[:place], headers[place + 1 :]),
        length_name=name,
    )
