"""Careful looks into JSON that strangers wrote."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import values

BASE64 = "QUJD" * 2_000


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7),
        (7.0, 7),
        ("7", 7),
        (0, 0),
        (10**12, 10**12),
        (msgspec.Raw(b"7"), 7),
        (10**12 + 1, None),
        (-1, None),
        (1.5, None),
        (float("inf"), None),
        (True, None),
        ("seven", None),
        ("\u0663", None),
        ("9" * 13, None),
        (None, None),
        ([7], None),
    ],
)
def test_a_count_is_a_whole_number_in_bounds(value: Any, number: int | None) -> None:
    assert values.whole(value) == number
    assert values.count({"n": value}, "n") == (number or 0)


def test_what_is_absent_or_of_another_kind_is_empty() -> None:
    assert values.mapping(None) == values.mapping([1]) == values.mapping(msgspec.Raw(b"[1]")) == {}
    assert values.listed({}) == values.listed("x") == values.listed(msgspec.Raw(b"broken")) == []
    assert values.text({"a": ""}, "a") is values.text({"a": 1}, "a") is values.text({}, "a") is None
    assert values.short_name("a" * 257) is values.short_name("") is values.short_name(1) is None
    assert values.json_bytes({"a": 1}) == 7
    assert values.json_bytes(object()) == 0


def test_the_length_of_a_text_is_that_of_its_utf_8() -> None:
    assert [values.text_bytes(text) for text in ("ab", "ä", "\ud800", None)] == [2, 2, 3, 0]


@given(st.binary(max_size=50))
def test_bytes_that_are_no_json_decode_to_nothing(data: bytes) -> None:
    assert values.decode(data + b"]") is None or data.lstrip().startswith(b"[")
    assert values.decode(b"\xff" + data) is None


def test_what_has_millions_of_parts_is_not_decoded() -> None:
    few, many = b"[" + b"[]," * 1_000 + b"[]]", b"[" + b"[]," * values.PARTS_MAX + b"[]]"
    assert values.decode(few) == [[]] * 1_001
    assert values.decode(many) is None
    assert values.mapping(msgspec.Raw(b'{"a":' + many + b"}")) == {}
    long_text = b'"' + b"a" * 3 * values.PARTS_MAX + b'"'
    assert values.decode(long_text) == "a" * 3 * values.PARTS_MAX


def test_json_that_is_nested_too_deeply_is_nothing() -> None:
    assert values.decode(b"[" * 100_000) is None


@pytest.mark.parametrize(
    ("content", "length"),
    [
        ({"data": BASE64}, len(BASE64)),
        ([{"a": {"data": BASE64}}, {"data": BASE64, "b": 1}], 2 * len(BASE64)),
        ({"data": "a text of words and nothing else " * 500}, 0),
        ({"text": BASE64}, 0),
        ({"data": BASE64[:64]}, 0),
        ({"data": [BASE64]}, 0),
        ({"data": {"data": BASE64}}, len(BASE64)),
        ({"text": '"data": "' + BASE64}, 0),
        ([], 0),
    ],
)
def test_inline_data_is_measured_decoded_and_undecoded(content: Any, length: int) -> None:
    assert values.inline_bytes(content) == length
    for indent in (None, 2):
        assert values.inline_bytes(json.dumps(content, indent=indent).encode()) == length
    assert values.inline_bytes(msgspec.Raw(msgspec.json.encode(content))) == length


@given(st.binary(max_size=200), st.integers(0, 200))
def test_no_undecoded_bytes_make_the_measure_fail(data: bytes, at: int) -> None:
    body = data[:at] + b'"data":"' + BASE64.encode() + data[at:]
    assert 0 <= values.inline_bytes(body) <= len(body)
