"""The recorded exchanges of real providers, which lie beside the repository and are never copied into it."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from proxy import wire
from proxy.core.call import Call

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "wire"

_DIALECTS = {"anthropic": "anthropic", "gemini": "gemini", "vertex": "gemini", "ollama": "ollama"}
"""Which dialect an upstream of this provider would be given; all others speak OpenAI's."""


@dataclass(frozen=True)
class Recording:
    """One exchange. `body` is as the provider sent it: compressed where `content_encoding` says so."""

    name: str
    api: str
    provider: str
    model: str | None
    streaming: bool
    kind: str
    method: str
    path: str
    query: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int
    response_headers: dict[str, str]
    body: bytes
    usage_reported: dict[str, Any] | None

    @property
    def content_type(self) -> str:
        return self.response_headers.get("content-type", "")

    @property
    def content_encoding(self) -> str:
        return self.response_headers.get("content-encoding", "")

    @property
    def plain_body(self) -> bytes:
        """The body without its encoding, undone by the standard library and not by the code under test."""
        return gzip.decompress(self.body) if self.content_encoding == "gzip" else self.body

    def call(self) -> Call:
        """The call as the relay would read it."""
        return wire.read_call(
            method=self.method,
            path=self.path,
            query=self.query,
            headers=self.request_headers,
            body=self.request_body,
            dialect=_DIALECTS.get(self.api.split(".")[0], "openai"),
            provider=self.provider,
        )

    def meter(self, *, content_encoding: str | None = None) -> wire.Meter:
        """A fresh meter for the answer; `content_encoding` where the test encodes the body itself."""
        return wire.open_meter(
            self.call(),
            provider=self.provider,
            status=self.status,
            content_type=self.content_type,
            content_encoding=self.content_encoding if content_encoding is None else content_encoding,
            request_body=self.request_body,
        )

    def __str__(self) -> str:
        return self.name


def _bytes(message: dict[str, Any]) -> bytes:
    body = message.get("body") or ""
    return base64.b64decode(body) if message.get("encoding") == "base64" else body.encode()


def _load(path: Path) -> Recording:
    recorded = json.loads(path.read_bytes())
    request, response = recorded["request"], recorded["response"]
    target, _, query = request["path"].partition("?")
    return Recording(
        name=f"{path.parent.name}/{path.stem}",
        api=recorded["api"],
        provider=recorded["provider"].removesuffix(".openai"),
        model=recorded.get("model"),
        streaming=recorded["streaming"],
        kind=recorded["wire"]["kind"],
        method=request["method"],
        path=target,
        query=query,
        request_headers={name.lower(): value for name, value in request.get("headers", {}).items()},
        request_body=_bytes(request),
        status=response["status"],
        response_headers={name.lower(): value for name, value in response["headers"].items()},
        body=_bytes(response),
        usage_reported=recorded["usage_reported"],
    )


@lru_cache(maxsize=1)
def _all() -> tuple[Recording, ...]:
    return tuple(_load(path) for path in sorted(FOLDER.glob("*/*.json")))


def recordings() -> tuple[Recording, ...]:
    """Every recording. Skips the test module that asks for them where the folder is not there."""
    if not FOLDER.is_dir():
        pytest.skip("the recordings are not here: ../shared/wire is missing", allow_module_level=True)
    return _all()
