"""Headers of answers: the provider's as they came, ours beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from proxy.core.record import Record
from proxy.edge.answers import StreamedAnswer, WholeAnswer, cost_header, passed_on, wanted_encodings

READABLE = frozenset({"gzip", "deflate", "br", "zstd"})


def record(**fields: Any) -> Record:
    return Record(call_id="0" * 32, at_ms=0, user="ada", key_id="k1", **fields)


def test_headers_pass_in_their_order_and_spelling_also_when_they_repeat() -> None:
    headers = [("X-Request-Id", "req_1"), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
    passed = list(passed_on(headers, record(), []).items())
    assert passed[:3] == headers
    assert passed[3] == ("x-callmeter-call", "0" * 32)


@pytest.mark.parametrize(
    "name", ["Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "Alt-Svc", "Proxy-Connection"]
)
def test_headers_of_one_connection_do_not_pass(name: str) -> None:
    assert name not in passed_on([(name, "x")], record(), [])


def test_headers_that_the_connection_header_names_do_not_pass_wherever_they_stand() -> None:
    headers = [("x-before", "1"), ("connection", "close, X-Before , x-after"), ("x-after", "1"), ("x-other", "1")]
    passed = passed_on(headers, record(), [])
    assert [name for name in passed if name.startswith("x-") and "callmeter" not in name] == ["x-other"]


def test_a_provider_cannot_speak_in_our_name() -> None:
    passed = passed_on([("X-Callmeter-Call", "forged"), ("x-callmeter-cost-usd", "0")], record(), [])
    assert passed.getall("x-callmeter-call") == ["0" * 32]
    assert "x-callmeter-cost-usd" not in passed


async def head_of(make: Callable[[], web.StreamResponse], version: str = "1.1") -> tuple[list[bytes], bytes]:
    """The lines of the head, and the rest, of an answer as a server writes it."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = make()
        await response.prepare(request)
        if isinstance(response, StreamedAnswer):
            await response.write(b"hi")
        return response

    server = await asyncio.get_running_loop().create_server(web.Server(handle), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(f"GET / HTTP/{version}\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    server.close()
    return head.split(b"\r\n"), body


def whole_answer(headers: list[tuple[str, str]]) -> web.StreamResponse:
    return WholeAnswer(status=200, headers=passed_on(headers, record(), []), body=b"hi")


def streamed_answer(headers: list[tuple[str, str]]) -> web.StreamResponse:
    return StreamedAnswer(status=200, headers=passed_on(headers, record(), []))


KINDS = [whole_answer, streamed_answer]
VALUES = [b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe \xed\xa0\x80", "\u65e5\u672c \U0001f600".encode()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", VALUES)
async def test_the_bytes_of_a_header_pass_whatever_they_are(kind: Any, value: bytes) -> None:
    text = value.decode("utf-8", "surrogateescape")  # as the client towards providers reads them
    lines, body = await head_of(lambda: kind([("X-Name", text), ("x-after", "1")]))
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
    lines, _ = await head_of(lambda: kind([("Server", "cloudflare"), ("content-type", "text/x"), ("date", "then")]))
    assert {b"Server: cloudflare", b"content-type: text/x", b"date: then"} <= set(lines)
    assert len([line for line in lines if line.lower().startswith((b"server", b"content-type", b"date"))]) == 3


async def test_an_answer_with_odd_headers_is_well_framed_for_old_clients_too() -> None:
    lines, body = await head_of(lambda: streamed_answer([("x-name", "\udcff")]), version="1.0")
    assert lines[0] == b"HTTP/1.0 200 OK"
    assert b"x-name: \xff" in lines
    assert body == b"hi"


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b=1", "\udcff\r\nset-cookie: b=1", "\udcff\0"])
async def test_no_header_can_begin_another(value: str) -> None:
    headers = passed_on([("x-name", value)], record(), [])
    with pytest.raises(ValueError, match="control character"):
        await _prepared(WholeAnswer(headers=headers, body=b""))


async def _prepared(response: web.StreamResponse) -> None:
    failed: list[Exception] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await response.prepare(request)
        except ValueError as error:
            failed.append(error)
        return web.Response()

    server = await asyncio.get_running_loop().create_server(web.Server(handle), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    server.close()
    assert b"set-cookie" not in answer
    raise failed[0]


def test_warnings_and_degraded_decisions_are_told() -> None:
    passed = passed_on([], record(warnings=["a; one", "b; two"], degraded=True), [])
    assert passed.getall("x-callmeter-warning") == ["a; one", "b; two"]
    assert passed["x-callmeter-degraded"] == "store"


def test_what_is_left_of_the_limits_is_told() -> None:
    limits = [("RateLimit-Policy", '"person-day";q=25'), ("RateLimit", '"person-day";r=3')]
    passed = passed_on([("ratelimit", '"of the provider";r=9')], record(), limits)
    assert passed.getall("ratelimit") == ['"person-day";r=3'], "ours, since it is the one that will refuse"


@pytest.mark.parametrize(("cost_nusd", "told"), [(None, None), (0, "0"), (1, "0.000000001"), (1_500_000_000, "1.5")])
def test_a_cost_that_is_not_known_is_told_from_one_that_is_nothing(cost_nusd: int | None, told: str | None) -> None:
    header = cost_header(record(cost_nusd=cost_nusd))
    assert header == told or (told == "0" and header is not None and float(header) == 0)


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
