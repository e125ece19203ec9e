"""Content encodings: undone in pieces, within bounds, and never a reason to fail a call."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire import decode
from proxy.wire.decode import DecodeError, decode_whole, decoder_for, supported_encodings


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "two at once": ("gzip, br", lambda data: brotli.compress(gzip.compress(data))),
    "none": ("identity", lambda data: data),
}
TEXT = b'{"usage": {"prompt_tokens": 12}} ' * 2000


def decode_in_pieces(encoding: str, encoded: bytes, size: int) -> bytes:
    decoder = decoder_for(encoding)
    if decoder is None:
        return encoded
    pieces = [encoded[start : start + size] for start in range(0, len(encoded), size)]
    return b"".join(part for piece in pieces for part in decoder.decode(piece))


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("size", [1, 7, 611, 1_000_000])
def test_every_encoding_is_undone_in_pieces_of_any_size(name: str, size: int) -> None:
    encoding, encode = ENCODERS[name]
    assert decode_in_pieces(encoding, encode(TEXT), size) == TEXT


@pytest.mark.parametrize("name", ENCODERS)
def test_an_empty_body_stays_empty_in_every_encoding(name: str) -> None:
    encoding, encode = ENCODERS[name]
    assert decode_in_pieces(encoding, encode(b""), 3) == b""


@given(data=st.binary(max_size=3000), size=st.integers(1, 400), name=st.sampled_from(sorted(ENCODERS)))
def test_any_bytes_come_back_from_any_encoding(data: bytes, size: int, name: str) -> None:
    encoding, encode = ENCODERS[name]
    assert decode_in_pieces(encoding, encode(data), size) == data


def test_a_gzip_stream_that_is_flushed_piece_by_piece_is_read_as_it_comes() -> None:
    """wire.md 43"""
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    decoder = decoder_for("gzip")
    assert decoder is not None
    for event in (b"data: one\n\n", b"data: two\n\n"):
        piece = compressor.compress(event) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(decoder.decode(piece)) == event


def test_a_gzip_body_of_two_members_is_read_to_its_end() -> None:
    assert decode_in_pieces("gzip", gzip.compress(b"one ") + gzip.compress(b"two"), 5) == b"one two"


def test_a_zstd_body_of_two_frames_is_read_to_its_end() -> None:
    compress = zstandard.ZstdCompressor().compress
    assert decode_in_pieces("zstd", compress(b"one ") + compress(b"two"), 5) == b"one two"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_broken_data_is_said_to_be_broken(encoding: str) -> None:
    with pytest.raises(DecodeError):
        decode_in_pieces(encoding, b"\x9f\xff\xff this is no compressed body at all" * 50, 64)


@pytest.mark.parametrize("name", ["gzip", "raw deflate", "br", "zstd"])
def test_a_bomb_is_held_in_small_steps_and_cut_off(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding, encode = ENCODERS[name]
    bomb = brotli.compress(b"\0" * 40_000_000, quality=1) if name == "br" else encode(b"\0" * 40_000_000)
    monkeypatch.setattr(decode, "DECODED_BYTES_MAX", 20_000_000)
    decoder = decoder_for(encoding)
    assert decoder is not None
    steps: list[int] = []
    with pytest.raises(DecodeError, match="more than 20000000 bytes"):
        steps.extend(len(step) for step in decoder.decode(bomb))
    assert sum(steps) <= 20_000_000
    assert max(steps, default=0) <= 16 * 1024 * 1024


def test_an_encoding_nobody_can_read_is_named() -> None:
    with pytest.raises(DecodeError, match="`compress` is not one of gzip, deflate, br, zstd"):
        decoder_for("compress")


def test_no_more_encodings_than_a_few_are_undone() -> None:
    with pytest.raises(DecodeError, match="more than 4"):
        decoder_for(", ".join(["br"] * 5))


def test_the_encodings_offered_to_providers_are_those_that_can_be_undone() -> None:
    for encoding in supported_encodings().split(", "):
        assert decoder_for(encoding) is not None


def test_a_whole_body_beyond_its_bound_is_refused() -> None:
    assert decode_whole(gzip.compress(TEXT), "gzip", bytes_max=len(TEXT)) == TEXT
    with pytest.raises(DecodeError):
        decode_whole(gzip.compress(TEXT), "gzip", bytes_max=len(TEXT) - 1)
