"""The load of the benchmark: raw connections that send one request after the other and compare every answer.

`python -m bench.load ORDER` with an Order as JSON; prints a Result as JSON when it is through.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

import msgspec
import uvloop

from .exchange import VARIED, Kind, good_bodies, request, spelled

ANSWER_S_MAX = 60.0
"""No answer of this benchmark takes longer, unless something is broken."""


class Order(msgspec.Struct, kw_only=True):
    """What to send where.

    connections   calls at once
    seconds       for so long every connection sends its next call as soon as it has an answer; 0: one call each,
                  begun evenly over a second
    rate          calls a second, begun by the clock whether or not answers are there; 0: as `seconds` says
    varied        no call says what another said
    """

    port: int
    key: str
    kind: Kind
    connections: int
    seconds: float
    rate: float = 0
    varied: bool = False


class Result(msgspec.Struct, kw_only=True):
    """What came back. Times in ms, of good answers, in the order of their ends."""

    good: int
    bad: int
    seconds: float
    ms_total: list[float]
    ms_first: list[float]
    complaint: str = ""


class Caller(asyncio.Protocol):
    """One connection. `done` is told of each answer: good or not, ms to its first byte of body, ms in all."""

    def __init__(self, data: bytes, good: tuple[bytes, ...], done: Callable[[Caller, str, float, float], None]) -> None:
        self._data = data
        self._good = good
        self._done = done
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._head = b""
        self._missing: int | None = None
        self._begun_s = 0.0
        self._first_s = 0.0
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def send(self, number: int | None = None) -> None:
        """Its request; with another word in it for each number."""
        self.busy = True
        self._parts, self._head, self._missing, self._first_s = [], b"", None, 0.0
        self._begun_s = time.perf_counter()
        data = self._data if number is None else self._data.replace(VARIED.encode(), spelled(number), 1)
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            held = self._head + data
            end = held.find(b"\r\n\r\n")
            if end < 0:
                self._head = held
                return
            self._head, data = held[:end], held[end + 4 :]
            lowered = self._head.lower()
            start = lowered.find(b"\r\ncontent-length:")
            self._missing = int(lowered[start + 17 :].split(b"\r\n", 1)[0]) if start >= 0 else -1
        if data:
            if not self._first_s:
                self._first_s = time.perf_counter()
            self._parts.append(data)
        if self._missing >= 0:
            self._missing -= len(data)
            if self._missing <= 0:
                self._end(b"".join(self._parts))
        elif data.endswith(b"0\r\n\r\n") or (len(data) < 5 and b"".join(self._parts).endswith(b"0\r\n\r\n")):
            self._end(unframed(b"".join(self._parts)))

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self._end(b"the connection was closed")

    def _end(self, body: bytes) -> None:
        now_s = time.perf_counter()
        self.busy = False
        good = self._head.startswith(b"HTTP/1.1 200") and body in self._good
        complaint = "" if good else f"{self._head[:80]!r} ... {body[:200]!r}"
        self._done(self, complaint, (self._first_s - self._begun_s) * 1000, (now_s - self._begun_s) * 1000)


def unframed(data: bytes) -> bytes:
    """The body out of its transfer coding."""
    parts, at = [], 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        if size == 0:
            break
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(parts)


class Load:
    def __init__(self, order: Order) -> None:
        self._order = order
        self._result = Result(good=0, bad=0, seconds=0.0, ms_total=[], ms_first=[])
        self._until_s = 0.0
        self._callers: list[Caller] = []
        self._idle = asyncio.Event()
        self._running = 0
        self._sent = 0
        self._first = time.time_ns() // 1000 if order.varied else 0

    async def run(self) -> Result:
        order = self._order
        loop = asyncio.get_running_loop()
        data = request(order.kind, host=f"127.0.0.1:{order.port}", key=order.key)
        good = good_bodies(order.kind)
        for _ in range(order.connections):
            _, caller = await loop.create_connection(
                lambda: Caller(data, good, self._answered), "127.0.0.1", order.port
            )
            self._callers.append(caller)
        begun_s = time.perf_counter()
        self._until_s = begun_s + order.seconds
        if order.rate:
            await self._by_the_clock(begun_s)
        else:
            await self._all_at_once()
        async with asyncio.timeout(ANSWER_S_MAX):
            while self._running:
                self._idle.clear()
                await self._idle.wait()
        self._result.seconds = time.perf_counter() - begun_s
        return self._result

    async def _all_at_once(self) -> None:
        once = not self._order.seconds
        for caller in self._callers:
            self._send(caller)
            if once:
                await asyncio.sleep(1 / len(self._callers))
        if not once:
            await asyncio.sleep(max(0.0, self._until_s - time.perf_counter()))

    async def _by_the_clock(self, begun_s: float) -> None:
        for number in range(int(self._order.seconds * self._order.rate)):
            await asyncio.sleep(max(0.0, begun_s + number / self._order.rate - time.perf_counter()))
            caller = next((caller for caller in self._callers if not caller.busy), None)
            if caller is None:
                self._result.bad += 1
                self._result.complaint = "every connection was busy when a call was due"
            else:
                self._send(caller)

    def _send(self, caller: Caller) -> None:
        self._running += 1
        self._sent += 1
        caller.send(self._first + self._sent if self._order.varied else None)

    def _answered(self, caller: Caller, complaint: str, ms_first: float, ms_total: float) -> None:
        result = self._result
        self._running -= 1
        if complaint:
            result.bad += 1
            result.complaint = complaint
        else:
            result.good += 1
            result.ms_first.append(round(ms_first, 3))
            result.ms_total.append(round(ms_total, 3))
            if not self._order.rate and time.perf_counter() < self._until_s:
                self._send(caller)
        if not self._running:
            self._idle.set()


async def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    result = await Load(order).run()
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    uvloop.run(main())
