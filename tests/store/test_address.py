from __future__ import annotations

import pytest

from proxy.store import address
from proxy.store.errors import StoreRefused


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "user", "password", "database"),
    [
        ("redis://cache", "cache", 6379, None, None, None, 0),
        ("redis://:secret@cache:7000/2", "cache", 7000, None, None, "secret", 2),
        ("redis://ada:p%40ss@[::1]:7000/", "::1", 7000, None, "ada", "p@ss", 0),
        ("redis://cache?db=4", "cache", 6379, None, None, None, 4),
        ("unix:///run/store.sock?db=1", "", 6379, "/run/store.sock", None, None, 1),
        ("unix://ada:pw@/run/st%20ore.sock", "", 6379, "/run/st ore.sock", "ada", "pw", 0),
    ],
)
def test_a_url_says_where_the_store_is_and_who_asks(
    url: str, host: str, port: int, path: str | None, user: str | None, password: str | None, database: int
) -> None:
    place = address.parse(url)
    assert (place.host, place.port, place.path) == (host, port, path)
    assert (place.user, place.password, place.database) == (user, password, database)
    assert place.tls is None


def test_rediss_checks_certificates() -> None:
    place = address.parse("rediss://cache")
    assert place.tls is not None
    assert place.tls.check_hostname


@pytest.mark.parametrize(
    "url", ["http://cache", "redis://", "redis://cache:port", "redis://cache/zero", "rediss://c?ssl_ca_certs=/no/such"]
)
def test_a_url_that_cannot_be_used_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(StoreRefused):
        address.parse(url)


def test_a_password_is_never_shown() -> None:
    place = address.parse("redis://ada:hidden@cache/1")
    assert "hidden" not in repr(place) + place.shown
