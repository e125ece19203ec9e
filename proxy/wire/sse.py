"""SSE: server-sent events, cut out of a stream of bytes that may be cut anywhere itself.

Follows the WHATWG event stream format: LF, CRLF and CR end a line, a colon starts a comment, several data lines make
one datum. It differs in one thing: an event at the end of the bytes counts also without the blank line after it, since
some providers leave that out and the last event is the one that holds the usage.
"""

from __future__ import annotations

from collections.abc import Callable

EVENT_BYTES_MAX = 16 * 1024 * 1024
"""One event. The last event of a Responses stream repeats the whole answer, images included; more is no answer."""

_BOM = b"\xef\xbb\xbf"
_CR, _LF = b"\r\n"
"""As numbers, which are found in bytes four times as fast as texts are."""

EventSink = Callable[[str, bytes], None]


class SseParser:
    """Gives each event to `sink(name, data)`; one without data is none. `skipped` counts those that were too long."""

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._searched = 0
        self._skip_line_feed = False
        self._skipping = False
        self._begun = False
        self.skipped = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if not self._buffer and not self._skipping and data.startswith(b"data: {") and _CR not in data:
            # What nearly every piece of a real stream is: whole events, most often exactly one.
            if data.find(b"\n") == len(data) - 2 and data.endswith(b"\n\n"):
                self._begun = True
                self._skip_line_feed = False
                self._sink("", data[6:-2])
                return
            if data.endswith(b"}\n\n"):
                self._begun = True
                self._skip_line_feed = False
                for block in data[:-2].split(b"\n\n"):
                    self._event(block)
                return
        self._feed_lines(data)

    def close(self) -> None:
        """End of bytes: the last event, where it lacks its blank line."""
        if self._buffer and not self._skipping:
            self._event(bytes(self._buffer))
        self._buffer.clear()

    def _feed_lines(self, data: bytes) -> None:
        if self._skip_line_feed and data:
            self._skip_line_feed = False
            if data.startswith(b"\n"):
                data = data[1:]
        if _CR in data:
            # A carriage return ends its line at once; the line feed of a CRLF that was cut in two is skipped later.
            self._skip_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        buffer = self._buffer
        buffer += data
        start = 0
        end = buffer.find(b"\n\n", self._searched)
        while end >= 0:
            if self._skipping:
                self._skipping = False
            else:
                self._event(bytes(buffer[start:end]))
            start = end + 2
            end = buffer.find(b"\n\n", start)
        del buffer[:start]
        self._searched = max(0, len(buffer) - 1)
        if len(buffer) > EVENT_BYTES_MAX or (self._skipping and len(buffer) > 1):
            if not self._skipping:
                self._skipping = True
                self.skipped += 1
            # The last byte may be the first half of the blank line that ends the event.
            del buffer[:-1]
            self._searched = 0

    def _event(self, block: bytes) -> None:
        if not self._begun:
            self._begun = True
            block = block.removeprefix(_BOM)
        if block.startswith(b"data: ") and _LF not in block:
            self._sink("", block[6:])
            return
        name = ""
        data: list[bytes] = []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b":")
            if field == b"data":
                data.append(value.removeprefix(b" "))
            elif field == b"event":
                name = value.removeprefix(b" ").decode("utf-8", "replace")
        if data:
            self._sink(name, b"\n".join(data) if len(data) > 1 else data[0])
