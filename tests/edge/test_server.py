"""The data port as a listener: health, draining, and connections that are idle or busy while it drains."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.edge import server
from proxy.edge.server import DataPort
from tests.support.scripted import request_of, scripted, whole
from tests.support.store import eventually
from tests.support.worker import AUTHORIZED, Edge, policy, serving

CHAT = "/openai/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4.1-mini", "messages": []}).encode()
ANSWER = b'{"id": "c1", "model": "gpt-4.1-mini", "choices": []}'
HEAD = (
    f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {AUTHORIZED['authorization']}\r\n"
    f"content-type: application/json\r\ncontent-length: {len(BODY)}\r\n\r\n"
).encode()


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        await request_of(reader)
        writer.write(whole(ANSWER))


async def get(edge: Edge, path: str) -> tuple[int, Any]:
    reader, writer = await asyncio.open_connection(*edge.address)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_health_needs_no_key_and_readiness_tells_what_is_missing(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        assert await get(edge, "/healthz") == (200, {"status": "ok"})
        await eventually(lambda: edge.worker.store.healthy)
        assert await get(edge, "/readyz") == (200, {"ready": True, "missing": []})
        monkeypatch.setattr(edge.worker.port, "_ready", lambda: ["the store is away"])
        assert await get(edge, "/readyz") == (503, {"ready": False, "missing": ["the store is away"]})


@pytest.mark.parametrize("sent", [b"", b"POST /openai/v1/ch", HEAD[:-2], HEAD[:-1]])
async def test_a_connection_that_never_completes_its_first_head_is_closed(
    store_url: str, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    assert server.KEEPALIVE_S <= 120
    monkeypatch.setattr(server, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(server, "SWEEP_S", 0.02)
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        writer.write(sent)
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_a_head_that_trickles_in_gains_no_time(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEPALIVE_S", 0.2)
    monkeypatch.setattr(server, "SWEEP_S", 0.02)
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        closed = asyncio.create_task(reader.read())
        writer.write(b"GET /")
        async with asyncio.timeout(10):
            while not closed.done():  # a byte at a time, for ever
                writer.write(b"a")
                await asyncio.sleep(0.02)
        assert closed.exception() is not None or closed.result() == b""
        writer.close()


async def test_two_ports_of_one_number_share_their_connections(store_url: str) -> None:
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        second = DataPort(edge.relay, list)
        await second.open(*edge.address)
        for _ in range(8):
            assert (await get(edge, "/healthz"))[0] == 200
        await second.drain(0)


async def test_while_draining_idle_connections_close_at_once(store_url: str) -> None:
    async with scripted(good) as url, serving(store_url, policy(url)) as edge:
        fresh, fresh_writer = await asyncio.open_connection(*edge.address)
        used, used_writer = await asyncio.open_connection(*edge.address)
        used_writer.write(HEAD + BODY)
        await used.readuntil(ANSWER)
        await eventually(lambda: all(connection.idle for connection in connections(edge)))
        async with asyncio.timeout(10):
            draining = asyncio.create_task(edge.worker.port.drain(30))
            assert await fresh.read() == b""
            assert await used.read() == b""
            await draining
        fresh_writer.close()
        used_writer.close()


async def test_while_draining_an_upload_may_end_and_is_answered_and_its_connection_closed(store_url: str) -> None:
    async with scripted(good) as url, serving(store_url, policy(url)) as edge:
        reader, writer = await asyncio.open_connection(*edge.address)
        writer.write(HEAD + BODY[:10])
        await eventually(lambda: edge.relay.running == 1)
        async with asyncio.timeout(10):
            draining = asyncio.create_task(edge.worker.port.drain(30))
            await asyncio.sleep(0.02)
            writer.write(BODY[10:])
            answer = await reader.read()
            await draining
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(ANSWER)


async def test_a_port_that_drains_takes_no_new_connections(store_url: str) -> None:
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        await edge.worker.port.drain(0)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection(*edge.address)


def connections(edge: Edge) -> list[Any]:
    return list(edge.worker.port.connections)


async def test_an_agent_that_takes_no_answer_is_given_up(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TAKE_S_MAX", 0.2)
    monkeypatch.setattr(server, "SWEEP_S", 0.02)
    async with serving(store_url, policy("http://127.0.0.1:9")) as edge:
        _, writer = await asyncio.open_connection(*edge.address, limit=1024)
        for _ in range(100):  # of more than the system's buffers hold: nobody reads what comes
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" * 5_000)
        await eventually(lambda: any(one.full_since_s for one in edge.worker.port.connections))
        await eventually(lambda: not edge.worker.port.connections)
        writer.close()
