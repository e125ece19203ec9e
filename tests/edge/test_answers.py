"""Headers of answers: the provider's as they came, ours beside them."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.record import Record
from proxy.edge.answers import cost_header, passed_on, wanted_encodings

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
