"""The provider of the benchmark: OpenAI's chat on a raw socket, answers built in advance. `python -m bench.provider`.

It prints its port and serves until its standard input ends. `GET /stats` tells how many answers it has given and how
many were under way at once since the last look; a proxy that queues calls shows itself there.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from .exchange import ANSWER_HEADERS, CHUNKS, header_field, plain_answer, stream_events

PAUSE_S = {b"stream": 0.005, b"slow": 0.2}
"""Between two chunks. The fast stream is slow enough that each chunk arrives by itself and not with the next one."""
FIRST_S = {b"stream": 0.005, b"slow": 0.2}


def sized(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{ANSWER_HEADERS}\r\n"
    return head.encode() + body


def framed(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(*, usage_asked: bool) -> list[bytes]:
    """What is written at each tick: head and first chunk, the other chunks, and with the last one what ends it."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n{ANSWER_HEADERS}\r\n"
    events = stream_events(usage_asked=usage_asked)
    ticks = [framed(event) for event in events[:CHUNKS]]
    ticks[0] = head.encode() + ticks[0]
    ticks[-1] += b"".join(framed(event) for event in events[CHUNKS:]) + b"0\r\n\r\n"
    return ticks


PLAIN = sized(plain_answer())
STREAM = frames(usage_asked=False)
STREAM_WITH_USAGE = frames(usage_asked=True)


class Stats:
    answers = 0
    running = 0
    peak = 0


class Answering(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        held = self._held + data if self._held else data
        end = held.find(b"\r\n\r\n")
        if end < 0:
            self._held = held
            return
        head = held[:end].lower()
        length = int(header_field(head, b"content-length") or 0)
        if len(held) - end - 4 < length:
            self._held = held
            return
        self._held = b""
        if head.startswith(b"get /stats"):
            told = json.dumps({"answers": Stats.answers, "peak": Stats.peak}).encode()
            Stats.peak = Stats.running
            self._transport.write(sized(told))
            return
        kind = header_field(head, b"x-bench")
        if kind not in PAUSE_S:
            Stats.answers += 1
            self._transport.write(PLAIN)
            return
        Stats.running += 1
        Stats.peak = max(Stats.peak, Stats.running)
        ticks = STREAM_WITH_USAGE if b'"include_usage":true' in held else STREAM
        self._loop.call_later(FIRST_S[kind], self._tick, ticks, 0, PAUSE_S[kind])

    def _tick(self, ticks: list[bytes], number: int, pause_s: float) -> None:
        if self._transport.is_closing():
            Stats.running -= 1
            return
        self._transport.write(ticks[number])
        if number + 1 < len(ticks):
            self._loop.call_later(pause_s, self._tick, ticks, number + 1, pause_s)
        else:
            Stats.running -= 1
            Stats.answers += 1


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(loop), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
