"""The client towards providers, against servers that say exactly which bytes they send, and when."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from proxy.edge import http1, upstream
from proxy.edge.upstream import Exchange, UpstreamFailure, Upstreams

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: req_1\r\n\r\nhi"


@asynccontextmanager
async def provider(script: Script) -> AsyncIterator[str]:
    """A server that plays `script` on each connection; gives its base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(play, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def request_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.fixture
async def upstreams() -> AsyncIterator[Upstreams]:
    made = Upstreams()
    yield made
    made.close()


async def send(upstreams: Upstreams, url: str, body: bytes = b"{}", method: str = "POST") -> Exchange:
    lines = "content-type: application/json\r\n"
    return await upstreams.send(method=method, base_url=url, target="/v1/x?a=1", lines=lines, body=body)


async def whole(exchange: Exchange) -> bytes:
    await exchange.head()
    data = b""
    while part := await exchange.read():
        data += part
    exchange.close()
    return data


async def test_a_call_arrives_with_its_headers_and_body_and_the_answer_comes_back(upstreams: Upstreams) -> None:
    seen = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await request_head(reader)
        seen.append(head + await reader.readexactly(11))
        writer.write(PLAIN)

    async with provider(script) as url:
        exchange = await send(upstreams, url + "/openai", b'{"model":1}')
        assert await whole(exchange) == b"hi"
    assert exchange.status == 200
    assert (b"x-request-id", b"req_1") in exchange.headers
    assert seen[0].startswith(b"POST /openai/v1/x?a=1 HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"content-type: application/json\r\ncontent-length: 11\r\n\r\n" in seen[0]
    assert seen[0].endswith(b'{"model":1}')


async def test_a_connection_is_used_again_and_dropped_when_the_provider_says_close(upstreams: Upstreams) -> None:
    connections = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for answer in (PLAIN, PLAIN.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")):
            await request_head(reader)
            await reader.readexactly(2)
            writer.write(answer)
        await asyncio.sleep(60)

    async with provider(script) as url:
        for _ in range(3):
            assert await whole(await send(upstreams, url)) == b"hi"
    assert len(connections) == 2


async def test_each_chunk_is_given_on_as_it_comes(upstreams: Upstreams) -> None:
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with provider(script) as url:
        exchange = await send(upstreams, url)
        await exchange.head()
        assert await exchange.read() == b"one"
        go_on.set()
        assert await exchange.read() == b"two"
        assert await exchange.read() == b""
        assert exchange.at_end


async def test_a_read_that_was_cancelled_can_be_taken_up_again_without_losing_a_byte(upstreams: Upstreams) -> None:
    go_on = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        await go_on.wait()
        writer.write(PLAIN)

    async with provider(script) as url:
        exchange = await send(upstreams, url)
        waiting = asyncio.create_task(exchange.head())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        go_on.set()
        assert await whole(exchange) == b"hi"


async def test_an_interim_answer_is_passed_over(upstreams: Upstreams) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + PLAIN)

    async with provider(script) as url:
        exchange = await send(upstreams, url)
        assert await whole(exchange) == b"hi"
        assert exchange.status == 200
        assert b"link" not in dict(exchange.headers)


async def test_a_body_without_length_ends_with_the_connection(upstreams: Upstreams) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async with provider(script) as url:
        assert await whole(await send(upstreams, url)) == b"all of it"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_body_ends_at_once(upstreams: Upstreams, status: int) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 %d X\r\n\r\n" % status)
        await asyncio.sleep(60)

    async with provider(script) as url:
        assert await whole(await send(upstreams, url)) == b""


async def test_a_head_request_has_an_answer_without_body(upstreams: Upstreams) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
        await asyncio.sleep(60)

    async with provider(script) as url:
        assert await whole(await send(upstreams, url, b"", "HEAD")) == b""


async def test_a_refused_connection_is_known_not_to_have_seen_the_call(upstreams: Upstreams) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UpstreamFailure, match="refuses connections") as failure:
        await send(upstreams, f"http://127.0.0.1:{port}")
    assert (failure.value.reason, failure.value.sent) == ("connect_refused", False)


async def test_a_name_that_does_not_exist_is_a_dns_failure(upstreams: Upstreams) -> None:
    with pytest.raises(UpstreamFailure) as failure:
        await send(upstreams, "http://no-such-host.invalid")
    assert (failure.value.reason, failure.value.sent) == ("dns", False)


async def test_a_server_that_speaks_no_tls_is_a_tls_failure(upstreams: Upstreams) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"this is no TLS\r\n\r\n")

    async with provider(script) as url:
        with pytest.raises(UpstreamFailure) as failure:
            await send(upstreams, url.replace("http:", "https:"))
    assert failure.value.reason in ("tls", "connect_failed")
    assert failure.value.sent is False


