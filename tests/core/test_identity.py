"""Identity: where keys are found, what goes on to the provider, and who a call is."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call import Call
from proxy.core.caller import Caller, KeyInfo
from proxy.core.identity import FoundKey, clean_query, find_key, identify, missing_credential, outgoing_headers
from proxy.core.keys import Caveat, attenuate, make_key, parse
from proxy.core.refusal import CODES, Refusal

KEY = make_key(b"a secret of the server", "abcdefgh2345")
OTHER_KEY = make_key(b"a secret of the server", "zyxwvuts2345")
ADA = KeyInfo(key_id="abcdefgh2345", user="ada", team="payments", org="acme", labels={"cost_center": "7"})
SERVICE = KeyInfo(key_id="abcdefgh2345", user="ci", kind="service", acts_for="dev-*")
NOW_MS = 1_800_000_000_000


def found_in(headers: dict[str, str], query: str = "") -> FoundKey:
    found = find_key(headers, query)
    assert isinstance(found, FoundKey)
    return found


def who(info: KeyInfo = ADA, key: str = KEY, headers: dict[str, str] | None = None, **more: Any) -> Caller | Refusal:
    values: dict[str, Any] = {"path_task": None, "call": Call(), "now_ms": NOW_MS} | more
    return identify(info=info, parsed=parse(key), headers=headers or {}, **values)


def caller(*arguments: Any, **more: Any) -> Caller:
    found = who(*arguments, **more)
    assert isinstance(found, Caller)
    return found


def refusal(*arguments: Any, **more: Any) -> Refusal:
    found = who(*arguments, **more)
    assert isinstance(found, Refusal)
    assert found.code in CODES
    return found


@pytest.mark.parametrize(
    ("headers", "query", "place"),
    [
        ({"authorization": f"Bearer {KEY}"}, "", "authorization"),
        ({"authorization": f"bearer  {KEY} "}, "", "authorization"),
        ({"authorization": KEY}, "", "authorization"),
        ({"x-api-key": KEY}, "", "x-api-key"),
        ({"api-key": KEY}, "", "api-key"),
        ({"x-goog-api-key": KEY}, "", "x-goog-api-key"),
        ({}, f"alt=sse&key={KEY}", "key"),
        ({}, f"%6Bey={KEY.replace('_', '%5F')}", "key"),
        ({"x-callmeter-key": KEY}, "", "x-callmeter-key"),
    ],
)
def test_a_key_is_found_wherever_a_provider_key_goes(headers: dict[str, str], query: str, place: str) -> None:
    assert found_in(headers, query) == FoundKey(key_text=KEY, own_credential=False, place=place)  # type: ignore[arg-type]


def test_a_key_beside_the_callers_own_credential_is_told_apart() -> None:
    found = found_in({"x-callmeter-key": KEY, "authorization": "Bearer sk-own"})
    assert (found.key_text, found.own_credential) == (KEY, True)


def test_a_call_without_a_key_has_none_whatever_else_it_brings() -> None:
    assert found_in({}) == FoundKey(key_text=None, own_credential=False)
    assert found_in({"authorization": "Bearer sk-own"}, "key=AIza") == FoundKey(key_text=None, own_credential=True)
    assert found_in({"authorization": "", "x-callmeter-key": " "}, "key=&key").key_text is None


def test_the_same_key_twice_is_one_key_and_two_different_ones_are_refused() -> None:
    assert found_in({"authorization": f"Bearer {KEY}", "x-api-key": KEY}).key_text == KEY
    found = find_key({"authorization": f"Bearer {KEY}", "x-api-key": OTHER_KEY}, "")
    assert isinstance(found, Refusal)
    assert found.code == "key_invalid"
    assert "`authorization` and `x-api-key`" in found.sentence
    assert KEY not in found.sentence
    assert OTHER_KEY not in found.sentence


def test_what_stands_in_our_own_header_is_taken_for_a_key_and_refused_later() -> None:
    assert found_in({"x-callmeter-key": "sk-own"}).key_text == "sk-own"


def test_a_found_key_does_not_show_in_its_repr() -> None:
    assert KEY not in repr(found_in({"x-api-key": KEY}))


@pytest.mark.parametrize(
    ("dialect", "header_of_caller", "expected"),
    [
        ("openai", "authorization", ("authorization", "Bearer sk-upstream")),
        ("openai", "x-api-key", ("authorization", "Bearer sk-upstream")),
        ("openai", "api-key", ("api-key", "sk-upstream")),
        ("anthropic", "authorization", ("x-api-key", "sk-upstream")),
        ("gemini", "authorization", ("x-goog-api-key", "sk-upstream")),
        ("", "authorization", ("authorization", "Bearer sk-upstream")),
        ("", "x-api-key", ("x-api-key", "sk-upstream")),
    ],
)
def test_the_upstreams_key_goes_where_its_dialect_has_it(
    dialect: str, header_of_caller: str, expected: tuple[str, str]
) -> None:
    sent = {header_of_caller: f"Bearer {KEY}" if header_of_caller == "authorization" else KEY}
    outgoing = outgoing_headers(sent.items(), found=found_in(sent), dialect=dialect, upstream_key="sk-upstream")
    assert outgoing == [expected]


def test_the_callers_own_credential_wins_over_the_upstreams_key() -> None:
    sent = {"x-callmeter-key": KEY, "Authorization": "Bearer sk-own"}
    found = found_in({name.lower(): value for name, value in sent.items()})
    outgoing = outgoing_headers(sent.items(), found=found, dialect="anthropic", upstream_key="sk-upstream")
    assert outgoing == [("Authorization", "Bearer sk-own")]


def test_a_credential_is_missing_when_neither_side_has_one() -> None:
    ours_alone = found_in({"x-api-key": KEY})
    both = found_in({"x-callmeter-key": KEY, "x-api-key": "sk-own"})
    assert missing_credential(ours_alone, "sk-upstream", "openai") is None
    assert missing_credential(both, None, "openai") is None
    missing = missing_credential(ours_alone, None, "openai")
    assert missing is not None
    assert missing.code == "credential_missing"
    assert "`openai`" in missing.sentence


def test_only_what_is_the_providers_business_goes_on() -> None:
    sent = [
        ("Host", "proxy.example"),
        ("Connection", "close, X-Hop"),
        ("x-hop", "1"),
        ("Keep-Alive", "5"),
        ("Transfer-Encoding", "chunked"),
        ("TE", "trailers"),
        ("Content-Length", "2"),
        ("Accept-Encoding", "br"),
        ("Expect", "100-continue"),
        ("X-Callmeter-Task", "PAY-7"),
        ("x-callmeter-key", KEY),
        ("Authorization", f"Bearer {KEY}"),
        ("baggage", "task.id=PAY-7"),
        ("traceparent", "00-1-1-01"),
        ("tracestate", "a=1"),
        ("Cookie", "a=1"),
        ("X-Debug", f"my key is {KEY}"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a"),
        ("anthropic-beta", "b"),
        ("session-id", "1"),
    ]
    found = found_in({name.lower(): value for name, value in sent})
    assert outgoing_headers(sent, found=found, dialect="openai", upstream_key=None) == [
        ("Cookie", "a=1"),
        ("anthropic-version", "2023-06-01"),
        ("anthropic-beta", "a"),
        ("anthropic-beta", "b"),
        ("session-id", "1"),
    ]


PLACES = ["Authorization", "x-api-key", "api-key", "x-goog-api-key", "x-callmeter-key", "x-other", "Cookie"]


@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from([KEY, f"Bearer {KEY}", "sk-own"])), max_size=6))
def test_a_key_never_goes_on_from_any_place(sent: list[tuple[str, str]]) -> None:
    found = find_key({name.lower(): value for name, value in sent}, f"key={KEY}")
    if isinstance(found, FoundKey):
        outgoing = outgoing_headers(sent, found=found, dialect="openai", upstream_key="sk-upstream")
        assert not any(KEY in value for _, value in outgoing)


@pytest.mark.parametrize(
    ("query", "cleaned"),
    [
        ("", ""),
        ("alt=sse", "alt=sse"),
        (f"key={KEY}", ""),
        (f"alt=sse&key={KEY}&a=%20b", "alt=sse&a=%20b"),
        (f"%6Bey={KEY.replace('_', '%5f')}&x", "x"),
        (f"debug=x{KEY}", ""),
        ("key=AIza&flag&a=1&a=2", "key=AIza&flag&a=1&a=2"),
        (f"key={OTHER_KEY}", ""),
    ],
)
def test_a_query_loses_our_key_and_nothing_else(query: str, cleaned: str) -> None:
    assert clean_query(query, KEY) == cleaned


def in_basic(user: str, password: str, word: str = "Basic") -> str:
    return f"{word} " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        in_basic("git", KEY),
        in_basic(KEY, ""),
        in_basic(KEY, "x-oauth-basic"),
        in_basic("a", KEY, "basic"),
        in_basic("ab", KEY, "BASIC "),
        in_basic("git", KEY).rstrip("="),
        in_basic("\u00e9\u00ff", KEY).replace("+", "-").replace("/", "_"),
    ],
)
def test_a_key_in_basic_is_a_key_and_never_a_credential_of_the_callers_own(value: str) -> None:
    assert found_in({"authorization": value}) == FoundKey(key_text=KEY, own_credential=False, place="authorization")
    sent = {"x-callmeter-key": KEY, "Authorization": value, "x-api-key": "sk-own"}
    found = found_in({name.lower(): value for name, value in sent.items()})
    assert (found.key_text, found.own_credential) == (KEY, True)
    assert outgoing_headers(sent.items(), found=found, dialect="openai", upstream_key=None) == [("x-api-key", "sk-own")]


def test_a_task_key_in_basic_is_found_whole() -> None:
    key = attenuate(KEY, [Caveat("task", "PAY-7")])
    assert found_in({"authorization": in_basic("git", key)}).key_text == key


def test_another_key_in_basic_is_a_second_key() -> None:
    for headers in (
        {"authorization": in_basic("git", OTHER_KEY), "x-callmeter-key": KEY},
        {"authorization": in_basic(OTHER_KEY, KEY)},
    ):
        found = find_key(headers, "")
        assert isinstance(found, Refusal)
        assert found.code == "key_invalid"


def test_a_credential_of_the_callers_own_in_basic_passes() -> None:
    for value in (in_basic("ada", "secret"), "Basic !!", "Basic a", "Basic"):
        sent = {"x-callmeter-key": KEY, "Authorization": value}
        found = found_in({name.lower(): value for name, value in sent.items()})
        assert found.own_credential
        outgoing = outgoing_headers(sent.items(), found=found, dialect="openai", upstream_key="sk")
        assert outgoing == [("Authorization", value)]


@pytest.mark.parametrize("key", [KEY, OTHER_KEY], ids=["this one", "another"])
@pytest.mark.parametrize("name", ["X-Forwarded-Authorization", "Cookie"])
def test_no_header_carries_a_key_in_basic_to_the_provider(name: str, key: str) -> None:
    sent = [("x-callmeter-key", KEY), (name, f"of old: {in_basic('git', key)}; more"), ("x-other", "1")]
    found = found_in({"x-callmeter-key": KEY})
    assert outgoing_headers(sent, found=found, dialect="openai", upstream_key=None) == [("x-other", "1")]


@given(st.binary(max_size=9), st.binary(max_size=9), st.booleans())
def test_the_key_of_a_call_never_goes_on_within_base64(before: bytes, after: bytes, for_urls: bool) -> None:
    encode = base64.urlsafe_b64encode if for_urls else base64.b64encode
    value = encode(before + KEY.encode() + after).decode().rstrip("=")
    found = found_in({"x-callmeter-key": KEY})
    assert outgoing_headers([("x-debug", value)], found=found, dialect="openai", upstream_key=None) == []
    assert clean_query(f"a=1&debug={value}", KEY) == "a=1"


def test_user_team_and_org_come_from_the_key() -> None:
    headers = {"x-callmeter-team": "other", "x-callmeter-org": "other", "baggage": "user.id=bob"}
    found = caller(headers=headers)
    assert (found.org, found.team, found.user, found.key_id) == ("acme", "payments", "ada", "abcdefgh2345")
    assert found.labels == {"cost_center": "7"}


def test_a_person_can_call_for_nobody_else() -> None:
    no = refusal(headers={"x-callmeter-user": "bob"})
    assert no.code == "not_allowed"
    assert "`bob`" in no.sentence
    assert caller(headers={"x-callmeter-user": "ada"}).user == "ada"


def test_a_service_acts_for_the_users_that_it_may() -> None:
    assert caller(SERVICE, headers={"x-callmeter-user": "dev-bob"}).user == "dev-bob"
    assert caller(SERVICE).user == "ci"
    assert refusal(SERVICE, headers={"x-callmeter-user": "ada"}).code == "not_allowed"
    nobody = KeyInfo(key_id="abcdefgh2345", user="ci", kind="service")
    assert refusal(nobody, headers={"x-callmeter-user": "ada"}).code == "not_allowed"
    assert refusal(SERVICE, headers={"x-callmeter-user": "dev-\x00"}).code == "body_invalid"


def test_an_agent_with_a_task_key_cannot_choose_its_user() -> None:
    key = attenuate(KEY, [Caveat("task", "PAY-7")])
    assert refusal(SERVICE, key, headers={"x-callmeter-user": "dev-bob"}).code == "not_allowed"


def test_an_agent_with_a_task_key_cannot_choose_its_task() -> None:
    key = attenuate(KEY, [Caveat("task", "PAY-7")])
    found = caller(ADA, key, headers={"x-callmeter-task": "OTHER"}, path_task="OTHER", call=Call(task="OTHER"))
    assert (found.task, found.task_source) == ("PAY-7", "key")


def test_what_a_task_key_narrows_is_told_to_the_policy() -> None:
    key = attenuate(KEY, [Caveat("models", ("gpt-*", "o*")), Caveat("upstreams", ("openai",)), Caveat("max_cost", 9)])
    found = caller(ADA, key)
    assert found.models == (("gpt-*", "o*"),)
    assert found.upstreams == (("openai",),)
    assert list(found.max_cost_nusd.values()) == [9]
    assert found.task_source == "none"


def test_a_revoked_key_is_invalid_and_an_expired_one_has_expired() -> None:
    assert refusal(KeyInfo(key_id="a", user="ada", revoked_at_ms=1)).code == "key_invalid"
    assert refusal(KeyInfo(key_id="a", user="ada", expires_at_ms=NOW_MS)).code == "key_expired"
    assert caller(KeyInfo(key_id="a", user="ada", expires_at_ms=NOW_MS + 1)).user == "ada"


def test_an_expired_task_key_has_expired() -> None:
    key = attenuate(KEY, [Caveat("expires", NOW_MS)])
    no = refusal(ADA, key)
    assert no.code == "key_expired"
    assert "callmeter task" in no.sentence
    assert caller(ADA, key, now_ms=NOW_MS - 1).user == "ada"


def test_a_tag_that_cannot_be_is_a_fault_of_the_call() -> None:
    no = refusal(headers={"x-callmeter-task": "x" * 129})
    assert no.code == "body_invalid"
    assert "`x-callmeter-task`" in no.sentence


def test_the_callers_trace_is_joined_also_when_it_is_not_sampled() -> None:
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    found = caller(headers={"traceparent": f"00-{trace}-{span}-00", "tracestate": "a=1"})
    assert (found.trace_id, found.parent_span_id, found.trace_flags, found.trace_state) == (trace, span, 0, "a=1")


def test_a_broken_trace_is_as_if_it_had_not_been_sent() -> None:
    found = caller(headers={"traceparent": "broken", "tracestate": "a=1"})
    assert (found.trace_id, found.parent_span_id, found.trace_flags, found.trace_state) == ("", None, 1, "")
