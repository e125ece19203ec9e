"""Framing: what a body is, is told by its first bytes and only then by its label."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import framing
from proxy.wire.framing import AnswerMeter
from proxy.wire.reading import Reading


class Notes:
    """A reader that writes down what it is given."""

    def __init__(self) -> None:
        self.reading = Reading()
        self.taken: list[Any] = []

    def event(self, name: str, data: bytes) -> None:
        self.taken.append((name, data))

    def answer(self, body: bytes) -> None:
        self.taken.append(body)


def taken_of(
    body: bytes, *, content_type: str = "", stream: bool = True, status: int = 200, encoding: str = "", size: int = 0
) -> list[Any]:
    notes = Notes()
    meter = AnswerMeter(notes, status=status, content_type=content_type, content_encoding=encoding, stream=stream)
    for start in range(0, len(body), size or max(1, len(body))):
        meter.feed(body[start : start + (size or len(body))])
    meter.close()
    return notes.taken


def taken_at_any_cut(body: bytes, **options: Any) -> list[Any]:
    whole = taken_of(body, **options)
    for size in (1, 2, 3, 5, 7, 11, 64):
        assert taken_of(body, size=size, **options) == whole
    return whole


EVENTS = b'data: {"a":1}\n\nevent: e\ndata: {"b":2}\n\n'
TAKEN_EVENTS = [("", b'{"a":1}'), ("e", b'{"b":2}')]


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json", "text/plain; charset=utf-8", ""])
@pytest.mark.parametrize(
    "before", [b"", b": note\n\n", b"\xef\xbb\xbf", b"\n\n", b"id: 1\n", b"retry: 5\n", b"event:x\n\n"]
)
def test_events_are_events_whatever_their_label_says(content_type: str, before: bytes) -> None:
    """wire.md 40"""
    assert taken_at_any_cut(before + EVENTS, content_type=content_type) == TAKEN_EVENTS


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", ""])
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\r\n         \n" * 400])
def test_one_object_is_an_answer_also_after_blank_lines(content_type: str, before: bytes) -> None:
    """wire.md 37"""
    for body in (b'{"a": 1}', b'{"a": 1}\n', b'{\n  "a": 1\n}\n', b'{"a": "x\\ny"}  \r\n\r\n'):
        [answer] = taken_at_any_cut(before + body, content_type=content_type)
        assert json.loads(answer)["a"]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "application/json", "application/octet-stream"])
def test_objects_on_lines_of_their_own_are_lines(content_type: str) -> None:
    """wire.md 19, 21"""
    body = b'{"a":1}\n{"b":2}\r\n\n{"c":3}'
    assert taken_at_any_cut(body, content_type=content_type) == [("", b'{"a":1}'), ("", b'{"b":2}'), ("", b'{"c":3}')]


def test_the_elements_of_a_streamed_array_come_one_by_one() -> None:
    """wire.md 13"""
    elements = ['{"a": "}]{[\\"\\\\"}', '{"b": [1, {"c": []}]}', '{"d": "\\u007d"}', "[1]"]
    body = "[" + "\n,\r\n".join(elements) + "]\n"
    assert taken_at_any_cut(body.encode(), content_type="application/json") == [("", e.encode()) for e in elements]


def test_an_array_that_is_cut_gives_its_whole_elements() -> None:
    """wire.md 13"""
    assert taken_at_any_cut(b'[{"a":1},\n{"b":') == [("", b'{"a":1}')]


def test_an_array_that_is_not_streamed_is_an_answer() -> None:
    assert taken_at_any_cut(b"[[0.1], [0.2]]", stream=False) == [b"[[0.1], [0.2]]"]


@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), min_size=1, max_size=3), min_size=1, max_size=6),
    st.integers(1, 9),
)
def test_any_objects_come_out_of_an_array_and_of_lines_as_they_went_in(documents: list[Any], size: int) -> None:
    array = taken_of(json.dumps(documents).encode(), size=size)
    assert [json.loads(data) for _, data in array] == documents
    lines = taken_of("\n".join(json.dumps(document) for document in [*documents, {"end": "1"}]).encode(), size=size)
    assert [json.loads(data) for _, data in lines] == [*documents, {"end": "1"}]


@pytest.mark.parametrize("body", [b"\xff\xf3\xe4\xc4\x00", b"<html>", b"1\n00:00\n", b"d", b"date: x\n\n"])
def test_what_is_no_text_of_ours_is_passed_over_and_ends_with_its_bytes(body: bytes) -> None:
    notes = Notes()
    meter = AnswerMeter(notes, status=200, content_type="audio/mpeg", content_encoding="", stream=False)
    meter.feed(body)
    assert meter.close().complete
    assert notes.taken == []


def test_a_body_that_should_be_json_and_never_begins_was_cut() -> None:
    for content_type, complete in (("application/json", False), ("", True)):
        meter = AnswerMeter(Notes(), status=200, content_type=content_type, content_encoding="", stream=False)
        assert meter.close().complete is complete


def test_an_error_is_read_whole_and_never_billed() -> None:
    """wire.md 42"""
    notes = Notes()
    meter = AnswerMeter(notes, status=429, content_type="application/json", content_encoding="", stream=True)
    meter.feed(b'{"error":\n')
    meter.feed(b'{"type": "rate_limit_error", "message": "x"}}\n')
    reading = meter.close()
    assert (reading.error, reading.complete, reading.usage) == ("rate_limit_error", True, None)


def test_an_error_that_comes_as_an_event_is_an_event() -> None:
    assert taken_of(EVENTS, status=500) == TAKEN_EVENTS


def test_a_plain_answer_beyond_the_bound_is_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "PLAIN_BYTES_MAX", 1000)
    assert taken_of(b'{"a": "' + b"x" * 980 + b'"}', size=100) != []
    assert taken_of(b'{"a": "' + b"x" * 1000 + b'"}', size=100) == []


def test_a_line_or_element_beyond_the_bound_is_left_out_and_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing, "ELEMENT_BYTES_MAX", 100)
    long = b'{"a": "' + b"x" * 200 + b'"}'
    for size in (7, 1000):
        assert taken_of(b'{"a":1}\n' + long + b'\n{"b":2}', size=size) == [("", b'{"a":1}'), ("", b'{"b":2}')]
        assert taken_of(b'[{"a":1},' + long + b',{"b":2}]', size=size) == [("", b'{"a":1}'), ("", b'{"b":2}')]


def test_a_large_embedding_below_the_bound_is_read() -> None:
    body = b'{"data": [' + b"0.123456789, " * 1_500_000 + b'0], "usage": {"total_tokens": 7}}'
    assert len(body) < framing.PLAIN_BYTES_MAX
    assert taken_of(body, stream=False, size=65_536) == [body]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br", "compress", "x-unknown"])
def test_a_body_that_is_not_what_its_encoding_says_breaks_nothing(encoding: str) -> None:
    notes = Notes()
    meter = AnswerMeter(notes, status=200, content_type="text/event-stream", content_encoding=encoding, stream=True)
    for _ in range(20):
        meter.feed(b"\x00\xff not compressed at all \x9f" * 20)
    assert not meter.close().complete


def test_what_came_before_a_break_is_kept() -> None:
    body = gzip.compress(EVENTS)
    notes = Notes()
    meter = AnswerMeter(notes, status=200, content_type="", content_encoding="gzip", stream=True)
    meter.feed(body)
    meter.feed(b"garbage after the end")
    meter.close()
    assert notes.taken == TAKEN_EVENTS


def test_a_reader_that_fails_never_fails_the_call() -> None:
    class Broken(Notes):
        def event(self, name: str, data: bytes) -> None:
            raise KeyError(name)

    meter = AnswerMeter(Broken(), status=200, content_type="", content_encoding="", stream=True)
    meter.feed(EVENTS)
    meter.feed(EVENTS)
    assert meter.close().usage is None


def test_a_meter_may_be_closed_early_and_again() -> None:
    meter = AnswerMeter(Notes(), status=200, content_type="", content_encoding="", stream=True)
    meter.feed(b"dat")
    first = meter.close()
    meter.feed(EVENTS)
    assert meter.close() is first


@given(st.binary(max_size=300), st.sampled_from(["", "gzip", "br", "zstd", "deflate"]), st.integers(1, 50))
def test_no_bytes_at_all_make_a_meter_raise(body: bytes, encoding: str, size: int) -> None:
    taken_of(body, encoding=encoding, size=size)


def taken_whole(body: bytes, *, content_type: str = "", stream: bool = False, status: int = 200) -> list[Any]:
    notes = Notes()
    meter = AnswerMeter(notes, status=status, content_type=content_type, content_encoding="", stream=stream)
    meter.read_whole(body)
    meter.close()
    return notes.taken


BODIES = [
    b"",
    b"{}",
    b'{"a":1}',
    b'{"a":1}\n',
    b'{\n  "a": 1\n}\n',
    b'{"a":1,\r\n "b":{"c":2}}\r\n',
    b'\n {"a":1}',
    b'{"a":1}\n{"b":2}\n',
    b'{"a":1}\r\n{"b":2}',
    b'{"a":1} \n{"b":2}',
    b'[{"a":1},{"b":2}]',
    b'data: {"a":1}\n\n',
    b'{"a":',
    b"<html>",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [200, 500])
def test_a_body_that_is_all_there_is_taken_like_one_that_comes_in_pieces(
    body: bytes, stream: bool, status: int
) -> None:
    whole = taken_whole(body, content_type="application/json", stream=stream, status=status)
    assert whole == taken_of(body, content_type="application/json", stream=stream, status=status)
