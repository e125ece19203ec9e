"""Framing: finds out how an answer is cut into documents, and hands each to the dialect's reader.

The content type is only half a witness: event streams come labelled as JSON, JSON lines too, JSON comes after blank
lines sent to keep the connection alive, and errors come as JSON where a stream was asked for. So the first bytes of
the body decide, and the content type only where they leave it open.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import msgspec

from .decode import DecodeError, Decoder, decoder_for
from .errors import error_code
from .reader import Reader
from .reading import Reading
from .sse import EventSink, SseParser

PLAIN_BYTES_MAX = 32 * 1024 * 1024
"""A plain JSON answer that is gathered to be read: some 2,000 embeddings of 3,072 numbers, the most that can be asked
for at once, or a handful of base64 images. A longer one passes unread."""

ELEMENT_BYTES_MAX = 16 * 1024 * 1024
"""One line of JSON lines, or one element of a streamed array: like one event of an event stream."""

_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SSE_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_OUTSIDE_STRING = re.compile(rb'["{}\[\]]')
_IN_STRING = re.compile(rb'["\\]')
_SSE_START_BYTES = max(len(start) for start in _SSE_STARTS)


class Framing(Protocol):
    """One way of cutting a body into documents."""

    def feed(self, data: bytes) -> None: ...

    def close(self) -> None: ...


class AnswerMeter:
    """The Meter of one answer: undoes its encoding, finds its framing, and lets `reader` read it."""

    def __init__(self, reader: Reader, *, status: int, content_type: str, content_encoding: str, stream: bool) -> None:
        self._reader = reader
        self._failed = status >= 400
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._stream = stream
        self._head = b""
        self._framing: Framing | None = None
        self._unreadable = False
        self._closed = False
        self._decoder: Decoder | None = None
        try:
            self._decoder = decoder_for(content_encoding)
        except DecodeError:
            self._unreadable = True

    @property
    def seen_bytes(self) -> int:
        """Bytes of generated text seen so far."""
        return self._reader.reading.seen_bytes

    @property
    def complete(self) -> bool:
        """The dialect's own end was seen."""
        return self._reader.reading.complete

    def feed(self, data: bytes) -> None:
        """Take the next bytes as the provider sent them. Never raises."""
        if self._unreadable or self._closed:
            return
        try:
            if self._decoder is None:
                self._feed_decoded(data)
            else:
                for decoded in self._decoder.decode(data):
                    self._feed_decoded(decoded)
        except DecodeError:
            self._unreadable = True
        except Exception:
            # Whatever an answer holds, reading it must never end the call that it answers.
            self._unreadable = True

    def read_whole(self, body: bytes) -> None:
        """Take a body that is all there, as it was sent: what `feed` and `close` come to. Never raises."""
        first_line_end = body.find(b"\n")
        if (
            self._failed
            or self._stream
            or self._decoder is not None
            or self._closed
            or not body.startswith(b"{")
            or (first_line_end >= 0 and body[:first_line_end].rstrip().endswith(b"}"))
        ):
            self.feed(body)
            self.close()
            return
        # One object, over one line or many: nothing is to be found out about how it is cut.
        self._closed = True
        try:
            self._reader.answer(body)
        except Exception:
            # As in feed.
            self._unreadable = True

    def close(self) -> Reading:
        """End of bytes; gives what was seen. May be called again."""
        if not self._closed:
            self._closed = True
            try:
                if self._framing is None and not self._unreadable:
                    self._choose(self._head)
                if self._framing is not None:
                    self._framing.close()
            except Exception:
                # As in feed.
                self._unreadable = True
            if self._failed:
                # An error is not billed, whatever figures its body may hold.
                self._reader.reading.usage = None
        return self._reader.reading

    def _feed_decoded(self, data: bytes) -> None:
        if self._framing is not None:
            self._framing.feed(data)
            return
        head = (self._head + data).removeprefix(_BOM).lstrip(_BLANK)
        if len(head) < _SSE_START_BYTES and (not head or _could_begin_events(head) or _BOM.startswith(head)):
            self._head = head
            return
        self._head = b""
        self._choose(head)

    def _choose(self, head: bytes) -> None:
        self._framing = self._framing_for(head)
        if head:
            self._framing.feed(head)

    def _framing_for(self, head: bytes) -> Framing:
        if head.startswith(_SSE_STARTS):
            return SseParser(self._reader.event)
        if self._failed:
            return Plain(self._read_error)
        if head.startswith(b"["):
            return ArrayElements(self._reader.event) if self._stream else Plain(self._reader.answer)
        if head.startswith(b"{"):
            return JsonLines(self._reader)
        if self._content_type == "text/event-stream":
            return SseParser(self._reader.event)
        return Opaque(self._reader.reading, self._content_type)

    def _read_error(self, body: bytes) -> None:
        reading = self._reader.reading
        self._reader.answer(body)
        if reading.error is None:
            reading.error = error_code(body)
        reading.complete = True


