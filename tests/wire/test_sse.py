"""Server-sent events: every line ending, every cut, and the little sins of real servers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import sse
from proxy.wire.sse import SseParser

Events = list[tuple[str, bytes]]


def events_of(pieces: list[bytes]) -> Events:
    found: Events = []
    parser = SseParser(lambda name, data: found.append((name, data)))
    for piece in pieces:
        parser.feed(piece)
    parser.close()
    return found


STREAM = b"""\
data: {"a": 1}

event: note
id: 7
data: {"b":
data:  2}

: a comment
retry: 10

data:{"c":3}

data

event: without data

data: [DONE]

"""
EVENTS = [("", b'{"a": 1}'), ("note", b'{"b":\n 2}'), ("", b'{"c":3}'), ("", b""), ("", b"[DONE]")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_events_are_found_with_every_line_ending_and_every_cut(ending: bytes) -> None:
    """wire.md 35, 36, 44"""
    stream = STREAM.replace(b"\n", ending)
    assert events_of([stream]) == EVENTS
    assert events_of([stream[at : at + 1] for at in range(len(stream))]) == EVENTS
    for cut in range(len(stream)):
        assert events_of([stream[:cut], stream[cut:]]) == EVENTS


def test_whole_events_in_one_piece_take_the_short_way() -> None:
    assert events_of([b'data: {"a":1}\n\ndata: {"b":2}\n\n', b'data: {"c":3}\n\n']) == [
        ("", b'{"a":1}'),
        ("", b'{"b":2}'),
        ("", b'{"c":3}'),
    ]


def test_a_piece_that_only_looks_like_whole_events_is_read_line_by_line() -> None:
    piece = b'data: {"a":1}\n\nevent: error\ndata: {"b":2}\n\n: note\n\ndata: {"c":\ndata: 3}\n\n'
    assert events_of([piece]) == [("", b'{"a":1}'), ("error", b'{"b":2}'), ("", b'{"c":\n3}')]


def test_an_event_without_its_last_blank_line_counts() -> None:
    """wire.md 44"""
    assert events_of([b"data: one\n\ndata: two\n"]) == [("", b"one"), ("", b"two")]
    assert events_of([b"data: one\n\ndata: two"]) == [("", b"one"), ("", b"two")]


def test_a_byte_order_mark_is_no_part_of_the_first_field() -> None:
    """wire.md 44"""
    stream = b"\xef\xbb\xbfdata: one\n\n"
    assert events_of([stream]) == [("", b"one")]
    assert events_of([stream[at : at + 1] for at in range(len(stream))]) == [("", b"one")]


def test_an_event_beyond_the_bound_is_left_out_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    stream = b"data: one\n\ndata: " + b"x" * 5000 + b"\n\ndata: three\n\n"
    for size in (1, 7, 400, 100_000):
        found: Events = []
        parser = SseParser(lambda name, data, found=found: found.append((name, data)))  # type: ignore[misc]
        for start in range(0, len(stream), size):
            parser.feed(stream[start : start + size])
            assert len(parser._buffer) <= 1000
        parser.close()
        if size < len(stream):
            assert found == [("", b"one"), ("", b"three")]
            assert parser.skipped == 1


lines = st.sampled_from([b"data: x", b"data:", b"data: {}", b"event: e", b": c", b"", b"", b"id: 1", b"garbage"])
endings = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.lists(st.tuples(lines, endings), max_size=25), st.lists(st.integers(0, 200), max_size=10))
def test_the_events_do_not_depend_on_the_cuts(written: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    stream = b"".join(line + ending for line, ending in written)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut <= len(stream))})
    pieces = [stream[start:end] for start, end in pairwise(bounds)]
    assert events_of(pieces) == events_of([stream[at : at + 1] for at in range(len(stream))])
