"""An OTLP collector that takes everything and counts the spans in it. `python -m bench.collector`.

It prints its port and serves until its standard input ends; `GET /stats` tells how many spans it has had.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .exchange import header_field

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


class Stats:
    spans = 0


class Collecting(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._parts: list[bytes] = []
        self._missing = 0
        self._traces = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if not self._missing:
            held = b"".join(self._parts) + data
            end = held.find(b"\r\n\r\n")
            if end < 0:
                self._parts = [held]
                return
            head = held[:end].lower()
            if head.startswith(b"get /stats"):
                body = json.dumps({"spans": Stats.spans}).encode()
                self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                self._parts = []
                return
            self._parts, data = [], held[end + 4 :]
            self._missing = int(header_field(head, b"content-length") or 0)
            self._traces = head.startswith(b"post /v1/traces ")
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing == 0:
            if self._traces:
                Stats.spans += spans_in(b"".join(self._parts))
            self._parts = []
            self._transport.write(TAKEN)


def spans_in(body: bytes) -> int:
    request = ExportTraceServiceRequest.FromString(body)
    return sum(len(scoped.spans) for group in request.resource_spans for scoped in group.scope_spans)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Collecting, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(main())
