"""A simulated provider: answers in the OpenAI, Anthropic and Gemini dialects, with usage that adds up.

For demos, tests and benchmarks. What it shall do is told by the header `x-sim`, a list like `chunks=50, pause-ms=20`:

    chunks=N        pieces of text in the answer (default 5), each counted as one output token
    pause-ms=N      wait before each piece            first-ms=N   wait before the first byte
    status=N        answer with this error instead    retry-after=N   the header beside it
    cut-after=N     break the connection after N pieces            reset=1   break it before any answer
    cached=N        of the input tokens, so many come from the provider's cache
    reasoning=N     hidden reasoning tokens on top    tool=NAME    answer with a call of this tool
    gzip=1          answer packed                     usage=0      report no usage at all
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from aiohttp import web

Event = tuple[str, Any]
"""The name of a server-sent event ("" for none) and its JSON data."""

PORT = 8099
"""Where `./dev simulator` serves, as policies/90-simulated.yaml says."""

NUMBERS = (
    "chunks",
    "pause-ms",
    "first-ms",
    "status",
    "cut-after",
    "reset",
    "cached",
    "reasoning",
    "gzip",
    "usage",
)
"""What `x-sim` gives as a whole number. `retry-after` is passed on as it is, seconds with a fraction too."""

_numbers = itertools.count(1)


class Wish:
    """What the `x-sim` header asks for."""

    def __init__(self, request: web.Request) -> None:
        parts = [part.strip().partition("=") for part in request.headers.get("x-sim", "").split(",") if part.strip()]
        self._values = {name: value for name, _, value in parts}

    def number(self, name: str, default: int = 0) -> int:
        """Raises HTTPBadRequest with a sentence, before anything was answered: `_begin` has looked at all of them."""
        value = self._values.get(name, "")
        if not value:
            return default
        if not (value.isascii() and value.isdigit()):
            raise web.HTTPBadRequest(text=f"x-sim: `{name}` is `{value}`; write a whole number")
        return int(value)

    def text(self, name: str) -> str:
        return self._values.get(name, "")


def input_tokens(body: Any) -> int:
    """About four bytes a token, over everything that was sent."""
    return max(1, len(json.dumps(body)) // 4)


def words(count: int) -> list[str]:
    return [f"word{number} " for number in range(count)]


class Simulator:
    """Remembers what it was sent (`seen`) and the background answers it still owes."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.later: dict[str, dict[str, Any]] = {}
        self.app = web.Application(client_max_size=64 * 1024 * 1024)
        self.app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/responses", self.responses),
                web.get("/v1/responses/{id}", self.response),
                web.post("/v1/embeddings", self.embeddings),
                web.get("/v1/models", self.models),
                web.post("/v1/messages", self.messages),
                web.post("/v1/messages/count_tokens", self.count_tokens),
                web.post("/v1beta/models/{call}", self.gemini),
                web.post("/v1/models/{call}", self.gemini),
            ]
        )

    # -- OpenAI ---------------------------------------------------------------------------------------------------

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body, wish = await self._begin(request)
        if refused := self._error(request, wish, "openai"):
            return refused
        number, chunks = next(_numbers), wish.number("chunks", 5)
        reasoning, cached = wish.number("reasoning"), wish.number("cached")
        usage = {
            "prompt_tokens": input_tokens(body),
            "completion_tokens": chunks + reasoning,
            "total_tokens": input_tokens(body) + chunks + reasoning,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0},
        }
        base = {"id": f"chatcmpl-sim{number}", "created": 1_790_000_000, "model": body.get("model")}
        tool = wish.text("tool")
        finish = "tool_calls" if tool else "stop"
        call = {
            "id": f"call_{number}",
            "type": "function",
            "function": {"name": tool, "arguments": '{"city":"Berlin"}'},
        }
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": None if tool else "".join(words(chunks))}
            if tool:
                message["tool_calls"] = [call]
            choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
            answer = {**base, "object": "chat.completion", "choices": [choice], "service_tier": "default"}
            return self._json(answer | ({"usage": usage} if wish.number("usage", 1) else {}), wish)
        base["object"] = "chat.completion.chunk"
        asked = (body.get("stream_options") or {}).get("include_usage") and wish.number("usage", 1)
        empty = {"usage": None} if asked else {}

        def piece(delta: dict[str, Any], finish_reason: str | None = None) -> Event:
            return "", {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}], **empty}

        events = [piece({"role": "assistant", "content": ""})]
        if tool:
            events.append(piece({"tool_calls": [{"index": 0, **call}]}))
        else:
            events += [piece({"content": word}) for word in words(chunks)]
        events.append(piece({}, finish))
        if asked:
            events.append(("", {**base, "choices": [], "usage": usage}))
        return await self._stream(request, wish, [*events, ("", "[DONE]")])

    async def responses(self, request: web.Request) -> web.StreamResponse:
        body, wish = await self._begin(request)
        if refused := self._error(request, wish, "openai"):
            return refused
        chunks, reasoning = wish.number("chunks", 5), wish.number("reasoning")
        read = input_tokens(body)
        text = "".join(words(chunks))
        content = [{"type": "output_text", "text": text, "annotations": []}]
        item = {"id": "msg_sim", "type": "message", "role": "assistant", "status": "completed", "content": content}
        done = {
            "id": f"resp_sim{next(_numbers)}",
            "object": "response",
            "created_at": 1_790_000_000,
            "model": body.get("model"),
            "status": "completed",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": wish.number("cached")},
                "output_tokens": chunks + reasoning,
                "output_tokens_details": {"reasoning_tokens": reasoning},
                "total_tokens": read + chunks + reasoning,
            },
        }
        begun = {**done, "status": "in_progress", "output": [], "usage": None}
        if body.get("background"):
            self.later[str(done["id"])] = done
            return self._json({**begun, "status": "queued", "background": True}, wish)
        if not body.get("stream"):
            return self._json(done, wish)
        place = {"item_id": "msg_sim", "output_index": 0, "content_index": 0}
        empty_part = {"type": "output_text", "text": "", "annotations": []}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": begun},
            {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
            {"type": "response.content_part.added", **place, "part": empty_part},
            *({"type": "response.output_text.delta", **place, "delta": word} for word in words(chunks)),
            {"type": "response.output_text.done", **place, "text": text},
            {"type": "response.content_part.done", **place, "part": content[0]},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": done},
        ]
        numbered = [(event["type"], {**event, "sequence_number": n}) for n, event in enumerate(events)]
        return await self._stream(request, wish, numbered)

    async def response(self, request: web.Request) -> web.StreamResponse:
        done = self.later.get(request.match_info["id"])
        if done is None:
            return web.json_response({"error": {"message": "not found", "type": "invalid_request_error"}}, status=404)
        return web.json_response(done)

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        body, wish = await self._begin(request)
        read = input_tokens(body)
        data = [{"object": "embedding", "index": 0, "embedding": [0.0] * wish.number("chunks", 8)}]
        usage = {"prompt_tokens": read, "total_tokens": read}
        return self._json({"object": "list", "data": data, "model": body.get("model"), "usage": usage}, wish)

    async def models(self, _request: web.Request) -> web.StreamResponse:
        model = {"id": "gpt-5-mini", "object": "model", "created": 1_790_000_000, "owned_by": "sim"}
        return web.json_response({"object": "list", "data": [model]})

    # -- Anthropic ------------------------------------------------------------------------------------------------

    async def messages(self, request: web.Request) -> web.StreamResponse:
        body, wish = await self._begin(request)
        if refused := self._error(request, wish, "anthropic"):
            return refused
        chunks, cached, tool = wish.number("chunks", 5), wish.number("cached"), wish.text("tool")
        read = {
            "input_tokens": input_tokens(body),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": cached,
            "service_tier": "standard",
        }
        stop = "tool_use" if tool else "end_turn"
        text = "".join(words(chunks))
        block: dict[str, Any] = {"type": "text", "text": text}
        if tool:
            block = {"type": "tool_use", "id": "toolu_sim", "name": tool, "input": {"city": "Berlin"}}
        message = {
            "id": f"msg_sim{next(_numbers)}",
            "type": "message",
            "role": "assistant",
            "model": body.get("model"),
            "content": [block],
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {**read, "output_tokens": chunks},
        }
        if not body.get("stream"):
            return self._json(message, wish)
        begun = {**message, "content": [], "stop_reason": None, "usage": {**read, "output_tokens": 1}}
        if tool:
            first: dict[str, Any] = {**block, "input": {}}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        else:
            first = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": word} for word in words(chunks)]
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": first},
            {"type": "ping"},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop, "stop_sequence": None},
                "usage": {"output_tokens": chunks},
            },
            {"type": "message_stop"},
        ]
        return await self._stream(request, wish, [(str(event["type"]), event) for event in events])

    async def count_tokens(self, request: web.Request) -> web.StreamResponse:
        body, _ = await self._begin(request)
        return web.json_response({"input_tokens": input_tokens(body)})

    # -- Gemini ---------------------------------------------------------------------------------------------------

    async def gemini(self, request: web.Request) -> web.StreamResponse:
        body, wish = await self._begin(request)
        model, _, verb = request.match_info["call"].partition(":")
        if refused := self._error(request, wish, "gemini"):
            return refused
        chunks, reasoning, read = wish.number("chunks", 5), wish.number("reasoning"), input_tokens(body)
        if verb == "countTokens":
            return web.json_response({"totalTokens": read})

        def answer(part: dict[str, Any], made: int, finish: str | None) -> dict[str, Any]:
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
            if finish:
                candidate["finishReason"] = finish
            usage = {"promptTokenCount": read, "candidatesTokenCount": made, "thoughtsTokenCount": reasoning}
            usage["totalTokenCount"] = read + made + reasoning
            return {
                "candidates": [candidate],
                "usageMetadata": usage,
                "modelVersion": model,
                "responseId": f"sim{next(_numbers)}",
            }

        tool = wish.text("tool")
        call = {"functionCall": {"name": tool, "args": {"city": "Berlin"}}}
        if verb == "generateContent":
            return self._json(answer(call if tool else {"text": "".join(words(chunks))}, chunks, "STOP"), wish)
        pieces = words(chunks)
        parts = [answer({"text": word}, n, "STOP" if n == chunks else None) for n, word in enumerate(pieces, 1)]
        if tool:  # Gemini sends a call of a tool whole, in one piece
            parts = [answer(call, chunks, "STOP")]
        if request.query.get("alt") == "sse":
            return await self._stream(request, wish, [("", part) for part in parts], end="\r\n")
        return web.Response(text=json.dumps(parts), content_type="application/json")

    # -- common to all --------------------------------------------------------------------------------------------

    async def _begin(self, request: web.Request) -> tuple[dict[str, Any], Wish]:
        raw = await request.read()
        self.seen.append((request.path_qs, dict(request.headers), raw))
        wish = Wish(request)
        for name in NUMBERS:
            wish.number(name)
        if wish.number("reset") and request.transport is not None:
            request.transport.abort()
        if wait_ms := wish.number("first-ms"):
            await asyncio.sleep(wait_ms / 1000)
        return json.loads(raw), wish

    def _error(self, request: web.Request, wish: Wish, dialect: str) -> web.Response | None:
        status = wish.number("status")
        if not status:
            return None
        text = "the simulated provider was asked to fail"
        bodies = {
            "openai": {"error": {"message": text, "type": "server_error", "param": None, "code": "simulated"}},
            "anthropic": {"type": "error", "error": {"type": "api_error", "message": text}, "request_id": "req_sim"},
            "gemini": {"error": {"code": status, "message": text, "status": "INTERNAL"}},
        }
        headers = {"x-request-id": "req_sim"}
        if after := wish.text("retry-after"):
            headers["retry-after"] = after
        return web.json_response(bodies[dialect], status=status, headers=headers)

    def _json(self, answer: dict[str, Any], wish: Wish) -> web.Response:
        data = json.dumps(answer).encode()
        headers = {"content-type": "application/json", "x-request-id": "req_sim"}
        if wish.number("gzip"):
            data, headers["content-encoding"] = gzip.compress(data), "gzip"
        return web.Response(body=data, headers=headers)

    async def _stream(
        self, request: web.Request, wish: Wish, events: list[Event], end: str = "\n"
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-request-id": "req_sim"})
        with suppress(ConnectionError):  # who reads it may leave at any time, as an agent that is broken off does
            await response.prepare(request)
            async for data in self._paced(wish, events, end):
                if data is None:
                    if request.transport is not None:
                        request.transport.abort()
                    return response
                await response.write(data)
            await response.write_eof()
        return response

    async def _paced(self, wish: Wish, events: list[Event], end: str) -> AsyncIterator[bytes | None]:
        """The events as bytes, at the wished pace; None where the connection shall break."""
        pause_ms, cut_after = wish.number("pause-ms"), wish.number("cut-after", -1)
        for number, (name, data) in enumerate(events):
            if number == cut_after:
                yield None
                return
            if pause_ms:
                await asyncio.sleep(pause_ms / 1000)
            line = data if isinstance(data, str) else json.dumps(data)
            yield ((f"event: {name}{end}" if name else "") + f"data: {line}{end}{end}").encode()


async def serve(
    host: str = "127.0.0.1", port: int = 0, simulator: Simulator | None = None
) -> tuple[web.AppRunner, int]:
    """Starts a simulator; gives the runner (to `cleanup()`) and its port."""
    runner = web.AppRunner((simulator or Simulator()).app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    return runner, int(runner.addresses[0][1])


async def main() -> None:
    """Until Ctrl-C, where policies/90-simulated.yaml points."""
    try:
        runner, port = await serve(port=PORT)
    except OSError as error:
        raise SystemExit(
            f"simulator: cannot listen on 127.0.0.1:{PORT}: {os.strerror(error.errno or 0)}; stop what uses it, maybe "
            "another simulator. The upstreams of policies/90-simulated.yaml point there"
        ) from None
    print(f"The simulated provider answers on http://127.0.0.1:{port}; Ctrl-C ends it", flush=True)
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
