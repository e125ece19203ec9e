"""Headers of answers: the provider's as they came, ours beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.core.record import Record
from proxy.edge.answers import (
    AgentAnswer,
    Fields,
    StreamedAnswer,
    WholeAnswer,
    cost_header,
    passed_on,
    wanted_encodings,
)
from proxy.edge.incoming import AgentConnection, Handler
from proxy.edge.request import Request

READABLE = frozenset({"gzip", "deflate", "br", "zstd"})


def record(**fields: Any) -> Record:
    return Record(call_id="0" * 32, at_ms=0, user="ada", key_id="k1", **fields)


def names_of(fields: Fields) -> list[bytes]:
    return [name.lower() for name, _ in fields]


def test_headers_pass_in_their_order_and_spelling_also_when_they_repeat() -> None:
    headers = [(b"X-Request-Id", b"req_1"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"Date", b"then")]
    assert passed_on(headers, record(), []) == [*headers, (b"x-callmeter-call", b"0" * 32)]


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Transfer-Encoding",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"Alt-Svc",
        b"Proxy-Connection",
        b"Content-Length",
    ],
)
def test_headers_of_one_connection_do_not_pass(name: bytes) -> None:
    assert name.lower() not in names_of(passed_on([(name, b"x")], record(), []))


def test_headers_that_the_connection_header_names_do_not_pass_wherever_they_stand() -> None:
    headers = [
        (b"x-before", b"1"),
        (b"connection", b"close, X-Before , x-after"),
        (b"x-after", b"1"),
        (b"x-other", b"1"),
    ]
    passed = names_of(passed_on(headers, record(), []))
    assert [name for name in passed if name.startswith(b"x-") and b"callmeter" not in name] == [b"x-other"]


def test_a_provider_cannot_speak_in_our_name() -> None:
    passed = passed_on([(b"X-Callmeter-Call", b"forged"), (b"x-callmeter-cost-usd", b"0")], record(), [])
    assert [pair for pair in passed if b"callmeter" in pair[0].lower()] == [(b"x-callmeter-call", b"0" * 32)]


async def serving(handle: Handler) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: AgentConnection(handle, loop, set()), "127.0.0.1", 0)


async def head_of(
    make: Callable[[], AgentAnswer], version: str = "1.1", method: str = "GET"
) -> tuple[list[bytes], bytes]:
    """The lines of the head, and the rest, of an answer as a server writes it."""

    async def handle(request: Request) -> AgentAnswer:
        response = make()
        await response.prepare(request)
        if isinstance(response, StreamedAnswer):
            await response.write(b"hi")
        return response

    server = await serving(handle)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(f"{method} / HTTP/{version}\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    server.close()
    return head.split(b"\r\n"), body


def whole_answer(headers: Fields) -> AgentAnswer:
    return WholeAnswer(fields=passed_on(headers, record(), []), body=b"hi")


def streamed_answer(headers: Fields) -> AgentAnswer:
    return StreamedAnswer(fields=passed_on(headers, record(), []))


KINDS = [whole_answer, streamed_answer]
VALUES = [b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe \xed\xa0\x80", "\u65e5\u672c \U0001f600".encode()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", VALUES)
async def test_the_bytes_of_a_header_pass_whatever_they_are(kind: Any, value: bytes) -> None:
    lines, body = await head_of(lambda: kind([(b"X-Name", value), (b"x-after", b"1")]))
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert b"X-Name: " + value in lines
    assert b"x-after: 1" in lines
    assert body in (b"hi", b"2\r\nhi\r\n0\r\n\r\n")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_server_and_a_type_are_told_only_where_the_provider_tells_them(kind: Any) -> None:
    lines, _ = await head_of(lambda: kind([]))
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert b"server" not in names
    assert b"content-type" not in names
    assert names.count(b"date") == 1, "a proxy must add it (RFC 9110, 6.6.1)"
    lines, _ = await head_of(
        lambda: kind([(b"Server", b"cloudflare"), (b"content-type", b"text/x"), (b"date", b"then")])
    )
    assert {b"Server: cloudflare", b"content-type: text/x", b"date: then"} <= set(lines)
    assert len([line for line in lines if line.lower().startswith((b"server", b"content-type", b"date"))]) == 3


async def test_an_old_client_learns_the_end_of_a_stream_from_the_end_of_the_connection() -> None:
    lines, body = await head_of(lambda: streamed_answer([(b"x-name", b"\xff")]), version="1.0")
    assert lines[0] == b"HTTP/1.0 200 OK"
    assert b"x-name: \xff" in lines
    assert not [line for line in lines if line.startswith((b"connection: keep", b"transfer-encoding"))]
    assert body == b"hi"


async def test_a_stream_of_known_length_comes_without_chunks_and_never_longer() -> None:
    lines, body = await head_of(lambda: StreamedAnswer(fields=[], length=1))
    assert b"content-length: 1" in lines
    assert body == b"h"


async def test_a_stream_that_is_shorter_than_announced_ends_its_connection() -> None:
    answers: list[StreamedAnswer] = []

    def make() -> StreamedAnswer:
        answers.append(StreamedAnswer(fields=[], length=9))
        return answers[0]

    _, body = await head_of(make)
    assert body == b"hi"
    assert answers[0].keep_alive is False


@pytest.mark.parametrize("kind", KINDS)
async def test_the_answer_to_a_head_has_no_body(kind: Any) -> None:
    _, body = await head_of(lambda: kind([]), method="HEAD")
    assert body == b""


async def test_the_answer_to_a_head_tells_the_length_of_what_is_left_out() -> None:
    lines, body = await head_of(lambda: WholeAnswer(fields=[], body=b"", length=1234), method="HEAD")
    assert b"content-length: 1234" in lines
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_has_no_body_is_given_none(status: int) -> None:
    lines, body = await head_of(lambda: WholeAnswer(status=status, fields=[], body=b"hi"))
    assert not [line for line in lines if line.startswith((b"content-length", b"transfer-encoding"))]
    assert body == b""


async def test_a_status_that_nobody_knows_passes() -> None:
    lines, _ = await head_of(lambda: WholeAnswer(status=529, fields=[], body=b"hi"))
    assert lines[0] == b"HTTP/1.1 529 "


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b=1", b"a\rb", b"\xff\0"])
async def test_no_header_can_begin_another(kind: Any, value: bytes) -> None:
    with pytest.raises(ValueError, match="control character"):
        await _prepared(kind([(b"x-name", value)]))


async def _prepared(response: AgentAnswer) -> None:
    failed: list[Exception] = []

    async def handle(request: Request) -> AgentAnswer:
        try:
            await response.prepare(request)
        except ValueError as error:
            failed.append(error)
        return WholeAnswer(fields=[], body=b"")

    server = await serving(handle)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    server.close()
    assert b"set-cookie" not in answer
    raise failed[0]


def test_warnings_and_degraded_decisions_are_told() -> None:
    passed = passed_on([], record(warnings=["a; one", "b; two"], degraded=True), [])
    assert [value for name, value in passed if name == b"x-callmeter-warning"] == [b"a; one", b"b; two"]
    assert (b"x-callmeter-degraded", b"store") in passed


def test_what_is_left_of_the_limits_is_told() -> None:
    limits = [("ratelimit-policy", '"person-day";q=25'), ("ratelimit", '"person-day";r=3')]
    theirs = [(b"RateLimit", b'"of the provider";r=9')]
    passed = passed_on(theirs, record(), limits)
    told = [value for name, value in passed if name.lower() == b"ratelimit"]
    assert told == [b'"person-day";r=3'], "ours, since it is the one that will refuse"
    assert passed_on(theirs, record(), [])[0] == theirs[0]


@pytest.mark.parametrize(("cost_nusd", "told"), [(None, None), (0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5")])
def test_a_cost_that_is_not_known_is_told_from_one_that_is_nothing(cost_nusd: int | None, told: str | None) -> None:
    header = cost_header(record(cost_nusd=cost_nusd))
    assert header == (None if told is None else told.encode())


@pytest.mark.parametrize(
    ("accepted", "wanted"),
    [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("gzip;q=1.0, exotic;q=0.5, *;q=0.1", "gzip;q=1.0"),
        ("GZIP", "GZIP"),
        ("identity", "identity"),
        ("exotic", "identity"),
        ("*", "identity"),
        ("", "identity"),
    ],
)
def test_the_provider_is_asked_only_for_what_the_agent_takes_and_the_meter_reads(accepted: str, wanted: str) -> None:
    assert wanted_encodings(accepted, READABLE) == wanted
