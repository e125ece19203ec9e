"""The bytes of the benchmark: what the load sends and what the provider answers, as OpenAI and its SDK write them.

Both sides build them here, so that the load knows every answer in advance and can compare all of its bytes.
"""

from __future__ import annotations

import json
from typing import Any, Literal

Kind = Literal["chat", "agent", "stream", "slow"]

MODEL = "gpt-5-mini"
MODEL_ANSWERED = "gpt-5-mini-2025-08-07"
CHAT_BYTES = 2 * 1024
AGENT_BYTES = 64 * 1024
CHUNKS = 50
KIND_HEADER = "x-bench"
"""Tells the provider which answer is wanted; both proxies pass it on as any header."""

VARIED = "aaaaaaaa"
"""A word of the last turn; where the load is varied, each call has another in its place, and so is no call's twin."""

COMPLETION_ID = "chatcmpl-D1aYcXq0b7nVd3mJk5sTfGhUw9eRz"
USAGE = {
    "prompt_tokens": 480,
    "completion_tokens": 48,
    "total_tokens": 528,
    "prompt_tokens_details": {"cached_tokens": 128, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
ANSWER_HEADERS = (
    "Date: Mon, 23 Nov 2026 22:00:00 GMT\r\n"
    "Connection: keep-alive\r\n"
    "access-control-expose-headers: X-Request-ID\r\n"
    "openai-organization: bench\r\n"
    "openai-processing-ms: 412\r\n"
    "openai-version: 2020-10-01\r\n"
    "x-ratelimit-limit-requests: 30000\r\n"
    "x-ratelimit-remaining-requests: 29999\r\n"
    "x-ratelimit-reset-requests: 2ms\r\n"
    "x-request-id: req_7c1f0e6ad2b94d0c8b35d8f1a6e47b90\r\n"
    "Server: cloudflare\r\n"
)
REQUEST_HEADERS = (
    "Accept: application/json\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "Content-Type: application/json\r\n"
    "User-Agent: OpenAI/Python 2.8.0\r\n"
    "X-Stainless-Arch: x64\r\n"
    "X-Stainless-Async: async:asyncio\r\n"
    "X-Stainless-Lang: python\r\n"
    "X-Stainless-OS: Linux\r\n"
    "X-Stainless-Package-Version: 2.8.0\r\n"
    "X-Stainless-Runtime: CPython\r\n"
    "X-Stainless-Runtime-Version: 3.12.1\r\n"
    "x-stainless-read-timeout: 600\r\n"
    "x-stainless-retry-count: 0\r\n"
)


def compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def header_field(head: bytes, name: bytes) -> bytes | None:
    """The value of a header; `head` is in lower case."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return None
    start += len(name) + 3
    end = head.find(b"\r\n", start)
    return head[start : end if end >= 0 else len(head)].strip()


# -- what the load sends ----------------------------------------------------------------------------------------------


def request(kind: Kind, *, host: str, key: str) -> bytes:
    """One request, head and body, ready to be written."""
    body = request_body(kind)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n{REQUEST_HEADERS}"
        f"Authorization: Bearer {key}\r\n{KIND_HEADER}: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def request_body(kind: Kind) -> bytes:
    """A chat of 2 KB, or the sixtieth turn of an agent: long instructions, tools and a conversation of 64 KB."""
    system = {"role": "system", "content": "You are a careful assistant that answers in one paragraph."}
    body: dict[str, Any] = {"model": MODEL, "messages": [system]}
    if kind == "agent":
        body["tools"] = [tool(number) for number in range(12)]
    if kind in ("stream", "slow"):
        body["stream"] = True
    bytes_wanted, turn = (AGENT_BYTES if kind == "agent" else CHAT_BYTES), 0
    while (missing := bytes_wanted - len(compact(body))) > 0:
        text = prose(turn, min(900, missing))
        body["messages"].append({"role": "user" if turn % 2 == 0 else "assistant", "content": text})
        turn += 1
    last = body["messages"][-1]
    last["content"] = VARIED + last["content"][len(VARIED) :]
    return compact(body)


def spelled(number: int) -> bytes:
    """A word of the length of VARIED, another for each number."""
    letters = bytearray(VARIED.encode())
    for place in range(len(letters)):
        number, digit = divmod(number, 26)
        letters[place] = ord("a") + digit
    return bytes(letters)


def tool(number: int) -> dict[str, Any]:
    path = {"type": "string", "description": "Path of the file, from the root of the repository"}
    parameters = {"type": "object", "properties": {"path": path}, "required": ["path"]}
    function = {"name": f"tool_{number}", "description": prose(number, 200), "parameters": parameters}
    return {"type": "function", "function": function}


def prose(turn: int, characters: int) -> str:
    sentence = f'Turn {turn}: the test "settles twice" fails at line {turn + 40}; we read the file and try again. '
    return (sentence * (characters // len(sentence) + 1))[:characters]


# -- what the provider answers ----------------------------------------------------------------------------------------


def plain_answer() -> bytes:
    """The body of an answer that is not streamed: about 1 KB."""
    message: dict[str, Any] = {"role": "assistant", "content": prose(0, 480), "refusal": None, "annotations": []}
    return compact(
        {
            "id": COMPLETION_ID,
            "object": "chat.completion",
            "created": 1_795_471_200,
            "model": MODEL_ANSWERED,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": USAGE,
            "service_tier": "default",
            "system_fingerprint": None,
        }
    )


def stream_events(*, usage_asked: bool) -> list[bytes]:
    """The events of a streamed answer: CHUNKS chunks, where asked one with the usage, and the end."""
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": f" word{number:02d}"} for number in range(CHUNKS - 2)] + [{}]
    events = []
    for number, delta in enumerate(deltas):
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if number == CHUNKS - 1 else None}
        events.append(chunk([choice], {"usage": None} if usage_asked else {}))
    if usage_asked:
        events.append(chunk([], {"usage": USAGE}))
    return [*events, b"data: [DONE]\n\n"]


def chunk(choices: list[dict[str, Any]], usage: dict[str, Any]) -> bytes:
    document = {
        "id": COMPLETION_ID,
        "object": "chat.completion.chunk",
        "created": 1_795_471_200,
        "model": MODEL_ANSWERED,
        "service_tier": "default",
        "system_fingerprint": None,
        "choices": choices,
        **usage,
        "obfuscation": "q8Zr1TtVn0",
    }
    return b"data: " + compact(document) + b"\n\n"


def good_bodies(kind: Kind) -> tuple[bytes, ...]:
    """The bodies that a caller may get. A stream has two: a proxy that asked for the usage itself has taken the chunk
    with it out again, and may have left `usage: null` in the others."""
    if kind in ("chat", "agent"):
        return (plain_answer(),)
    asked = stream_events(usage_asked=True)
    without_usage = asked[:CHUNKS] + asked[CHUNKS + 1 :]
    return b"".join(stream_events(usage_asked=False)), b"".join(without_usage)
