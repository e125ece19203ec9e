"""Envelopes: what path and headers tell is worked out once for calls alike, and never told of another."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxy.core.call import Call
from proxy.core.caller import Caller, KeyInfo
from proxy.core.identity import FoundKey
from proxy.core.keys import make_key, parse
from proxy.core.policy import Policy, Upstream
from proxy.core.record import Record
from proxy.core.refusal import Refusal
from proxy.edge.arrival import Arrivals
from proxy.edge.envelope import Envelope, Envelopes
from proxy.edge.flight import Flight, Refused
from proxy.edge.keyring import KeyRing, Known
from proxy.edge.request import Request

ADA, BEN = (make_key(b"a secret of the server", key_id) for key_id in ("abcdefgh2345", "zyxwvuts2345"))
SIM = Upstream(name="sim", dialect="openai", provider="openai", url="http://127.0.0.1:9", key="sk-upstream")
PATH = "/sim/v1/chat/completions"


def policy(**fields: Any) -> Policy:
    return Policy(upstreams={"sim": SIM}, **fields)


def opened(envelopes: Envelopes, rules: Policy, path: str = PATH, key: str | None = ADA, **more: str) -> Envelope:
    headers = {"Content-Length": "5", **{name.replace("_", "-"): value for name, value in more.items()}}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    raw = tuple((name.encode(), value.encode()) for name, value in headers.items())
    return envelopes.open(rules, Request(cast(Any, None), "POST", path, raw))


def test_calls_that_differ_in_the_length_of_their_body_share_an_envelope() -> None:
    envelopes, rules = Envelopes(), policy()
    first = opened(envelopes, rules)
    assert opened(envelopes, rules, Content_Length="70000") is first
    assert first.upstream is SIM
    assert isinstance(first.found, FoundKey)
    assert first.found.key_text == ADA


@pytest.mark.parametrize(
    "other",
    [{"key": BEN}, {"path": "/sim/v1/responses"}, {"x_callmeter_task": "PAY-7"}, {"accept_encoding": "gzip"}],
)
def test_calls_that_differ_in_anything_else_do_not(other: dict[str, str]) -> None:
    envelopes, rules = Envelopes(), policy()
    assert opened(envelopes, rules, **other) is not opened(envelopes, rules)


def test_a_policy_that_changed_is_asked_anew() -> None:
    envelopes = Envelopes()
    first = opened(envelopes, policy(version="1"))
    moved = Policy(version="2", upstreams={"sim": Upstream(name="sim", dialect="openai", url="http://127.0.0.1:10")})
    second = opened(envelopes, moved)
    assert second is not first
    assert second.upstream is not None
    assert second.upstream.url.endswith(":10")


@pytest.mark.parametrize("other", [{"key": None}, {"path": "/nobody/v1/x"}, {"path": "/sim/../v1/x"}])
def test_what_leads_to_no_call_is_not_remembered(other: dict[str, Any]) -> None:
    envelopes, rules = Envelopes(), policy()
    first = opened(envelopes, rules, **other)
    assert opened(envelopes, rules, **other) is not first
    assert first.wrong is not None or first.upstream is None or isinstance(first.found, Refusal)


def test_the_headers_of_an_envelope_are_those_of_every_call_that_shares_it() -> None:
    headers = opened(Envelopes(), policy(), X_Other="1").headers
    assert headers["x-other"] == "1"
    assert "content-length" not in headers, "it differs from call to call"


def test_who_calls_is_told_anew_where_the_body_says_another_task_and_where_the_key_has_expired() -> None:
    rules, arrivals = policy(), Arrivals(cast("KeyRing", None))
    known = Known(KeyInfo(key_id="abcdefgh2345", user="ada", expires_at_ms=1_000), parse(ADA))
    envelope = opened(Envelopes(), rules)

    def caller(at_ms: int = 0, **call: Any) -> Caller:
        record = Record(call_id="0" * 32, at_ms=at_ms, user="", key_id="")
        flight = Flight(request=cast("Request", None), record=record, started_s=0.0)
        return arrivals.caller(
            flight, Known(*known), envelope, Call(**call)
        )  # a new pair for each call, as the ring has it

    first = caller(task="PAY-7")
    assert caller(task="PAY-7") is first
    assert caller(task="PAY-8").task == "PAY-8"
    assert caller(task="PAY-8", session="s1").session == "s1"
    with pytest.raises(Refused) as refused:
        caller(at_ms=1_000, task="PAY-8", session="s1")
    assert refused.value.refusal.code == "key_expired"


def test_what_is_very_long_is_not_remembered() -> None:
    envelopes, rules = Envelopes(), policy()
    assert opened(envelopes, rules, x_other="v" * 17_000) is not opened(envelopes, rules, x_other="v" * 17_000)


def test_the_lines_that_go_on_hold_the_credential_of_the_upstream_and_not_our_key() -> None:
    lines = opened(Envelopes(), policy(), x_other="1").lines("openai")
    assert lines == "x-other: 1\r\nauthorization: Bearer sk-upstream\r\naccept-encoding: identity\r\n"


def test_an_envelope_does_not_show_its_credentials() -> None:
    envelope = opened(Envelopes(), policy())
    envelope.lines("openai")
    assert ADA not in repr(envelope)
    assert "sk-upstream" not in repr(envelope)


def test_what_it_says_beside_its_body_has_the_callers_own_credential_but_neither_key_nor_task() -> None:
    envelopes, rules = Envelopes(), policy()
    first = opened(envelopes, rules).beside
    assert opened(envelopes, rules, key=BEN, x_callmeter_task="PAY-7", user_agent="other").beside == first
    assert opened(envelopes, rules, f"{PATH}?key={BEN}", key=None).beside == first
    own = [opened(envelopes, rules, x_api_key=key).beside for key in ("sk-1", "sk-2")]
    assert len({first, *own, opened(envelopes, rules, f"{PATH}?key=sk-1").beside}) == 4


def test_retries_are_told_by_the_envelope_as_its_headers_say() -> None:
    envelopes, rules = Envelopes(), policy()
    assert opened(envelopes, rules).retry[1] == 0
    assert opened(envelopes, rules, x_stainless_retry_count="2").retry[1] == 2


def test_a_websocket_is_refused_and_not_passed_on_as_something_else() -> None:
    wrong = opened(Envelopes(), policy(), upgrade="WebSocket").wrong
    assert wrong is not None
    assert opened(Envelopes(), policy(), Sec_WebSocket_Key="x").wrong == wrong
    assert opened(Envelopes(), policy(), upgrade="h2c").wrong is None
    assert (
        wrong.sentence == "Callmeter relays no WebSockets, which could not be metered; use the provider's API over HTTP"
    )
