"""The simulated provider, as those meet it who try Callmeter with it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import pytest

from demo import simulator

GEMINI = "/v1beta/models/gemini-2.5-flash"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    runner, port = await simulator.serve()
    yield port
    await runner.cleanup()


async def ask(
    port: int, path: str, wish: str, body: dict[str, object]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-sim: {wish}\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    return reader, writer


async def answer_to(port: int, path: str, wish: str, body: dict[str, object]) -> tuple[int, str]:
    reader, writer = await ask(port, path, wish, body)
    head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), answer.decode()


async def test_who_leaves_a_stream_leaves_no_stack_in_the_terminal(port: int, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await ask(port, "/v1/chat/completions", "chunks=20, pause-ms=5", {"stream": True})
    await reader.readuntil(b"word0")
    writer.transport.abort()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    await asyncio.wait(others, timeout=0.5)
    assert [entry for entry in caplog.records if entry.levelno >= logging.ERROR] == []


async def test_a_wish_that_is_no_number_is_told(port: int) -> None:
    status, told = await answer_to(port, "/v1/chat/completions", "chunks=many", {"stream": True})
    assert (status, told) == (400, "x-sim: `chunks` is `many`; write a whole number")


@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent?alt=sse"])
async def test_gemini_calls_a_tool_where_it_is_asked_to(port: int, verb: str) -> None:
    status, answer = await answer_to(port, f"{GEMINI}:{verb}", "tool=grep", {"contents": []})
    assert status == 200
    assert '{"functionCall": {"name": "grep", "args": {"city": "Berlin"}}}' in answer
