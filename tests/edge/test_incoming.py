"""An agent's connection: requests as they come off the wire, one answered at a time, and what is no request."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.edge import body, incoming
from proxy.edge.answers import AgentAnswer, StreamedAnswer, WholeAnswer
from proxy.edge.body import BodyBroken, BodyTooLarge, read_body
from proxy.edge.incoming import AgentConnection, Handler
from proxy.edge.request import Request
from tests.support.store import eventually

GET = b"GET /one HTTP/1.1\r\nhost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


class Port:
    """A listener whose connections can be looked at."""

    def __init__(self) -> None:
        self.connections: set[AgentConnection] = set()
        self.address = ("", 0)

    async def exchange(self, *pieces: bytes) -> bytes:
        """Everything that comes back, up to the end of the connection."""
        reader, writer = await asyncio.open_connection(*self.address)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0.005)
        answer = b""
        async with asyncio.timeout(10):
            while data := await reader.read(2**20):
                answer += data
        writer.close()
        return answer


@asynccontextmanager
async def listening(handle: Handler) -> AsyncIterator[Port]:
    loop, port = asyncio.get_running_loop(), Port()
    server = await loop.create_server(lambda: AgentConnection(handle, loop, port.connections), "127.0.0.1", 0)
    port.address = server.sockets[0].getsockname()
    try:
        yield port
    finally:
        server.close()
        for connection in list(port.connections):
            connection.end()


async def echo(request: Request) -> AgentAnswer:
    """What it was given, or what is wrong with it."""
    if request.wrong:
        return WholeAnswer(status=400, fields=[], body=request.wrong.encode())
    told = f"{request.method} {request.raw_path} ".encode()
    try:
        return WholeAnswer(fields=[], body=told + await read_body(request, 2**20))
    except BodyTooLarge:
        return WholeAnswer(status=413, fields=[], body=told)
    except BodyBroken as broken:
        return WholeAnswer(status=400, fields=[], body=str(broken).encode())


def bodies_of(answer: bytes) -> list[bytes]:
    """The body of each answer, of answers that tell their lengths."""
    found = []
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        found.append(rest[:length])
        answer = rest[length:]
    return found


def post(data: bytes, *headers: bytes) -> bytes:
    lines = [b"POST /up HTTP/1.1", b"host: x", b"content-length: %d" % len(data), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


async def test_requests_that_are_sent_ahead_are_answered_one_after_the_other() -> None:
    at_once = running = 0

    async def handle(request: Request) -> AgentAnswer:
        nonlocal at_once, running
        running += 1
        at_once = max(at_once, running)
        await asyncio.sleep(0.01)
        running -= 1
        return await echo(request)

    async with listening(handle) as port:
        answer = await port.exchange(GET + post(b"two") + GET + LAST)
    assert bodies_of(answer) == [b"GET /one ", b"POST /up two", b"GET /one ", b"GET /last "]
    assert at_once == 1


@pytest.mark.parametrize("cut", [1, 7, 40])
async def test_a_request_may_come_in_pieces_cut_anywhere(cut: int) -> None:
    data = post(b"some text") + LAST
    async with listening(echo) as port:
        answer = await port.exchange(*[data[at : at + cut] for at in range(0, len(data), cut)])
    assert bodies_of(answer) == [b"POST /up some text", b"GET /last "]


async def test_a_body_in_chunks_is_one_body_and_what_trails_it_is_nobody_s() -> None:
    chunked = b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with listening(echo) as port:
        answer = await port.exchange(chunked + b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n" + LAST)
    assert bodies_of(answer) == [b"POST /up abcde", b"GET /last "]


async def test_chunks_that_are_none_are_told_and_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "LINGER_S", 0.05)
    chunked = b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    async with listening(echo) as port:
        answer = await port.exchange(chunked + b"3\r\nabc\r\n", b"not a length\r\n")
    assert bodies_of(answer) == [
        b"the body cannot be read after 3 bytes: its chunks are malformed; send it again",
    ]


@pytest.mark.parametrize("upgrade", [b"upgrade: h2c", b"upgrade: websocket"])
async def test_an_upgrade_to_what_nobody_speaks_goes_on_as_http(upgrade: bytes) -> None:
    asked = [b"connection: upgrade, http2-settings", upgrade, b"http2-settings: AAMAAABk"]
    plain = b"GET /one HTTP/1.1\r\nhost: x\r\n" + b"\r\n".join(asked) + b"\r\n\r\n"
    chunked = b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n" + b"\r\n".join(asked) + b"\r\n\r\n"
    sent = plain + post(b"two", *asked) + chunked + b"3\r\nabc\r\n0\r\n\r\n" + post(b"four") + LAST
    told = [b"GET /one ", b"POST /up two", b"POST /up abc", b"POST /up four", b"GET /last "]
    async with listening(echo) as port:
        assert bodies_of(await port.exchange(sent)) == told
        assert bodies_of(await port.exchange(*[sent[at : at + 9] for at in range(0, len(sent), 9)])) == told


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"v" * 17_000 + b"\r\n\r\n",
        b"GET /" + b"v" * 17_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x-many: 1\r\n" * 201 + b"\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_answered_as_such_behind_the_answers_that_are_due(sent: bytes) -> None:
    async with listening(echo) as port:
        one, wrong = bodies_of(await port.exchange(GET + sent + LAST))
    assert one == b"GET /one "
    assert wrong
    assert b"/last" not in wrong


async def test_a_head_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "HEAD_BYTES_MAX", 64 * 1024)
    async with listening(echo) as port:
        [wrong] = bodies_of(await port.exchange(b"GET / HTTP/1.1\r\n", *[b"x: " + b"v" * 16_000] * 8))
    assert wrong == b"LineTooLong"


@pytest.mark.parametrize("around", [b"0\r\nx-trailer: ", b"3;extension="])
async def test_what_stands_around_the_chunks_of_a_body_is_given_up_where_it_has_no_end(
    monkeypatch: pytest.MonkeyPatch, around: bytes
) -> None:
    monkeypatch.setattr(incoming, "HEAD_BYTES_MAX", 64 * 1024)
    monkeypatch.setattr(incoming, "LINGER_S", 0.05)
    begun = b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"
    async with listening(echo) as port:
        [told] = bodies_of(await port.exchange(begun + around, *[b"v" * 16_000] * 8))
    assert told == b"the body cannot be read after 2 bytes: its chunks are malformed; send it again"


async def test_no_more_headers_are_kept_than_a_request_may_have() -> None:
    async with listening(echo) as port:
        _, writer = await asyncio.open_connection(*port.address)
        writer.write(b"GET / HTTP/1.1\r\n" + b"x:\r\n" * 50_000)
        await eventually(lambda: bool(port.connections))
        [connection] = port.connections
        await eventually(lambda: connection._unreadable)
        assert len(connection._headers) <= incoming.HEADERS_MAX + 1
        writer.close()


async def test_a_body_in_tiny_chunks_takes_no_more_memory_than_another() -> None:
    parts: list[int] = []

    async def later(request: Request) -> AgentAnswer:
        await eventually(lambda: request.body.complete)
        parts.append(len(request.body._parts))
        return await echo(request)

    large = b"x" * 5_000
    chunked = b"POST /up HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"2\r\nab\r\n" * 1_000 + b"1388\r\n" + large + b"\r\n" + b"1\r\nc\r\n" * 1_000 + b"0\r\n\r\n"
    async with listening(later) as port:
        answer = await port.exchange(chunked + chunks)
    assert bodies_of(answer) == [b"POST /up " + b"ab" * 1_000 + large + b"c" * 1_000]
    assert parts[0] <= 8, "pieces of a read, not of a chunk"


async def test_a_connection_that_has_ended_leaves_nothing_for_the_collector() -> None:
    async with listening(echo) as port:
        gc.collect()
        gc.disable()
        try:
            await port.exchange(LAST)
            _, writer = await asyncio.open_connection(*port.address)
            writer.write(post(b"x" * 10)[:-4])
            await eventually(lambda: bool(port.connections))
            writer.close()
            await eventually(lambda: not port.connections)
            assert not [one for one in gc.get_objects() if isinstance(one, AgentConnection)]
        finally:
            gc.enable()


async def test_an_upload_is_taken_no_faster_than_somebody_reads_it() -> None:
    go = asyncio.Event()

    async def slow(request: Request) -> AgentAnswer:
        await go.wait()
        return await echo(request)

    data = b"x" * (900 * 1024)
    async with listening(slow) as port:
        answering = asyncio.create_task(port.exchange(post(data, b"connection: close")))
        await eventually(lambda: any(connection._paused for connection in port.connections))
        [connection] = port.connections
        assert connection._receiving is not None
        assert connection._receiving.body.size < len(data), "the rest waits at the agent"
        go.set()
        assert bodies_of(await answering) == [b"POST /up " + data]


async def test_a_body_longer_than_allowed_is_refused_and_its_rest_is_read_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "LINGER_S", 5.0)
    begun = b"POST /up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with listening(echo) as port:
        answer = await port.exchange(begun, *[chunk] * 40, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")
    assert bodies_of(answer) == [b"POST /up "]


async def test_a_request_is_cancelled_when_its_agent_goes() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(request: Request) -> AgentAnswer:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()
        return await echo(request)

    async with listening(endless) as port:
        _, writer = await asyncio.open_connection(*port.address)
        writer.write(GET)
        await begun.wait()
        writer.close()
        async with asyncio.timeout(10):
            await ended.wait()
            await eventually(lambda: not port.connections)


async def test_an_agent_that_takes_nothing_holds_up_its_answer_and_nothing_else() -> None:
    written = 0

    async def large(request: Request) -> AgentAnswer:
        nonlocal written
        response = StreamedAnswer(fields=[])
        await response.prepare(request)
        for _ in range(400):
            await response.write(b"x" * 65536)
            written += 65536
        return response

    async with listening(large) as port:
        reader, writer = await asyncio.open_connection(*port.address, limit=4096)
        writer.write(LAST)
        await eventually(lambda: any(connection.full_since_s for connection in port.connections))
        stopped_at = written
        await asyncio.sleep(0.05)
        assert written == stopped_at < 400 * 65536
        async with asyncio.timeout(20):
            while await reader.read(2**20):
                pass
        writer.close()
    assert written == 400 * 65536


async def test_an_old_client_keeps_its_connection_only_where_it_asks_for_that() -> None:
    async with listening(echo) as port:
        closed = await port.exchange(b"GET /one HTTP/1.0\r\n\r\n" + LAST)
        kept = await port.exchange(b"GET /one HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", LAST)
    assert bodies_of(closed) == [b"GET /one "]
    assert b"connection: keep-alive" in kept
    assert bodies_of(kept) == [b"GET /one ", b"GET /last "]


async def test_an_upload_that_stands_still_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SILENCE_S_MAX", 0.05)
    monkeypatch.setattr(incoming, "LINGER_S", 0.05)
    async with listening(echo) as port:
        answer = await port.exchange(post(b"x" * 10)[:-4])
    assert bodies_of(answer) == [b"the body stopped after 6 bytes and nothing came for 60 s; send it again"]


async def test_headers_are_found_in_whatever_case_and_keep_bytes_that_are_no_text() -> None:
    seen: list[Request] = []

    async def look(request: Request) -> AgentAnswer:
        seen.append(request)
        return await echo(request)

    async with listening(look) as port:
        await port.exchange(b"GET /one HTTP/1.1\r\nHost: x\r\nX-Name: \xff\xfe\r\nconnection: close\r\n\r\n")
    [request] = seen
    assert request.headers["x-NAME"].encode("utf-8", "surrogateescape") == b"\xff\xfe"
    assert (b"X-Name", b"\xff\xfe") in request.raw_headers


async def test_a_connection_that_was_idle_leaves_nothing_behind_when_it_closes() -> None:
    async with listening(echo) as port:
        reader, writer = await asyncio.open_connection(*port.address)
        writer.write(GET)
        await reader.readuntil(b"/one ")
        [connection] = port.connections
        kept = weakref.ref(connection)
        del connection
        await eventually(lambda: all(one.idle for one in port.connections))
        gc.disable()
        try:
            writer.close()
            await eventually(lambda: kept() is None)
        finally:
            gc.enable()


async def test_an_agent_that_sends_thousands_ahead_leaves_the_others_their_turn() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen: list[int] = []

    async def handle(request: Request) -> AgentAnswer:
        seen.append(turns)
        return WholeAnswer(fields=[], body=b"")

    async with listening(handle) as port:
        beside = asyncio.create_task(others())
        await port.exchange(GET * 2_000 + LAST)
        beside.cancel()
    assert len(seen) == 2_001
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))
