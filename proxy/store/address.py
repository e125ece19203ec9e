"""A store's URL, read once: redis://, rediss:// (TLS) or unix://."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

from .errors import StoreRefused

PORT_DEFAULT = 6379


@dataclass(frozen=True, slots=True)
class Address:
    """Where a store is and as whom we speak to it. `path` is a unix socket; without one, `host` and `port` count.

    `repr` and `shown` never show the password.
    """

    shown: str
    host: str = ""
    port: int = PORT_DEFAULT
    path: str | None = None
    tls: ssl.SSLContext | None = None
    user: str | None = None
    password: str | None = None
    database: int = 0

    def __repr__(self) -> str:
        return f"Address({self.shown})"


def parse(url: str) -> Address:
    """`redis://[user:password@]host[:port][/database]`, the same with `rediss://`, `unix://[user:password@]/path?db=N`.

    `?ssl_ca_certs=FILE` names the certificates to trust. Raises StoreRefused with a sentence that shows no password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORT_DEFAULT
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        named = options.get("db") or ("" if parts.scheme == "unix" else parts.path.strip("/"))
        database = int(named or 0)
    except ValueError:
        raise StoreRefused("The URL of the store cannot be read; write one like redis://host:6379/0") from None
    user, password = (unquote(text) if text else None for text in (parts.username, parts.password))
    if parts.scheme == "unix":
        path = unquote(parts.path)
        return Address(f"unix://{path}", path=path, user=user, password=password, database=database)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise StoreRefused("The URL of the store must begin with redis://HOST, rediss://HOST or unix:///PATH")
    tls = None
    if parts.scheme == "rediss":
        try:
            tls = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
        except (OSError, ssl.SSLError) as error:
            raise StoreRefused(f"`ssl_ca_certs` of the store's URL cannot be read: {error}") from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = f"{parts.scheme}://{host}:{port}/{database}"
    return Address(shown, parts.hostname, port, None, tls, user, password, database)