def _could_begin_events(head: bytes) -> bool:
    return any(start.startswith(head) for start in _SSE_STARTS)


class _Gathered:
    """Pieces of one document, up to a bound. What grows beyond it is dropped as a whole."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._length = 0

    def add(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > self._bytes_max:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def whole(self) -> bytes:
        """What has come so far; nothing where it was more than the bound."""
        return b"".join(self._pieces)

    def take(self) -> bytes:
        """The same, and begin anew."""
        whole = self.whole()
        self._pieces.clear()
        self._length = 0
        return whole


class Plain:
    """One JSON document, gathered whole and within a bound."""

    def __init__(self, sink: Callable[[bytes], None]) -> None:
        self._sink = sink
        self._body = _Gathered(PLAIN_BYTES_MAX)

    def feed(self, data: bytes) -> None:
        self._body.add(data)

    def gathered(self) -> bytes:
        """What has come so far; nothing where it was more than the bound."""
        return self._body.whole()

    def close(self) -> None:
        body = self._body.take()
        if body:
            self._sink(body)


class JsonLines:
    """JSON objects, one a line; or, where the first line is no whole object, one object over many lines.

    The first line is held back until a second one begins: a body of one line is a plain answer.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._plain = Plain(reader.answer)
        self._lines: Lines | None = None
        self._take: Callable[[bytes], None] = self._feed_first

    def feed(self, data: bytes) -> None:
        self._take(data)

    def _feed_first(self, data: bytes) -> None:
        end = data.find(b"\n")
        if end < 0:
            self._plain.feed(data)
            return
        self._plain.feed(data[:end])
        if _is_object(self._plain.gathered()):
            self._take = self._feed_held
            self._feed_held(data[end:])
        else:
            self._take = self._plain.feed
            self._plain.feed(data[end:])

    def _feed_held(self, data: bytes) -> None:
        rest = data.lstrip(_BLANK)
        if not rest:
            return
        self._lines = Lines(self._reader.event)
        self._reader.event("", self._plain.gathered())
        self._take = self._lines.feed
        self._lines.feed(rest)

    def close(self) -> None:
        if self._lines is None:
            self._plain.close()
        else:
            self._lines.close()


class Lines:
    """Documents that end with a line feed each."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._line = _Gathered(ELEMENT_BYTES_MAX)

    def feed(self, data: bytes) -> None:
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._line.add(piece)
            self._emit()
        self._line.add(rest)

    def close(self) -> None:
        self._emit()

    def _emit(self) -> None:
        line = self._line.take().strip(_BLANK)
        if line:
            self._sink("", line)


class ArrayElements:
    """The objects of one JSON array, each given as soon as it is whole. Braces inside strings do not count."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._element = _Gathered(ELEMENT_BYTES_MAX)
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> None:
        start = 0 if self._depth > 1 else len(data)
        at = 0
        while at < len(data):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_IN_STRING if self._in_string else _OUTSIDE_STRING).search(data, at)
            if found is None:
                break
            at = found.end()
            match found.group():
                case b"\\":
                    self._escaped = True
                case b'"':
                    self._in_string = not self._in_string
                case b"{" | b"[":
                    self._depth += 1
                    if self._depth == 2:
                        start = at - 1
                case _:
                    self._depth -= 1
                    if self._depth == 1:
                        self._element.add(data[start:at])
                        start = len(data)
                        self._emit()
        self._element.add(data[start:])

    def close(self) -> None:
        """An element that was cut off is no document."""
        self._element.take()

    def _emit(self) -> None:
        element = self._element.take()
        if element:
            self._sink("", element)


class Opaque:
    """Sound, pictures, text: nothing to read and no end to recognise, so that the end of bytes is its end.
    A body that should have been JSON and has not even begun was cut."""

    def __init__(self, reading: Reading, content_type: str) -> None:
        self._reading = reading
        self._should_be_json = content_type.endswith("json")
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._begun = True

    def close(self) -> None:
        self._reading.complete = self._begun or not self._should_be_json


def _is_object(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return True
