"""What every dialect file offers, and what framing expects of it: routes in, a reader of answers out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote

import msgspec

from ..core.call import Call
from .reading import Reading


class BodyInvalid(ValueError):
    """The request cannot be what its path says. The text is a sentence for the person who sent it."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """A provider path that a dialect knows. `parameters` are its variable parts: `{"model": "gemini-2.5-flash"}`."""

    api: str
    dialect: str
    route: str
    parameters: dict[str, str] = {}
    free: bool = False


def parameters_of(found: re.Match[str]) -> dict[str, str]:
    """The variable parts of a path that are there, without their escapes: rules, prices and ids know them plain."""
    return {name: unquote(value) for name, value in found.groupdict().items() if value}


class Reader(Protocol):
    """One dialect's understanding of one answer. Fed whole documents; keeps the running `reading`; never raises."""

    reading: Reading

    def event(self, name: str, data: bytes) -> None:
        """One event of a stream: its SSE event name ("" where it has none) and its data, a JSON document or `[DONE]`.
        NDJSON lines, JSONL lines and the elements of a JSON array come the same way, without a name."""

    def answer(self, body: bytes) -> None:
        """A whole plain body, decompressed."""


class Dialect(Protocol):
    """The functions a dialect file exports; a module is used as the object."""

    def match(self, method: str, path: str) -> Route | None:
        """The route, recognised by the end of the path, or None."""

    def read(
        self,
        route: Route,
        *,
        method: str,
        query: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | bytes,
    ) -> Call:
        """The call. `body` is the decoded JSON object where the request has one, else the raw bytes (forms, GET).
        Raises BodyInvalid."""

    def reader(self, call: Call, *, provider: str, request_body: bytes) -> Reader:
        """A fresh reader for the answer to this call."""

    def end_of_stream(self, call: Call, code: str, sentence: str) -> bytes:
        """The bytes that end a broken stream honestly in this dialect."""
