"""Keys: what they stand for is kept for good, and every change can be followed by its version."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from proxy.core.caller import KeyInfo
from proxy.ledger.database import Ledger, open_ledger
from proxy.ledger.keys import KeyExists


def info(key_id: str, **changes: Any) -> KeyInfo:
    fields: dict[str, Any] = {"user": "ada", "labels": {"cost_center": "4711"}, "created_at_ms": 1}
    return KeyInfo(key_id=key_id, **(fields | changes))


def test_a_key_is_found_again_with_all_that_it_stands_for(ledger: Ledger) -> None:
    created = ledger.keys.create(info("a", kind="service", acts_for="ci-*", expires_at_ms=99))
    assert created.version == 1
    assert ledger.keys.get("a") == created
    assert ledger.keys.get("b") is None


def test_keys_outlive_the_process(ledger: Ledger, ledger_url: str) -> None:
    created = ledger.keys.create(info("a"))
    again = open_ledger(ledger_url)
    assert again.keys.list() == [created]
    again.close()


def test_keys_are_listed_by_name(ledger: Ledger) -> None:
    ledger.keys.create_all([info("x", user="cy"), info("y", user="ada"), info("z", user="bob", org="acme")])
    assert [key.user for key in ledger.keys.list()] == ["bob", "ada", "cy"]


def test_what_a_key_stands_for_can_change_but_not_whose_it_is(ledger: Ledger) -> None:
    ledger.keys.create(info("a"))
    changed = ledger.keys.update("a", team="search", labels={}, expires_at_ms=5)
    assert changed is not None
    assert (changed.team, changed.labels, changed.expires_at_ms, changed.version) == ("search", {}, 5, 2)
    assert ledger.keys.get("a") == changed
    assert ledger.keys.update("missing", team="search") is None
    with pytest.raises(ValueError, match="`user` of a key cannot be changed"):
        ledger.keys.update("a", user="bob")


def test_a_revoked_key_stays_revoked_at_its_first_time(ledger: Ledger) -> None:
    ledger.keys.create(info("a"))
    revoked = ledger.keys.revoke("a", 7)
    assert revoked is not None
    assert (revoked.revoked_at_ms, revoked.version) == (7, 2)
    assert ledger.keys.revoke("a", 8) == revoked
    assert ledger.keys.revoke("missing", 8) is None


def test_each_change_is_a_version_of_its_own(ledger: Ledger) -> None:
    ledger.keys.create_all([info("a"), info("b"), info("c")])
    ledger.keys.revoke("a", 7)
    assert {key.key_id: key.version for key in ledger.keys.list()} == {"b": 2, "c": 3, "a": 4}


def test_an_import_with_one_key_twice_makes_none(ledger: Ledger) -> None:
    ledger.keys.create(info("a"))
    with pytest.raises(KeyExists):
        ledger.keys.create_all([info("b"), info("a")])
    assert [key.key_id for key in ledger.keys.list()] == ["a"]
    assert ledger.keys.create(info("c")).version == 2


def test_many_who_change_keys_at_once_never_share_a_version(ledger: Ledger) -> None:
    threads = [
        threading.Thread(target=lambda n=n: [ledger.keys.create(info(f"k{n}-{i}")) for i in range(5)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.version for key in ledger.keys.list()) == list(range(1, 21))
