"""Decode: content encodings, undone piece by piece and within bounds, so that a meter can read a compressed answer.

The bytes that go to the caller are never touched; what is decoded here is a copy that is read and forgotten.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

import brotli
import zstandard

DECODED_BYTES_MAX = 128 * 1024 * 1024
"""Decoded bytes read of one answer. No answer of a model is longer; a compression bomb is cut off here."""

STEP_BYTES_MAX = 256 * 1024
"""Decoded bytes held at once, so that a small piece that inflates a thousandfold never costs memory."""

ENCODINGS_MAX = 4
"""Encodings on top of one another; one is what is seen. Each costs memory before a byte is read."""

ZSTD_INPUT_STEP_BYTES = 512
"""zstandard has no limit on its output: 512 bytes hold at most 128 blocks of 128 KiB, which bounds it to 16 MiB."""

ZSTD_WINDOW_BYTES_MAX = 8 * 1024 * 1024
"""The window that RFC 9659 allows for `content-encoding: zstd`; more would be memory for nothing."""

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class DecodeError(ValueError):
    """The body is not what its content-encoding says, or inflates beyond every answer."""


class Decoder(Protocol):
    """Undoes one content encoding."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """The next encoded bytes -> what they hold, in steps. Raises DecodeError."""


class _Zlib:
    """gzip (also of several members), and deflate with or without the zlib wrapping that RFC 9110 asks for."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._head = b""
        self._stream = zlib.decompressobj(_GZIP) if gzip else None

    def decode(self, data: bytes) -> Iterator[bytes]:
        stream = self._stream
        if stream is None:
            data = self._head + data
            self._head = data
            if len(data) < 2:
                return
            self._head = b""
            stream = self._stream = zlib.decompressobj(_ZLIB if _is_zlib_header(data) else _RAW_DEFLATE)
        try:
            while data:
                if stream.eof:
                    if not self._gzip:
                        return
                    stream = self._stream = zlib.decompressobj(_GZIP)
                decoded = stream.decompress(data, STEP_BYTES_MAX)
                data = stream.unused_data if stream.eof else stream.unconsumed_tail
                if self._gzip and stream.eof:
                    data = data.lstrip(b"\0")
                if decoded:
                    yield decoded
                    # A full step may leave output inside the decompressor although no input is left.
                    while not data and not stream.eof and len(decoded) == STEP_BYTES_MAX:
                        decoded = stream.decompress(b"", STEP_BYTES_MAX)
                        if decoded:
                            yield decoded
        except zlib.error as error:
            raise DecodeError(str(error)) from None


def _is_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0


class _Brotli:
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def decode(self, data: bytes) -> Iterator[bytes]:
        try:
            decoded = self._stream.process(data, output_buffer_limit=STEP_BYTES_MAX)
            while decoded:
                yield decoded
                if len(decoded) < STEP_BYTES_MAX and self._stream.can_accept_more_data():
                    return
                # A full step may leave output inside, although the decompressor has taken all input.
                decoded = self._stream.process(b"", output_buffer_limit=STEP_BYTES_MAX)
        except brotli.error as error:
            raise DecodeError(str(error) or "broken brotli data") from None


class _Zstd:
    def __init__(self) -> None:
        self._stream = self._open()

    @staticmethod
    def _open() -> zstandard.ZstdDecompressionObj:
        return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompressobj()

    def decode(self, data: bytes) -> Iterator[bytes]:
        at = 0
        try:
            while at < len(data):
                if self._stream.eof:
                    self._stream = self._open()
                decoded = self._stream.decompress(data[at : at + ZSTD_INPUT_STEP_BYTES])
                at += ZSTD_INPUT_STEP_BYTES
                if self._stream.eof:
                    at = min(at, len(data)) - len(self._stream.unused_data)
                if decoded:
                    yield decoded
        except zstandard.ZstdError as error:
            raise DecodeError(str(error)) from None


class _Chain:
    """Several encodings, undone in the reverse of the order in which they were applied, under one bound."""

    def __init__(self, decoders: list[Decoder]) -> None:
        self._decoders = decoders
        self._decoded_bytes = 0

    def decode(self, data: bytes) -> Iterator[bytes]:
        for decoded in self._run(data, 0):
            self._decoded_bytes += len(decoded)
            if self._decoded_bytes > DECODED_BYTES_MAX:
                raise DecodeError(f"more than {DECODED_BYTES_MAX} bytes once decoded")
            yield decoded

    def _run(self, data: bytes, index: int) -> Iterator[bytes]:
        if index == len(self._decoders):
            yield data
            return
        for decoded in self._decoders[index].decode(data):
            yield from self._run(decoded, index + 1)


def supported_encodings() -> str:
    """What the meter can read, as a value of `accept-encoding`."""
    return "gzip, deflate, br, zstd"


def decoder_for(content_encoding: str) -> Decoder | None:
    """The decoder for a `content-encoding` header; None where there is nothing to undo.
    Raises DecodeError for an encoding that the meter cannot read."""
    if not content_encoding:
        return None
    names = [name.strip().lower() for name in content_encoding.split(",")]
    if len(names) > ENCODINGS_MAX:
        raise DecodeError(f"more than {ENCODINGS_MAX} encodings on top of one another")
    decoders: list[Decoder] = []
    for name in reversed(names):
        match name:
            case "" | "identity":
                continue
            case "gzip" | "x-gzip":
                decoders.append(_Zlib(gzip=True))
            case "deflate":
                decoders.append(_Zlib(gzip=False))
            case "br":
                decoders.append(_Brotli())
            case "zstd":
                decoders.append(_Zstd())
            case _:
                raise DecodeError(f"content-encoding `{name}` is not one of {supported_encodings()}")
    return _Chain(decoders) if decoders else None


def decode_whole(body: bytes, content_encoding: str, *, bytes_max: int) -> bytes:
    """A whole body, decoded. Raises DecodeError also where it would be longer than `bytes_max`."""
    decoder = decoder_for(content_encoding)
    if decoder is None:
        return body
    pieces: list[bytes] = []
    length = 0
    for piece in decoder.decode(body):
        length += len(piece)
        if length > bytes_max:
            raise DecodeError(f"more than {bytes_max} bytes once decoded")
        pieces.append(piece)
    return b"".join(pieces)
