"""A house that takes care: of what others may read, of what it cannot read, and of a store that is not its own."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.store.embedded import ask, socket_path
from proxy.store.keyspace import IDENTITY, KEYS, shard_of
from tests.support.house import House, Providers, eventually, own_house

CHAT = "/openai/v1/chat/completions"
PLAIN = {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}

pytestmark = pytest.mark.xdist_group("careful")


@pytest.fixture(scope="module")
def careful(providers: Providers) -> Iterator[House]:
    """A house whose data directory was there before, open to everyone."""
    house = House(providers)
    house.data.mkdir(mode=0o755)
    try:
        house.start()
        yield house
        assert "Traceback" not in house.log, house.log
    finally:
        house.remove()


def tell_store(house: House, *command: str) -> object:
    return asyncio.run(ask(socket_path(house.data), *command))


def test_nothing_in_the_data_directory_can_be_read_by_others(careful: House) -> None:
    ada = careful.caller()
    assert ada.post(CHAT, PLAIN).status == 200
    ada.record()
    places = [careful.data, *careful.data.rglob("*")]
    names = {path.name for path in places}
    assert {"ledger.db", "valkey.log", "prices.book", "appendonlydir", "secret", "admin.token"} <= names
    open_to_others = [str(path) for path in places if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert open_to_others == []


@pytest.mark.parametrize("fields", [("r", "no record", "v", "1"), ("what", "ever")])
def test_an_entry_that_cannot_be_read_is_set_aside_and_holds_up_nothing(careful: House, fields: tuple[str]) -> None:
    keys = KEYS[shard_of("default")]
    epoch = tell_store(careful, "GET", keys.epoch)
    assert isinstance(epoch, bytes)
    tell_store(careful, "XADD", keys.records, "*", *fields, "e", epoch.decode())
    ada = careful.caller()
    assert ada.post(CHAT, PLAIN).status == 200
    ada.record()
    aside = careful.data / "set-aside.records"
    last = eventually(lambda: aside.exists() and json.loads(aside.read_text().splitlines()[-1]), "nothing set aside")
    assert fields[1] in last["data"]
    eventually(lambda: tell_store(careful, "XLEN", keys.records) == 0, "it stays in the stream")
    assert careful.log.count(f"the first is {last['id']}") == 1


def test_a_store_that_became_another_installations_ends_everything(careful: House) -> None:
    tell_store(careful, "HSET", IDENTITY, "ledger", "of somebody else")
    assert careful.process is not None
    assert careful.wait() == 1
    assert "belongs to another ledger" in careful.log
    assert "cannot go on with these settings" in careful.log


def test_a_ledger_that_is_away_at_the_first_start_is_waited_for(providers: Providers) -> None:
    house = House(providers)
    place = house.folder / "later"
    house.environ["CALLMETER_LEDGER_URL"] = f"sqlite:///{place / 'ledger.db'}"
    try:
        house.start()
        answer = house.admin("GET", "/readyz")
        assert answer.status == 503
        assert "ledger" in answer.json["faults"]
        assert house.admin("GET", "/healthz").status == 200
        assert house.admin("GET", "/api/keys").status == 503
        assert "the ledger cannot be reached" in house.log
        place.mkdir()
        eventually(lambda: is_ready(house), "it does not begin")
        ada = house.caller()
        eventually(lambda: ada.post(CHAT, PLAIN).status == 200, "calls do not pass")
        assert {record["result"] for record in ada.records()} <= {"ok", "refused"}
        assert house.stop() == 0
        assert "Traceback" not in house.log
    finally:
        house.remove()


def is_ready(house: House) -> bool:
    try:
        return house.admin("GET", "/readyz").status == 200
    except OSError:
        return False  # between the port that waits and the one that serves


def test_a_second_house_on_the_same_store_with_another_ledger_does_not_start(
    providers: Providers, tmp_path: Path
) -> None:
    with own_house(providers) as house:
        stranger = House(providers, CALLMETER_REDIS_URL=f"unix://{socket_path(house.data)}")
        try:
            with pytest.raises(AssertionError, match="belongs to another ledger"):
                stranger.start()
            assert stranger.wait() == 1
        finally:
            stranger.remove()
