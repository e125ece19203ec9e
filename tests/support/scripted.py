"""A provider that does exactly what a test says, byte by byte; and an agent that reads exactly as much as it wants."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.support.valkey import PATIENT_S

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def whole(body: bytes, *headers: str, status: str = "200 OK", content_type: str = "application/json") -> bytes:
    """An answer in one piece."""
    lines = [f"HTTP/1.1 {status}", f"content-type: {content_type}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document: Any, name: str = "") -> bytes:
    """A server-sent event."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(document).encode() + b"\n\n"


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of the next request."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return head, await reader.readexactly(int(length or 0))


@asynccontextmanager
async def scripted(script: Script, port: int = 0, *, buffer_bytes: int | None = None) -> AsyncIterator[str]:
    """A server that plays `script` on each connection; gives its base URL. `buffer_bytes` keeps the buffers of the
    system small, for tests of back-pressure."""
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if buffer_bytes is not None:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
    place.bind(("127.0.0.1", port))
    server = await asyncio.start_server(play, sock=place)
    try:
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Agent:
    """One call over a raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}

    async def head(self) -> None:
        async with asyncio.timeout(PATIENT_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        self.status = int(lines[0].split()[1])
        pairs = [line.partition(":") for line in lines[1:] if line]
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}

    async def chunk(self) -> bytes:
        """The next chunk; b"" is the honest end. Raises IncompleteReadError or ConnectionError where it broke."""
        async with asyncio.timeout(PATIENT_S):
            size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
            return (await self._reader.readexactly(size + 2))[:-2]

    async def rest(self) -> bytes:
        """All further chunks up to the honest end."""
        found = b""
        while data := await self.chunk():
            found += data
        return found

    async def body(self) -> bytes:
        """The body of an answer with a length."""
        async with asyncio.timeout(PATIENT_S):
            return await self._reader.readexactly(int(self.headers["content-length"]))

    async def broke(self) -> bool:
        """Whether the answer ends without its honest end."""
        try:
            await self.rest()
        except (asyncio.IncompleteReadError, ConnectionError):
            return True
        return False

    def leave(self) -> None:
        """Goes away at once, as a process that is killed."""
        self._writer.transport.abort()


@asynccontextmanager
async def agent(
    address: tuple[str, int],
    path: str,
    body: Any,
    headers: Mapping[str, str],
    *,
    buffer_bytes: int | None = None,
) -> AsyncIterator[Agent]:
    """A POST that is sent; nothing of its answer has been read yet."""
    place = socket.socket()
    place.setblocking(False)
    options: dict[str, Any] = {}
    if buffer_bytes is not None:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        options["limit"] = buffer_bytes
    await asyncio.get_running_loop().sock_connect(place, address)
    reader, writer = await asyncio.open_connection(sock=place, **options)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"host": "x", "content-type": "application/json", "content-length": str(len(data)), **headers}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items()) + "\r\n"
    writer.write(head.encode() + data)
    try:
        yield Agent(reader, writer)
    finally:
        writer.transport.abort()
