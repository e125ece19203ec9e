"""Request bodies: read whole, since a call must be known to be decided, and never more than the policy allows."""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web

BODY_SILENCE_S_MAX = 60.0
"""An upload that stands still this long is given up."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLarge(Exception):
    """More bytes than `max_body`."""


class BodyBroken(Exception):
    """The upload ended early or stood still. The text is a sentence for the caller."""


async def read_body(request: web.BaseRequest, bytes_max: int) -> bytes:
    """The body as sent, still packed where the caller packed it. Raises BodyTooLarge and BodyBroken."""
    length = request.content_length
    if length is not None and length > bytes_max:
        raise BodyTooLarge
    content = request.content
    if content.is_eof():
        return content.read_nowait(-1) if content.total_bytes else b""
    if request.headers.get("expect", "").lower() == "100-continue" and request.version >= (1, 1):
        await request.writer.write(CONTINUE)
    parts: list[bytes] = []
    size = 0
    try:
        if length is not None and length <= content.get_read_buffer_limits()[1]:
            await until_all_is_there(content)
            return content.read_nowait(-1)
        while not content.at_eof():
            async with asyncio.timeout(BODY_SILENCE_S_MAX):
                part = await content.readany()
            size += len(part)
            if size > bytes_max:
                raise BodyTooLarge
            parts.append(part)
    except TimeoutError:
        size = content.total_bytes
        raise BodyBroken(f"the body stopped after {size} bytes and nothing came for 60 s; send it again") from None
    except web.RequestPayloadError:
        size = content.total_bytes
        raise BodyBroken(f"the body ended after {size} bytes, before the length it announced; send it again") from None
    return b"".join(parts)


async def until_all_is_there(content: StreamReader) -> None:
    """Waits for a body that the server's buffer takes whole: to be woken for each piece of it costs more than all else
    about reading it. Raises TimeoutError where nothing came for too long, and what the server says of a broken upload.
    """
    if (broken := content.exception()) is not None:
        raise broken
    while not content.is_eof():
        had = content.total_bytes
        try:
            async with asyncio.timeout(BODY_SILENCE_S_MAX):
                await content.wait_eof()
        except TimeoutError:
            if content.total_bytes == had:
                raise