@pytest.mark.parametrize(
    ("answer", "where"),
    [
        (b"", "before it answered"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nonly", "in mid-answer"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nonly\r\n", "in mid-answer"),
    ],
)
async def test_a_connection_that_breaks_is_a_reset_that_says_where(
    upstreams: Upstreams, answer: bytes, where: str
) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(answer)

    async with provider(script) as url:
        with pytest.raises(UpstreamFailure, match=where) as failure:
            await whole(await send(upstreams, url))
    assert (failure.value.reason, failure.value.sent) == ("reset", True)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * http1.HEADERS_BYTES_MAX + b"\r\n\r\n",
    ],
)
async def test_what_is_not_http_or_without_bounds_is_a_bad_answer(upstreams: Upstreams, answer: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(answer)
        await asyncio.sleep(60)

    async with provider(script) as url:
        with pytest.raises(UpstreamFailure) as failure:
            await whole(await send(upstreams, url))
    assert failure.value.reason == "bad_answer"


async def test_a_provider_that_does_not_answer_in_time_is_given_up(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "FIRST_BYTE_S_MAX", 0.05)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with provider(script) as url:
        with pytest.raises(UpstreamFailure) as failure:
            await whole(await send(upstreams, url))
    assert failure.value.reason == "first_byte_timeout"
    assert failure.value.is_timeout


async def test_a_provider_that_falls_silent_in_mid_answer_is_given_up(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "SILENCE_S_MAX", 0.05)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n")
        await asyncio.sleep(60)

    async with provider(script) as url:
        exchange = await send(upstreams, url)
        await exchange.head()
        assert await exchange.read() == b"one"
        with pytest.raises(UpstreamFailure) as failure:
            await exchange.read()
    assert failure.value.reason == "idle_timeout"


async def test_an_answer_that_nobody_reads_stops_at_a_bound(upstreams: Upstreams) -> None:
    sent_bytes = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent_bytes
        await request_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent_bytes += 65536

    async with provider(script) as url:
        exchange = await send(upstreams, url)
        await exchange.head()
        before = -1
        while sent_bytes != before:
            before = sent_bytes
            await asyncio.sleep(0.1)
        assert exchange._connection._buffered_bytes < 4 * http1.BUFFER_BYTES_MAX
        await exchange.read()
        await asyncio.sleep(0.05)
        assert sent_bytes > before
        exchange.close()


async def test_an_idle_connection_that_the_provider_closed_is_not_used(upstreams: Upstreams) -> None:
    connections = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await request_head(reader)
        await reader.readexactly(2)
        writer.write(PLAIN)

    async with provider(script) as url:
        assert await whole(await send(upstreams, url)) == b"hi"
        await asyncio.sleep(0.02)
        assert await whole(await send(upstreams, url)) == b"hi"
    assert len(connections) == 2


async def test_a_second_answer_that_nobody_asked_for_spoils_the_connection(upstreams: Upstreams) -> None:
    connections = []
    sent = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await request_head(reader)
        await reader.readexactly(2)
        writer.write(PLAIN)
        await writer.drain()
        await asyncio.sleep(0.01)
        writer.write(PLAIN.replace(b"hi", b"no"))
        await writer.drain()
        sent.set()
        await asyncio.sleep(60)

    async with provider(script) as url:
        assert await whole(await send(upstreams, url)) == b"hi"
        await sent.wait()
        await asyncio.sleep(0.05)
        assert await whole(await send(upstreams, url)) == b"hi"
    assert len(connections) == 2


def test_the_keep_alive_time_of_a_provider_is_respected() -> None:
    assert http1.keep_alive_timeout("timeout=5, max=100") == 5.0
    assert http1.keep_alive_timeout("max=100") is None
    assert http1.keep_alive_timeout("timeout=x") is None


def test_certificates_are_checked() -> None:
    context = Upstreams()._tls_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
