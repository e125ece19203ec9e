"""Keys and task keys: their one text, their signature, and that a caveat can only narrow."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.keys import (
    CAVEATS_MAX,
    KEY_CHARS_MAX,
    Caveat,
    KeyInvalid,
    ParsedKey,
    attenuate,
    expiry_ms,
    make_key,
    new_key_id,
    parse,
    verify,
)

SECRET = b"a secret of the server, 32 bytes"
OLD_SECRET = b"the secret that was in use before"
KEY_ID = "abcdefgh2345"
KEY = make_key(SECRET, KEY_ID)

TAG_CHARACTERS = string.ascii_letters + string.digits + "-_./*ßü"
tags = st.text(TAG_CHARACTERS, min_size=1, max_size=12)
globs = st.lists(tags, min_size=1, max_size=3).map(tuple)
caveats = st.one_of(
    st.builds(Caveat, st.just("expires"), st.integers(0, 10**13)),
    st.builds(Caveat, st.just("max_cost"), st.integers(0, 10**12)),
    st.builds(Caveat, st.just("models"), globs),
    st.builds(Caveat, st.just("upstreams"), globs),
)
caveat_lists = st.lists(caveats, min_size=1, max_size=4)


def is_accepted(text: str) -> bool:
    try:
        return verify(parse(text), [SECRET])
    except KeyInvalid:
        return False


def task_key_of(items: object, *, mac: str = "0" * 64) -> str:
    data = items if isinstance(items, bytes) else json.dumps(items, separators=(",", ":")).encode()
    return f"cm_{KEY_ID}.{base64.urlsafe_b64encode(data).decode().rstrip('=')}.{mac}"


def test_a_key_is_read_and_verified() -> None:
    parsed = parse(KEY)
    assert parsed.key_id == KEY_ID
    assert not parsed.is_task_key
    assert verify(parsed, [SECRET])


def test_the_secret_of_a_key_is_what_the_documentation_says() -> None:
    expected = hmac.new(SECRET, b"\x01" + KEY_ID.encode(), hashlib.sha256).hexdigest()
    assert f"cm_{KEY_ID}_{expected}" == KEY
    assert "_" not in expected


def test_a_task_key_is_what_the_documentation_says() -> None:
    caveat = b'{"task":"PAY-7"}'
    mac = hmac.new(bytes.fromhex(KEY.rsplit("_", 1)[1]), len(caveat).to_bytes(4, "big") + caveat, hashlib.sha256)
    expected = task_key_of(b"[" + caveat + b"]", mac=mac.hexdigest())
    assert attenuate(KEY, [Caveat("task", "PAY-7")]) == expected


def test_all_secrets_verify_and_the_first_makes_keys() -> None:
    old_key = make_key(OLD_SECRET, KEY_ID)
    assert verify(parse(old_key), [SECRET, OLD_SECRET])
    assert verify(parse(KEY), [SECRET, OLD_SECRET])
    assert not verify(parse(old_key), [SECRET])
    assert not verify(parse(KEY), [])


def test_a_new_id_is_long_enough_and_needs_enough_randomness() -> None:
    key_id = new_key_id(bytes(range(10)))
    assert len(key_id) == 16
    assert is_accepted(make_key(SECRET, key_id))
    with pytest.raises(ValueError, match="10 random bytes"):
        new_key_id(b"short")


@pytest.mark.parametrize("key_id", ["short", "UPPERCASE2345", "with_underscore", "", "abc.defghijkl"])
def test_a_key_is_not_made_for_an_id_that_cannot_be_read_again(key_id: str) -> None:
    with pytest.raises(ValueError, match="no key id"):
        make_key(SECRET, key_id)


@given(st.data())
def test_a_key_with_any_character_changed_added_or_taken_away_is_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([KEY, attenuate(KEY, [Caveat("task", "PAY-7"), Caveat("max_cost", 5)])]))
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(string.printable + "é\x00").filter(lambda character: character != text[place]))
    assert not is_accepted(text[:place] + other + text[place + 1 :])
    assert not is_accepted(text[:place] + other + text[place:])
    assert not is_accepted(text[:place])
    assert not is_accepted(text[:place] + text[place + 1 :])
    assert not is_accepted(text + other)


@given(st.text())
def test_no_text_raises_anything_but_key_invalid(text: str) -> None:
    assert not is_accepted(text)
    assert not is_accepted(f"cm_{KEY_ID}.{text}.{'0' * 64}")


@given(st.binary(max_size=200))
def test_no_caveats_raise_anything_but_key_invalid(data: bytes) -> None:
    assert not is_accepted(task_key_of(data))


def test_caveats_nested_ever_deeper_are_refused_without_harm() -> None:
    assert not is_accepted(task_key_of(b"[" * 2900))


@given(caveat_lists, caveat_lists)
def test_a_task_key_verifies_and_is_the_same_made_at_once_or_step_by_step(
    first: list[Caveat], second: list[Caveat]
) -> None:
    text = attenuate(attenuate(KEY, first), second)
    assert text == attenuate(KEY, [*first, *second])
    assert is_accepted(text)
    assert parse(text).caveats == (*first, *second)


@given(caveat_lists, caveat_lists)
def test_a_caveat_can_only_narrow(first: list[Caveat], second: list[Caveat]) -> None:
    wide, narrow = parse(attenuate(KEY, first)), parse(attenuate(KEY, [*first, *second]))
    if wide.expires_at_ms is not None:
        assert narrow.expires_at_ms is not None
        assert narrow.expires_at_ms <= wide.expires_at_ms
    assert narrow.models[: len(wide.models)] == wide.models
    assert narrow.upstreams[: len(wide.upstreams)] == wide.upstreams
    assert wide.max_cost_nusd.items() <= narrow.max_cost_nusd.items()


@given(caveat_lists, st.data())
def test_no_caveat_can_be_taken_away_or_moved(chain: list[Caveat], data: st.DataObject) -> None:
    text = attenuate(KEY, chain)
    mac = text.rsplit(".", 1)[1]
    other = data.draw(st.lists(st.sampled_from(chain), max_size=len(chain)))
    items = [{caveat.kind: caveat.value} for caveat in other]
    forged = task_key_of(json.dumps(items, separators=(",", ":"), ensure_ascii=False).encode(), mac=mac)
    assert is_accepted(forged) == (other == chain)


def test_the_mac_of_a_task_key_is_no_key() -> None:
    mac = attenuate(KEY, [Caveat("task", "PAY-7")]).rsplit(".", 1)[1]
    assert not is_accepted(f"cm_{KEY_ID}_{mac}")
    assert not is_accepted(task_key_of([], mac=KEY.rsplit("_", 1)[1]))


def test_a_second_task_conflicts_and_the_same_task_does_not() -> None:
    text = attenuate(KEY, [Caveat("task", "PAY-7")])
    assert parse(attenuate(text, [Caveat("task", "PAY-7")])).task == "PAY-7"
    with pytest.raises(KeyInvalid, match="for task `PAY-7` and cannot be narrowed to `PAY-8`"):
        attenuate(text, [Caveat("task", "PAY-8")])


def test_adding_caveats_opens_no_fresh_budget() -> None:
    text = attenuate(KEY, [Caveat("task", "PAY-7"), Caveat("max_cost", 5_000_000_000)])
    chains = parse(text).max_cost_nusd
    assert list(chains.values()) == [5_000_000_000]
    assert parse(attenuate(text, [Caveat("expires", 10**12), Caveat("models", ("gpt-*",))])).max_cost_nusd == chains
    smaller = parse(attenuate(text, [Caveat("max_cost", 1)])).max_cost_nusd
    assert chains.items() < smaller.items()


def test_two_keys_with_equal_caveats_have_counters_of_their_own() -> None:
    other = make_key(SECRET, "zyxwvuts2345")
    limit = [Caveat("max_cost", 1)]
    assert parse(attenuate(KEY, limit)).max_cost_nusd.keys() != parse(attenuate(other, limit)).max_cost_nusd.keys()


def test_the_earliest_expiry_counts_in_either_spelling() -> None:
    text = attenuate(KEY, [Caveat("expires", "2026-11-23T10:00:00+01:00"), Caveat("expires", 1_900_000_000_000)])
    assert parse(text).expires_at_ms == 1_795_424_400_000


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{}],
        [{"task": "a", "models": ["b"]}],
        [{"tool": "bash"}],
        [{"task": 7}],
        [{"task": ""}],
        [{"task": " a"}],
        [{"task": "a\nb"}],
        [{"task": "x" * 129}],
        [{"expires": -1}],
        [{"expires": "tomorrow"}],
        [{"expires": "2026-11-23T10:00:00"}],
        [{"max_cost": 1.5}],
        [{"max_cost": True}],
        [{"max_cost": -5}],
        [{"max_cost": 10**30}],
        [{"max_cost": "$5"}],
        [{"models": "gpt-*"}],
        [{"models": []}],
        [{"models": [""]}],
        {"task": "a"},
        [["task", "a"]],
        [{"expires": 1}] * (CAVEATS_MAX + 1),
    ],
)
def test_a_caveat_that_cannot_be_or_is_not_known_refuses(items: object) -> None:
    with pytest.raises(KeyInvalid):
        parse(task_key_of(items))


@pytest.mark.parametrize(
    "data", [b'[{"task": "a"}]', b'[{"task":"a","task":"b"}]', b'[{"task":"\\u0061"}]', b"nothing"]
)
def test_caveats_in_another_than_the_canonical_form_are_refused(data: bytes) -> None:
    with pytest.raises(KeyInvalid):
        parse(task_key_of(data))


def test_bounds_hold_when_a_task_key_is_made() -> None:
    with pytest.raises(KeyInvalid, match="at least one"):
        attenuate(KEY, [])
    with pytest.raises(KeyInvalid, match=f"at most {CAVEATS_MAX}"):
        attenuate(KEY, [Caveat("max_cost", 1)] * (CAVEATS_MAX + 1))
    with pytest.raises(KeyInvalid, match=f"longer than {KEY_CHARS_MAX}"):
        attenuate(KEY, [Caveat("models", tuple("x" * 120 for _ in range(30)))])
    with pytest.raises(KeyInvalid, match=f"longer than {KEY_CHARS_MAX}"):
        parse("cm_" + "x" * KEY_CHARS_MAX)


def test_no_secret_shows_in_a_repr_or_an_error() -> None:
    parsed: ParsedKey = parse(attenuate(KEY, [Caveat("task", "PAY-7")]))
    assert parsed.mac.hex() not in repr(parsed)
    assert repr(parsed.mac) not in repr(parsed)
    with pytest.raises(KeyInvalid) as raised:
        parse(KEY + "x")
    assert KEY not in str(raised.value)


def test_an_expiry_is_a_duration_or_a_time() -> None:
    now_ms = 1_800_000_000_000
    assert expiry_ms("90d", now_ms) == now_ms + 90 * 86_400_000
    assert expiry_ms("8h", now_ms) == now_ms + 8 * 3_600_000
    assert expiry_ms("2027-01-15T08:00:01Z", now_ms) == now_ms + 1_000


@pytest.mark.parametrize("text", ["", "soon", "0d", "-1d", "1.5h", "2020-01-01T00:00:00Z", "9999999w", "2027-01-16"])
def test_an_expiry_that_is_no_time_or_past_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=f"`{text}`"):
        expiry_ms(text, 1_800_000_000_000)
