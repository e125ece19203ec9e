"""What an agent asks: line and headers as they came, the body as it comes, and the way back to the agent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from multidict import CIMultiDict, CIMultiDictProxy

if TYPE_CHECKING:
    from .heads import Head
    from .incoming import AgentConnection

READ_AHEAD_BYTES = 256 * 1024
"""So much of a body is taken before anybody has asked for it."""
PIECE_BYTES_MIN = 1024
"""Shorter pieces of a body are put together as they come: each alone would take many times its length."""

Headers = CIMultiDictProxy[str]
RawHeaders = tuple[tuple[bytes, bytes], ...]


class Body:
    """The body of a request as far as it has come. Its agent is slowed down while nobody wants more of it."""

    __slots__ = ("_bytes_max", "_connection", "_parts", "_waiter", "complete", "failure", "size", "unwanted")

    def __init__(self, connection: AgentConnection) -> None:
        self._connection = connection
        self._parts: list[bytes | bytearray] = []
        self._bytes_max = READ_AHEAD_BYTES
        self._waiter: asyncio.Future[None] | None = None
        self.size = 0
        self.complete = False
        self.unwanted = False
        self.failure = ""
        """What is wrong with it, as a sentence; "" while nothing is."""

    @property
    def over(self) -> bool:
        """There is more of it than anybody wants so far."""
        return self.size > self._bytes_max and not self.unwanted

    def take(self) -> bytes:
        """All bytes that have come and were not taken yet."""
        parts = self._parts
        data = bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return data

    def allow(self, bytes_max: int) -> None:
        """From now on, up to so many bytes are taken from the agent."""
        self._bytes_max = bytes_max
        self._connection.read_on()

    def drop(self) -> None:
        """Nobody will read it: the rest is read over."""
        self.unwanted = True
        self._parts.clear()
        self._connection.read_on()

    async def wait(self) -> None:
        """Until it is complete, broken, or longer than allowed. Raises nothing of its own."""
        while not (self.complete or self.failure or self.over):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self.unwanted:
            return
        parts = self._parts
        if len(data) >= PIECE_BYTES_MIN or not parts:
            parts.append(data)
        elif isinstance(parts[-1], bytearray):
            parts[-1] += data
        else:
            parts.append(bytearray(data))
        if self.over:
            self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Request:
    """What an agent asks: line and headers as they came, the body as it comes, and the way back to the agent."""

    __slots__ = (
        "_connection",
        "_headers",
        "body",
        "head",
        "keep_alive",
        "method",
        "raw_headers",
        "raw_path",
        "version",
        "wrong",
    )

    def __init__(
        self, connection: AgentConnection, method: str = "", raw_path: str = "", raw_headers: RawHeaders = ()
    ) -> None:
        self._connection = connection
        self._headers: Headers | None = None
        self.method = method
        self.raw_path = raw_path
        self.raw_headers = raw_headers
        self.version = (1, 1)
        self.keep_alive = True
        self.body = Body(connection)
        self.head: Head | None = None
        """How it began, where others of its connection may begin alike."""
        self.wrong = ""
        """What is wrong with what came in its place, which cannot be read as HTTP; "" for a request."""

    @property
    def headers(self) -> Headers:
        """The headers by their names, in whatever case; as text in UTF-8, other bytes kept as surrogates."""
        if self._headers is None:
            self._headers = headers_of(self.raw_headers)
        return self._headers

    @property
    def content_length(self) -> int | None:
        """What the headers announce, None where the body comes in chunks."""
        value = self.headers.get("content-length")
        return int(value) if value is not None else None

    @property
    def gone(self) -> bool:
        """Its agent is not there any more."""
        return self._connection.gone

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Towards the agent. Raises ConnectionError where it is gone."""
        transport = self._connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the agent is gone")
        transport.write(data)

    async def drain(self) -> None:
        """Waits while the agent takes nothing. Raises ConnectionError where it is gone."""
        if self._connection.full_since_s:
            await self._connection.drain()

    def abort(self) -> None:
        """Breaks the connection: the only honest end of an answer that cannot be ended otherwise."""
        self._connection.abort()


def headers_of(raw: RawHeaders) -> Headers:
    """Header lines as a mapping that knows names in whatever case."""
    return CIMultiDictProxy(
        CIMultiDict([(name.decode(), value.decode("utf-8", "surrogateescape")) for name, value in raw])
    )
