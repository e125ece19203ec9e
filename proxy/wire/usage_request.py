"""Usage request: asks for the usage of a stream whose caller did not, and takes it out of the stream again.

Without it a streamed answer of OpenAI tells no usage at all. The chunk that brings it has no choices, and programs that
were written without it fail on `choices[0]`; so a caller who did not ask never sees it.
"""

from __future__ import annotations

import re

import msgspec

from ..core.call import Call
from .providers import provider_named
from .values import decode, mapping

AZURE_VERSION_MIN = "2024-09"
"""The first version of Azure's interface that takes `stream_options`; the older ones refuse the request."""

USAGE_CHUNK_BYTES_MAX = 32 * 1024
"""The largest event that can be a chunk with nothing but usage; what grows beyond it is passed on at once."""

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ASK = b'"stream_options":{"include_usage":true}'

_EVENT_END = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_HAS_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\{')
_NOTHING = msgspec.Raw(b"null")


def ask_for_usage(call: Call, body: bytes, provider: str) -> bytes | None:
    """The body with `stream_options.include_usage` set; None where that is not needed, or where the provider is not
    known to take it. Usually the option is put before the first field and every other byte stays as it was."""
    if not call.stream or call.usage_asked is True or call.api not in ("openai.chat", "openai.completions"):
        return None
    row = provider_named(provider)
    if not row.takes_include_usage or "/agents/" in call.route or "/fim/" in call.route:
        return None
    if row.azure_api_versions and call.api_version and call.api_version < AZURE_VERSION_MIN:
        return None
    start = body.find(b"{")
    if start < 0:
        return None
    if b'"stream_options"' in body:
        return _with_option(body)
    return body[: start + 1] + _ASK + b"," + body[start + 1 :]


def _with_option(body: bytes) -> bytes | None:
    """The option set among the others that the caller chose; the fields are written again, each value as it was."""
    try:
        fields = _fields.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    options = dict(mapping(fields.get("stream_options")))
    options["include_usage"] = True
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


class _Chunk(msgspec.Struct):
    choices: msgspec.Raw = _NOTHING
    usage: msgspec.Raw = _NOTHING


_chunk = msgspec.json.Decoder(_Chunk)


class UsageRemover:
    """Takes the chunk with nothing but usage out of an event stream that is not compressed.

    All other bytes pass unchanged. Only the event that has begun and not ended is held, as long as it may still be
    that chunk. What has choices beside its usage stays: the caller is owed it.
    """

    def __init__(self) -> None:
        self._held = b""
        self._passing = False

    def feed(self, data: bytes) -> bytes:
        """The next bytes of the stream -> what the caller may have now."""
        if (
            not self._held
            and not self._passing
            and data.endswith(b"\n\n")
            and (data.find(b'"usage"') < 0 or (data.find(b'"choices":[{') >= 0 and data.find(b"\n\n") == len(data) - 2))
        ):
            # What nearly every piece is: whole events without usage, or one event that has choices.
            return data
        data = self._held + data
        passed: list[bytes] = []
        start = 0
        while (end := self._event_end(data, start)) is not None:
            event = data[start:end]
            if self._passing or not _is_usage_alone(event):
                passed.append(event)
            self._passing = False
            start = end
        rest = data[start:]
        if self._passing or not _may_be_usage(rest):
            # The last bytes stay: they may be the first half of the blank line that ends this event.
            kept = len(rest) - len(rest.rstrip(b"\r\n"))
            passed.append(rest[: len(rest) - kept])
            self._passing = self._passing or len(rest) > kept
            rest = rest[len(rest) - kept :]
        self._held = rest
        return b"".join(passed)

    def close(self) -> bytes:
        """End of bytes: the event that lacks its blank line, unless it is that chunk."""
        rest, self._held = self._held, b""
        return b"" if not self._passing and _is_usage_alone(rest) else rest

    def _event_end(self, data: bytes, start: int) -> int | None:
        found = _EVENT_END.search(data, start)
        if found is None:
            return None
        if found.end() == len(data) and data.endswith(b"\r"):
            # The line feed that belongs to this carriage return may come with the next bytes.
            return None
        return found.end()


def _may_be_usage(event: bytes) -> bool:
    """Whether an event that has not ended yet can turn out to be the chunk."""
    return len(event) <= USAGE_CHUNK_BYTES_MAX and _HAS_CHOICES.search(event) is None


def _is_usage_alone(event: bytes) -> bool:
    """Whether an event is a chunk with usage and no choices."""
    if b'"usage"' not in event or len(event) > USAGE_CHUNK_BYTES_MAX:
        return False
    lines = event.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
    try:
        chunk = _chunk.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    return chunk.usage != _NOTHING and decode(bytes(chunk.choices)) == []
