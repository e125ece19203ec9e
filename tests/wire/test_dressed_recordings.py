"""Every recorded stream in other dresses: other line ends, comments, packing. What is told stays the same."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import pytest
import zstandard

from proxy.wire import Reading
from tests.support.recordings import Recording, recordings

NOT_OURS_YET = ("bedrock.", "cohere.", "aleph-alpha.")
WITHOUT_THEIR_REQUEST = (
    "gemini.interactions/stream-200-gemini-2.5-flash-93b83c5a",
    "vertex.generateContent/plain-200-gemini-1.5-pro-3903cc3c",
)
OURS = [
    recording
    for recording in recordings()
    if recording.status < 400
    and not recording.api.startswith(NOT_OURS_YET)
    and recording.name not in WITHOUT_THEIR_REQUEST
]
STREAMS = [recording for recording in OURS if recording.kind == "sse" and recording.plain_body]
PIECE_BYTES = 997
HUGE_BYTES = 300_000
"""More than a decoder gives at once, and far more than the network brings."""


def read(recording: Recording, body: bytes, encoding: str = "") -> Reading:
    meter = recording.meter(content_encoding=encoding)
    for start in range(0, len(body), PIECE_BYTES):
        meter.feed(body[start : start + PIECE_BYTES])
    return meter.close()


def events_of(recording: Recording) -> list[list[tuple[str, str]]]:
    """Fields of each event, by another reading of the standard than that of the code under test."""
    text = recording.plain_body.decode().replace("\r\n", "\n").replace("\r", "\n")
    events = []
    for block in text.split("\n\n"):
        lines = [line.partition(":") for line in block.split("\n") if line and not line.startswith(":")]
        if lines:
            events.append([(name, value.removeprefix(" ")) for name, _, value in lines])
    return events


def written(events: list[list[tuple[str, str]]], *, end: str = "\n", between: str = "", space: str = " ") -> bytes:
    blocks = ["".join(f"{name}:{space}{value}{end}" for name, value in fields) + between + end for fields in events]
    return "".join(blocks).encode()


def over_many_lines(events: list[list[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
    return [
        [(name, line) for name, value in fields for line in (pretty(value) if name == "data" else [value])]
        for fields in events
    ]


def pretty(data: str) -> list[str]:
    """A datum as JSON over many lines. Numbers keep every digit they have."""
    try:
        document = json.loads(data, parse_float=Digits)
    except ValueError:
        return [data]
    return json.dumps(document, indent=1, ensure_ascii=False, default=str).split("\n")


class Digits(float):
    """A number that is written as it was read."""

    def __new__(cls, text: str) -> Digits:
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __repr__(self) -> str:
        return self.text


def with_other_fields(events: list[list[tuple[str, str]]]) -> list[list[tuple[str, str]]]:
    return [[("id", str(number)), *fields, ("retry", "3000")] for number, fields in enumerate(events)]


DRESSES: dict[str, Callable[[list[list[tuple[str, str]]]], bytes]] = {
    "LF": written,
    "CRLF": lambda events: written(events, end="\r\n"),
    "CR": lambda events: written(events, end="\r"),
    "no blank after the colon": lambda events: written(events, space=""),
    "a byte order mark": lambda events: b"\xef\xbb\xbf" + written(events),
    "comments": lambda events: b": hello\n\n" + written(events, between=": keep-alive\n"),
    "comments as events": lambda events: b"\n\n: \n\n".join([b"", *(written([fields]) for fields in events)]),
    "ids and times to come back": lambda events: written(with_other_fields(events)),
    "data over many lines": lambda events: written(over_many_lines(events)),
    "data over many lines that end in CRLF": lambda events: written(over_many_lines(events), end="\r\n"),
    "no last blank line": lambda events: written(events).rstrip(b"\n"),
    "a huge comment": lambda events: b":" + b"x" * HUGE_BYTES + b"\n" + written(events),
    "a huge event": lambda events: written([[("data", json.dumps({"padding": "x" * HUGE_BYTES}))], *events]),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_recorded_streams_tell_the_same_in_every_dress(dress: str) -> None:
    for recording in STREAMS:
        assert read(recording, DRESSES[dress](events_of(recording))) == read(recording, recording.plain_body), recording


def test_recorded_streams_that_lack_their_done_mark_tell_the_same_usage() -> None:
    for recording in STREAMS:
        events = [fields for fields in events_of(recording) if ("data", "[DONE]") not in fields]
        assert read(recording, written(events)).usage == read(recording, recording.plain_body).usage, recording


def zstd_frames(body: bytes) -> bytes:
    """Many frames, some of them to be skipped."""
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    pack = zstandard.ZstdCompressor(level=3).compress
    return b"".join(pack(body[at : at + 5_000]) + skipped for at in range(0, len(body), 5_000))


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def gzip_members(body: bytes) -> bytes:
    return b"".join(gzip.compress(body[at : at + 5_000]) for at in range(0, len(body), 5_000))


PACKINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip of many members": ("x-gzip", gzip_members),
    "deflate": ("deflate", zlib.compress),
    "deflate without its wrapping": ("deflate", raw_deflate),
    "brotli": ("br", lambda body: brotli.compress(body, quality=3)),
    "zstd of many frames": ("zstd", zstd_frames),
    "one in another": ("gzip, br", lambda body: brotli.compress(gzip.compress(body), quality=3)),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_recorded_answers_tell_the_same_in_every_packing(packing: str) -> None:
    encoding, pack = PACKINGS[packing]
    for recording in OURS:
        assert read(recording, pack(recording.plain_body), encoding) == read(recording, recording.plain_body), recording


def test_a_packed_answer_that_is_cut_tells_what_came_before() -> None:
    for recording in STREAMS:
        half = gzip.compress(recording.plain_body)
        seen = read(recording, half[: len(half) // 2], "gzip")
        whole = read(recording, recording.plain_body)
        assert seen.seen_bytes <= whole.seen_bytes, recording


def test_nothing_about_these_recordings_is_lost_on_the_way_to_other_dresses() -> None:
    """The tests above would pass on empty streams."""
    told: list[Any] = [read(recording, written(events_of(recording))).usage for recording in STREAMS]
    assert sum(usage is not None for usage in told) > 0.7 * len(STREAMS) > 100
