"""Request bodies: read whole, since a call must be known to be decided, and never more than the policy allows."""

from __future__ import annotations

import asyncio

from .request import Body, Request

BODY_SILENCE_S_MAX = 60.0
"""An upload that stands still this long is given up."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLarge(Exception):
    """More bytes than `max_body`."""


class BodyBroken(Exception):
    """The upload stood still or cannot be read. The text is a sentence for the caller."""


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body as sent, still packed where the caller packed it. Raises BodyTooLarge and BodyBroken."""
    body = request.body
    if not body.complete:
        length = request.content_length
        if length is not None and length > bytes_max:
            raise BodyTooLarge
        if request.headers.get("expect", "").lower() == "100-continue" and request.version >= (1, 1):
            request.write(CONTINUE)
        body.allow(bytes_max)
        await until_all_is_there(body)
    if body.size > bytes_max:
        raise BodyTooLarge
    return body.take()


async def until_all_is_there(body: Body) -> None:
    """Waits for the end of a body, or until it is longer than allowed. Raises BodyBroken."""
    while True:
        had = body.size
        try:
            async with asyncio.timeout(BODY_SILENCE_S_MAX):
                await body.wait()
        except TimeoutError:
            if body.size == had:
                told = f"the body stopped after {had} bytes and nothing came for 60 s; send it again"
                raise BodyBroken(told) from None
            continue
        if body.failure:
            raise BodyBroken(f"the body cannot be read after {body.size} bytes: {body.failure}; send it again")
        return
