"""The floor: a pass-through on aiohttp that streams both ways and does nothing else. `python -m bench.floor URL`.

What every proxy in Python with this server and its usual client pays at the least: uvloop, no routes, no limit on
connections, nothing decompressed. It knows no caller, counts nothing and prices nothing.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import aiohttp
import uvloop
from aiohttp import web
from multidict import CIMultiDict

DROPPED = frozenset({"host", "connection", "keep-alive", "transfer-encoding"})


class Floor:
    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._upstream = upstream
        self._session = session

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        async with self._session.request(
            request.method,
            self._upstream + request.raw_path,
            headers=passed_on(request.headers),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(status=answer.status, headers=passed_on(answer.headers))
            await response.prepare(request)
            async for data in answer.content.iter_any():
                await response.write(data)
            await response.write_eof()
            return response


def passed_on(headers: aiohttp.typedefs.LooseHeaders) -> CIMultiDict[str]:
    passed: CIMultiDict[str] = CIMultiDict()
    for name, value in CIMultiDict(headers).items():
        if name.lower() not in DROPPED:
            passed.add(name, value)
    return passed


async def main(upstream: str) -> None:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),  # the default of 100 would queue the 101st stream
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    async with session:
        server = web.Server(Floor(upstream, session).handle, access_log=None, auto_decompress=False)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server, "127.0.0.1", 0, family=socket.AF_INET, backlog=4096)
        print(listener.sockets[0].getsockname()[1], flush=True)
        ended = asyncio.Event()
        loop.add_reader(sys.stdin.fileno(), ended.set)
        await ended.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
