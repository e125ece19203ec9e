"""Upstreams: sends a call to its provider and gives back the answer as it comes. The only door to the outside."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import defaultdict
from urllib.parse import urlsplit

import certifi

from .http1 import Connection, UpstreamFailure

CONNECT_S_MAX = 10.0
"""DNS, TCP and TLS together. Providers answer in well under a second; agents should hear of an outage soon."""
FIRST_BYTE_S_MAX = 600.0
"""Until the status line: what the OpenAI and Anthropic SDKs wait by default. Long reasoning sends nothing before."""
SILENCE_S_MAX = 300.0
"""Between two pieces of an answer. Providers send keep-alive events far more often."""
IDLE_S_MAX = 30.0
"""An unused connection is kept this long: shorter than any provider's own limit that was seen, except those that
say theirs in `Keep-Alive`, which is then respected."""
IDLE_CONNECTIONS_MAX = 256
"""Unused connections kept for each origin. There is no limit on used ones: no call waits for another."""

__all__ = ["Exchange", "UpstreamFailure", "Upstreams"]


class Exchange:
    """One answer. `head` once, then `read` until it gives b""; `close` whatever happened."""

    def __init__(self, connection: Connection, pool: list[Connection]) -> None:
        self._connection = connection
        self._pool = pool
        self._closed = False

    @property
    def status(self) -> int:
        return self._connection.status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header lines in their order, names as sent."""
        return self._connection.headers

    def field(self, name: bytes) -> str:
        """The value of a header by its lower-case name, in lower case; "" where it is absent."""
        value = self._connection.fields.get(name)
        return "" if value is None else value.decode("utf-8", "replace").strip().lower()

    @property
    def length(self) -> int | None:
        """The length of the body as announced, None where it is not."""
        value = self.field(b"content-length")
        return int(value) if value.isdecimal() else None

    async def head(self) -> None:
        """Until status and headers are there. Raises UpstreamFailure. May be cancelled and awaited again."""
        connection = self._connection
        while not connection.headers_complete:
            if connection.failure is not None:
                raise connection.failure
            await connection.wait()
        connection.limit(SILENCE_S_MAX, "idle_timeout")

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" at its end. Raises UpstreamFailure. May be
        cancelled and awaited again without losing a byte."""
        connection = self._connection
        while True:
            data = connection.take()
            if data:
                connection.limit(SILENCE_S_MAX, "idle_timeout")
                return data
            if connection.complete:
                return b""
            if connection.failure is not None:
                raise connection.failure
            await connection.wait()

    @property
    def at_end(self) -> bool:
        """True once every byte has been read."""
        return self._connection.complete and not self._connection._chunks

    @property
    def arrived(self) -> bool:
        """True once the provider has sent the whole answer, whether it was read or not."""
        return self._connection.complete

    def close(self) -> None:
        """Keeps the connection for the next call when the answer was read to its end, else drops it."""
        if self._closed:
            return
        self._closed = True
        connection = self._connection
        if self.at_end and connection.open and len(self._pool) < IDLE_CONNECTIONS_MAX:
            connection.rest()
            self._pool.append(connection)
        else:
            connection.abort()


class Upstreams:
    """The connections of one process, kept by origin (scheme, host and port)."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], list[Connection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None

    async def send(self, *, method: str, base_url: str, target: str, lines: str, body: bytes) -> Exchange:
        """Sends a call to `base_url` + `target` (path and query, beginning with `/`). Raises UpstreamFailure.

        `lines` are the headers that shall arrive, each with its end, without host, content-length and connection, which
        are set here.
        """
        scheme, host, port, prefix, authority = origin(base_url)
        pool = self._idle[scheme, host, port]
        connection = take_open(pool) or await self._connect(scheme, host, port)
        length = f"content-length: {len(body)}\r\n" if body or method in ("POST", "PUT", "PATCH") else ""
        text = f"{method} {prefix}{target} HTTP/1.1\r\nhost: {authority}\r\n{lines}{length}\r\n"
        head = text.encode("utf-8", "surrogateescape")  # as the server decoded them
        connection.begin((head, body) if body else (head,), head_only=method == "HEAD")
        connection.limit(FIRST_BYTE_S_MAX, "first_byte_timeout")
        return Exchange(connection, pool)

    async def _connect(self, scheme: str, host: str, port: int) -> Connection:
        loop = asyncio.get_running_loop()
        tls = self._tls_context() if scheme == "https" else None
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                _, connection = await loop.create_connection(lambda: Connection(loop), host, port, ssl=tls)
        except TimeoutError:
            raise failure("connect_timeout", f"no connection to `{host}` within {CONNECT_S_MAX:.0f} s") from None
        except socket.gaierror as error:
            raise failure("dns", f"the name `{host}` cannot be resolved: {error.strerror}") from None
        except ssl.SSLError as error:
            raise failure("tls", f"TLS to `{host}` failed: {error.reason or 'certificate not accepted'}") from None
        except ConnectionRefusedError:
            raise failure("connect_refused", f"`{host}:{port}` refuses connections") from None
        except OSError as error:
            raise failure("connect_failed", f"no connection to `{host}:{port}`: {error.strerror or error}") from None
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = ssl.create_default_context()
            context.set_alpn_protocols(["http/1.1"])
            if not context.cert_store_stats()["x509_ca"]:  # a system without certificates of its own
                context.load_verify_locations(certifi.where())
            self._tls = context
        return self._tls

    def close(self) -> None:
        for pool in self._idle.values():
            for connection in pool:
                connection.abort()
        self._idle.clear()


def failure(reason: str, sentence: str) -> UpstreamFailure:
    return UpstreamFailure(reason, sentence, sent=False)


def take_open(pool: list[Connection]) -> Connection | None:
    """The connection used last that can still be trusted; those that cannot are dropped."""
    while pool:
        connection = pool.pop()
        idle_s_max = IDLE_S_MAX if connection.keep_alive_s is None else min(IDLE_S_MAX, connection.keep_alive_s - 1)
        if connection.open and connection.loop.time() - connection.idle_since_s < idle_s_max:
            return connection
        connection.abort()
    return None


_origins: dict[str, tuple[str, str, int, str, str]] = {}


def origin(base_url: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, path prefix and the value of the host header. Remembered: they come from the policy."""
    known = _origins.get(base_url)
    if known is None:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        authority = parts.netloc.rpartition("@")[2]
        known = _origins[base_url] = (parts.scheme, host, port, parts.path.rstrip("/"), authority)
    return known
