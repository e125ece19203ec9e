"""W3C trace context and baggage: strict, bounded, never raising."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.trace_context import (
    BAGGAGE_CHARS_MAX,
    BAGGAGE_PAIRS_MAX,
    TraceParent,
    parse_baggage,
    parse_traceparent,
    parse_tracestate,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_a_parent_is_read_also_when_it_is_not_sampled() -> None:
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == TraceParent(TRACE, SPAN, 1)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-00") == TraceParent(TRACE, SPAN, 0)


def test_a_later_version_may_say_more_and_unknown_flags_are_not_carried_on() -> None:
    assert parse_traceparent(f"cc-{TRACE}-{SPAN}-ff-what-comes") == TraceParent(TRACE, SPAN, 3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01more",
    ],
)
def test_a_malformed_parent_is_as_if_it_had_not_been_sent(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_state_is_carried_on_in_its_plain_form() -> None:
    assert parse_tracestate(" rojo=00f067 ,\tcongo=t61rcWkgMzE,, fw529a3039@dt=FfAD") == (
        "rojo=00f067,congo=t61rcWkgMzE,fw529a3039@dt=FfAD"
    )


@pytest.mark.parametrize(
    "text", ["a", "A=1", "a=1,a=2", "a=", "a=b=c", "a=\x7f", "a=1,é=2", "a=" + "1" * 300, ",".join(["x=1"] * 600)]
)
def test_a_state_with_any_fault_is_dropped_as_a_whole(text: str) -> None:
    assert parse_tracestate(text) == ""


def test_a_state_with_too_many_members_is_dropped() -> None:
    assert parse_tracestate(",".join(f"k{n}=1" for n in range(32)))
    assert parse_tracestate(",".join(f"k{n}=1" for n in range(33))) == ""


def test_baggage_is_decoded_and_freed_from_its_properties() -> None:
    text = "user.id=alice, task.id = PAY%2D7%20f%C3%BCr ; ttl=1;x , empty="
    assert parse_baggage(text) == {"user.id": "alice", "task.id": "PAY-7 für", "empty": ""}


def test_malformed_members_of_baggage_are_left_out_and_the_first_of_a_name_counts() -> None:
    assert parse_baggage("novalue,=x,bad name=1,task.id=%ff,ok=1,ok=2") == {"ok": "1"}


def test_baggage_is_bounded() -> None:
    assert len(parse_baggage(",".join(f"k{n}=1" for n in range(BAGGAGE_PAIRS_MAX + 20)))) == BAGGAGE_PAIRS_MAX
    assert parse_baggage("a=" + "x" * BAGGAGE_CHARS_MAX) == {}
    assert parse_baggage("a=" + "x" * 5000 + ",b=1") == {"b": "1"}


@given(st.text(max_size=300))
def test_no_text_raises(text: str) -> None:
    parse_traceparent(text)
    parse_tracestate(text)
    parse_baggage(text)
