"""Heads that come again: what is known without the parser is what the parser would have made of it."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.policy import Policy, Upstream
from proxy.edge import incoming
from proxy.edge.answers import WholeAnswer
from proxy.edge.envelope import Envelopes
from proxy.edge.heads import Head, head_of
from proxy.edge.incoming import HEADS_IN_VAIN_MAX, AgentConnection
from proxy.edge.request import Request

Seen = tuple[str, str, tuple[tuple[bytes, bytes], ...], bytes, str]


class Wire:
    """As much of a transport as a connection needs, and nobody at its end."""

    def __init__(self) -> None:
        self.closing = False

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.closing = True

    abort = close

    def is_closing(self) -> bool:
        return self.closing


async def requests_in(*pieces: bytes) -> list[Seen]:
    """What a connection hands on of these pieces of input, one request after the other."""
    seen: list[Seen] = []

    async def handle(request: Request) -> WholeAnswer:
        await request.body.wait()
        seen.append((request.method, request.raw_path, request.raw_headers, request.body.take(), request.wrong))
        return WholeAnswer(fields=[], body=b"")

    connection = AgentConnection(handle, asyncio.get_running_loop(), set())
    connection.connection_made(cast(Any, Wire()))
    for piece in pieces:
        connection.data_received(piece)
        for _ in range(4):
            await asyncio.sleep(0)
    for _ in range(40):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    return seen


def post(body: bytes, *lines: bytes, length: bytes = b"content-length: %d") -> bytes:
    return b"\r\n".join([b"POST /v1/up HTTP/1.1", b"host: x", *lines, length % len(body), b"a: b", b"", body])


class Unused:
    """In place of a parser that is not to be asked."""

    def feed_data(self, data: bytes) -> None:
        raise AssertionError(f"the parser was asked about {data!r}")


async def test_a_request_that_begins_like_the_last_one_is_known_without_the_parser() -> None:
    seen: list[bytes] = []

    async def handle(request: Request) -> WholeAnswer:
        seen.append(request.body.take())
        return WholeAnswer(fields=[], body=b"")

    connection = AgentConnection(handle, asyncio.get_running_loop(), set())
    connection.connection_made(cast(Any, Wire()))
    connection.data_received(post(b"one"))
    await asyncio.sleep(0)
    connection._parser = cast(Any, Unused())
    for body in (b"two and more", b"", b"x" * 100_000):
        connection.data_received(post(body))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert seen == [b"one", b"two and more", b"", b"x" * 100_000]
    with pytest.raises(AssertionError, match="the parser was asked"):
        connection.data_received(post(b"three").replace(b"/up", b"/down"))


async def test_an_agent_whose_head_is_another_with_every_call_is_parsed_in_the_end() -> None:
    numbers = iter(range(100))
    connection = AgentConnection(answered, asyncio.get_running_loop(), set())
    connection.connection_made(cast(Any, Wire()))

    async def sent(data: bytes) -> Head | None:
        connection.data_received(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return connection._head

    kept = [await sent(post(b"one", b"traceparent: %d" % next(numbers))) for _ in range(HEADS_IN_VAIN_MAX + 1)]
    assert all(kept)
    last = await sent(post(b"one", b"traceparent: %d" % next(numbers)))
    assert last is kept[-1]  # it stays as it is, and nothing is put in its place
    assert await sent(post(b"two", b"traceparent: %d" % next(numbers))) is last


def test_a_head_shows_no_credentials() -> None:
    kept = head(post(b"one", b"authorization: Bearer cm_secret"))
    assert "secret" not in repr(kept)


class Watched(Policy, weakref=True):
    """A policy of which one can tell whether it is still there."""


async def test_a_call_that_is_known_by_its_head_is_decided_by_the_policy_of_now() -> None:
    """And the one of before is not kept by connections that have nothing to do."""
    envelopes = Envelopes()
    kept = head(post(b"one", b"authorization: Bearer cm_x"))
    assert kept is not None
    request = Request(cast(Any, None), "POST", "/sim/v1/up", (*kept.headers[0], *kept.headers[1]))
    request.head = kept
    upstream = Upstream(name="sim", dialect="openai", provider="openai", url="http://127.0.0.1:9")
    before = Watched(version="1", upstreams={"sim": upstream})
    now = Policy(version="2", upstreams={"sim": msgspec.structs.replace(upstream, url="http://127.0.0.1:10")})
    first = envelopes.open(before, request)
    assert envelopes.open(before, request) is first
    then = envelopes.open(now, request)
    assert then.upstream is now.upstreams["sim"]
    assert envelopes.open(now, request) is then
    gone = weakref.ref(before)
    del before, first
    assert gone() is None


async def answered(request: Request) -> WholeAnswer:
    return WholeAnswer(fields=[], body=b"")


def head(data: bytes, **fields: Any) -> Head | None:
    """What is kept of a request whose parser said this of it."""
    lines = [line.split(b":", 1) for line in data.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    request = Request(cast(Any, None), "POST", "/v1/up", tuple([(name, value.strip()) for name, value in lines]))
    request.body.add(data.partition(b"\r\n\r\n")[2])
    request.body.complete = True
    for name, value in fields.items():
        setattr(request, name, value)
    return head_of(data, request)


@pytest.mark.parametrize("length", [b"content-length: %d", b"Content-Length: %d", b"CONTENT-length: %d"])
def test_a_head_is_kept_however_its_length_is_spelled(length: bytes) -> None:
    kept = head(post(b"one", length=length))
    assert kept is not None
    assert kept.body(post(b"three", length=length)) == (b"5", b"three")


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v1/up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        post(b"one", b"Transfer-Encoding: chunked"),
        post(b"one", b"upgrade: h2c"),
        post(b"one", b"content-length: 3"),
        post(b"one", length=b"content-length:   %d"),
        post(b"one", length=b"content-length:%d"),
        post(b"one", length=b"content-length: 000000000%d"),
        post(b"one", b"long: " + b"x" * 20_000),
        post(b"one") + post(b"two"),
        post(b"three")[:-1],
    ],
)
def test_a_head_is_not_kept_where_its_end_may_be_read_otherwise(data: bytes) -> None:
    assert head(data) is None


@pytest.mark.parametrize(("field", "value"), [("version", (1, 0)), ("keep_alive", False)])
def test_a_head_is_not_kept_of_a_connection_that_closes_behind_it(field: str, value: Any) -> None:
    assert head(post(b"one"), **{field: value}) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        post(b"three")[:40],
        post(b"three")[:-1],
        post(b"three") + b"\r\n",
        post(b"three") + post(b"three"),
        post(b"three").replace(b": 5", b": +5"),
        post(b"three").replace(b": 5", b": "),
        post(b"three").replace(b": 5", b": 5 "),
        post(b"three").replace(b": 5", b": 6"),
        post(b"three").replace(b": 5", b": 0000000000000005"),
        post(b"three").replace(b": 5", b": 5\n"),
        post(b"three").replace(b"a: b", b"a: c"),
        post(b"three").replace(b": 5\r\n", b": 5\r\n 0\r\n"),
        b"POST /v1/up HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 1_000_000,
    ],
)
def test_anything_but_a_whole_request_is_the_parsers(data: bytes) -> None:
    kept = head(post(b"one"))
    assert kept is not None
    assert kept.body(data) is None


BODIES = st.sampled_from([b"", b"one", b"three", b"content-length: 3\r\n\r\nabc", b"\r\n\r\n"])
LINES = st.lists(
    st.sampled_from([b"x: y", b"expect: 100-continue", b"Content-Length: 3", b"upgrade: h2c", b"x: 3\r\n y", b"bad"]),
    max_size=2,
)
LENGTHS = st.sampled_from(
    [
        b"content-length: %d",
        b"Content-Length:%d",
        b"content-length: 00%d",
        b"content-length: %d ",
        b"content-length: 2%d",
    ]
)
REQUESTS = st.one_of(
    st.builds(post, BODIES),
    st.builds(lambda body, lines, length: post(body, *lines, length=length), BODIES, LINES, LENGTHS),
    st.sampled_from([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\r\n", b"POST / HTTP/1.0\r\ncontent-length: 0\r\n\r\n"]),
)


@given(st.lists(REQUESTS, max_size=6), st.lists(st.integers(0, 500), max_size=4))
def test_known_or_parsed_the_same_requests_are_seen(requests: list[bytes], cuts: list[int]) -> None:
    """Each request in a piece of its own, where no cut falls into it or its end."""
    pieces: list[bytes] = []
    for place, data in enumerate(requests):
        if place in cuts:
            pieces[-1:] = [b"".join(pieces[-1:]) + data]
        else:
            pieces.append(data)
    for cut in cuts:
        place = cut % len(pieces) if pieces else 0
        if pieces and cut > len(pieces):
            piece = pieces[place]
            pieces[place : place + 1] = [piece[: cut % (len(piece) + 1)], piece[cut % (len(piece) + 1) :]]
    known = asyncio.run(requests_in(*pieces))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incoming, "head_of", lambda *_: None)
        assert known == asyncio.run(requests_in(*pieces))
