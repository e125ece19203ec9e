"""The provider of the accuracy test: answers OpenAI chats as each call's header `x-bench` wishes, and counts calls.

`python -m bench.accuracy_provider` prints its port and serves until its standard input ends. The header is JSON, a
`Wish`. `GET /stats` tells how many calls each load has sent here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from typing import Any

import msgspec
import uvloop
from aiohttp import web

INPUT_TOKENS = 50
"""What every call is said to have read."""
BYTES_PER_TOKEN = 4
WISH_HEADER = "x-bench"


class Wish(msgspec.Struct, kw_only=True):
    """What the answer shall be.

    load        whose call it is, for the count
    tokens      of the output, in all
    pieces      into so many events a stream is cut
    pause_ms    before the whole answer, or before each piece of a stream
    cut_after   break the connection after so many pieces; -1: never
    status      an error instead of an answer; 0: none
    """

    load: str
    tokens: int
    pieces: int = 5
    pause_ms: int = 20
    cut_after: int = -1
    status: int = 0


class Provider:
    def __init__(self) -> None:
        self._calls: Counter[str] = Counter()
        self.app = web.Application()
        self.app.add_routes([web.post("/v1/chat/completions", self.chat), web.get("/stats", self.stats)])

    async def stats(self, _request: web.Request) -> web.Response:
        return web.json_response(self._calls)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        wish = msgspec.json.decode(request.headers[WISH_HEADER], type=Wish)
        self._calls[wish.load] += 1
        body = await request.json()
        if wish.status:
            error = {"message": "the provider was asked to fail", "type": "server_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=wish.status)
        usage = {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": wish.tokens,
            "total_tokens": INPUT_TOKENS + wish.tokens,
        }
        base: dict[str, Any] = {"id": "chatcmpl-bench", "created": 1_795_000_000, "model": body["model"]}
        text = "abc " * (wish.tokens * BYTES_PER_TOKEN // 4 // wish.pieces)
        if not body.get("stream"):
            await asyncio.sleep(wish.pause_ms * wish.pieces / 1000)
            message = {"role": "assistant", "content": text}
            choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
            return web.json_response({**base, "object": "chat.completion", "choices": choices, "usage": usage})
        return await self._stream(request, wish, {**base, "object": "chat.completion.chunk"}, text, usage)

    async def _stream(
        self, request: web.Request, wish: Wish, base: dict[str, Any], text: str, usage: dict[str, int]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number in range(wish.pieces):
            if number == wish.cut_after:
                if request.transport is not None:
                    request.transport.abort()
                return response
            await asyncio.sleep(wish.pause_ms / 1000)
            finish = "stop" if number == wish.pieces - 1 else None
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
            await response.write(event({**base, "choices": [choice], "usage": None}))
        await response.write(event({**base, "choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def event(document: Any) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


async def main() -> None:
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # proxies that go away are what is tested
    runner = web.AppRunner(Provider().app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(runner.addresses[0][1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(main())
