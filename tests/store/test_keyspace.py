from __future__ import annotations

import re

import pytest

from proxy.store.keyspace import KEYS, SHARDS, shard_of
from proxy.store.script import SCRIPTS


def test_all_keys_of_a_shard_share_its_hash_tag() -> None:
    for shard, keys in enumerate(KEYS):
        names = (keys.epoch, keys.holds, keys.drafts, keys.records, keys.settled("c{1}"), keys.later("u", "{x}"))
        names += (keys.spent("{o}", "c", "0"), keys.held("{o}", "c", "0"), keys.seeded("{o}", "c", "0", "seed"))
        assert all(name.startswith(f"{{cm:{shard:02d}}}:") for name in names)


def test_an_org_stays_in_its_shard_for_ever() -> None:
    # Part of what stands in stores: if these change, every running store is split in two.
    assert [shard_of(org) for org in ("default", "acme", "globex", "Ærø")] == [31, 62, 58, 60]


def test_orgs_spread_over_all_shards() -> None:
    assert {shard_of(f"org-{number}") for number in range(1000)} == set(range(SHARDS))


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_says_what_it_takes_and_touches_only_the_keys_it_was_given(name: str) -> None:
    source = SCRIPTS[name].source
    header = source.partition("\n\n")[0]
    assert header.startswith(f"-- {name}: ")
    assert all(re.search(rf"^-- {word} ", header, re.MULTILINE) for word in ("KEYS", "ARGV", "Reply"))
    for arguments in re.findall(r"redis\.call\('[A-Z]+', (?:'STREAM', )?([^,)]+)", source):
        # `rest` and `word`: keys that `reserve` was given for a call's marks, and wrote down beside its hold.
        assert arguments.startswith(("KEYS[", "unpack(KEYS", "rest", "word"))


def test_scripts_are_part_of_the_package() -> None:
    assert {"reserve", "extend", "settle", "release", "renew", "expired", "epoch", "counters", "seed"} <= SCRIPTS.keys()
