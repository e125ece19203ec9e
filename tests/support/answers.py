"""Answers of providers, written by hand: small calls, event streams, and what a meter reads of them."""

from __future__ import annotations

import json
from typing import Any

from proxy import wire
from proxy.core.call import Call
from proxy.wire import Reading

JSON = {"content-type": "application/json"}


def call_to(
    path: str,
    fields: dict[str, Any] | None = None,
    *,
    method: str = "POST",
    query: str = "",
    dialect: str = "openai",
    provider: str = "openai",
) -> Call:
    """The call that a JSON request makes; without fields one that has no body."""
    body = b"" if fields is None else json.dumps(fields).encode()
    return wire.read_call(
        method=method, path=path, query=query, headers=JSON, body=body, dialect=dialect, provider=provider
    )


def chat(provider: str = "openai", **fields: Any) -> Call:
    """A call to chat completions that streams unless it says otherwise."""
    asked = {"model": "gpt-4o-mini", "messages": [], "stream": True} | fields
    return call_to("/v1/chat/completions", asked, provider=provider)


def responses(**fields: Any) -> Call:
    """A call to the Responses API that streams unless it says otherwise."""
    return call_to("/v1/responses", {"model": "gpt-4o-mini", "input": "hi", "stream": True} | fields)


def sse(*events: Any, ending: str = "\n", done: bool = False) -> bytes:
    """Events as a stream: dicts become data, pairs are (event name, dict), text goes in as it is."""
    blocks: list[str] = []
    for event in [*events, "data: [DONE]"] if done else events:
        if isinstance(event, str):
            blocks.append(event)
        elif isinstance(event, tuple):
            blocks.append(f"event: {event[0]}\ndata: {json.dumps(event[1])}")
        else:
            blocks.append(f"data: {json.dumps(event)}")
    return "".join(block + "\n\n" for block in blocks).replace("\n", ending).encode()


def chunk(content: str | None = None, **fields: Any) -> dict[str, Any]:
    """A chunk of a chat stream."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": fields.pop("finish_reason", None)}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-mini", "choices": [choice]} | fields


def tokens(prompt: int, completion: int, **more: Any) -> dict[str, Any]:
    """A usage object of the chat dialect."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion} | more


def read_answer(
    call: Call,
    body: bytes | dict[str, Any] | list[Any],
    *,
    provider: str = "openai",
    status: int = 200,
    content_type: str | None = None,
    content_encoding: str = "",
) -> Reading:
    """What a meter reads of an answer; it must read the same in one piece, cut anywhere in two, and byte by byte."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if content_type is None:
        content_type = "text/event-stream" if call.stream else "application/json"

    def read(*pieces: bytes) -> Reading:
        meter = wire.open_meter(
            call, provider=provider, status=status, content_type=content_type, content_encoding=content_encoding
        )
        for piece in pieces:
            meter.feed(piece)
        return meter.close()

    whole = read(body)
    for cut in range(0, len(body), max(1, len(body) // 200)):
        assert read(body[:cut], body[cut:]) == whole, f"cut at {cut}"
    assert read(*(body[at : at + 1] for at in range(len(body)))) == whole, "byte by byte"
    return whole
