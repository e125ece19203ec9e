"""Who sent a delivery: only what fits the rule's secret is taken, and a Standard Webhook only while it is young."""

from __future__ import annotations

import base64

import pytest
from multidict import CIMultiDict

from proxy.core.outcomes import Origin, OutcomeRule
from proxy.wire.webhooks import SignatureInvalid, check
from tests.support.deliveries import AT_MS, MINUTE, SECRET, STANDARD_KEY, STANDARD_SECRET, github, merged, standard


def rule(origin: Origin, secret: str = SECRET) -> OutcomeRule:
    return OutcomeRule(name="r", origin=origin, secret=secret, event="x", accepted_after_ms=0)


def test_github_signs_the_body_with_the_secret() -> None:
    body, headers = github(merged(), delivery="72d3162e")
    assert check(rule("github"), CIMultiDict(headers), body, 0) == "72d3162e"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x-hub-signature-256": ""}, "is missing"),
        ({"x-hub-signature-256": "sha256="}, "is missing"),
        ({"x-hub-signature-256": "sha1=00"}, "is missing"),
        ({"x-hub-signature-256": "sha256=" + "0" * 64}, "does not fit"),
        ({"x-hub-signature-256": "sha256=ü"}, "does not fit"),
    ],
)
def test_github_without_the_right_signature_is_refused(changes: dict[str, str], said: str) -> None:
    body, headers = github(merged())
    with pytest.raises(SignatureInvalid, match=said) as refused:
        check(rule("github"), headers | changes, body, 0)
    assert SECRET not in str(refused.value)


def test_a_body_that_was_changed_on_the_way_is_refused() -> None:
    body, headers = github(merged())
    with pytest.raises(SignatureInvalid):
        check(rule("github"), headers, body.replace(b"PAY-7", b"PAY-8"), 0)
    with pytest.raises(SignatureInvalid):
        check(rule("github", "another-secret"), headers, body, 0)


def test_gitlab_sends_its_token() -> None:
    headers = {"x-gitlab-token": SECRET, "idempotency-key": "i1"}
    assert check(rule("gitlab"), headers, b"{}", 0) == "i1"
    for given in ({}, {"x-gitlab-token": "wrong"}):
        with pytest.raises(SignatureInvalid):
            check(rule("gitlab"), given, b"{}", 0)


def test_gitlab_with_a_signing_token_must_sign() -> None:
    signed = rule("gitlab", STANDARD_SECRET)
    body, headers = standard("x", {})
    assert check(signed, headers, body, AT_MS) == "msg_1"
    with pytest.raises(SignatureInvalid):
        check(signed, {"x-gitlab-token": STANDARD_SECRET}, body, AT_MS)


def test_standard_webhooks_sign_id_time_and_body() -> None:
    body, headers = standard("x", {})
    assert check(rule("standard", STANDARD_SECRET), headers, body, AT_MS) == "msg_1"
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", str(AT_MS // 1000 + 1))):
        with pytest.raises(SignatureInvalid, match="no `v1`"):
            check(rule("standard", STANDARD_SECRET), headers | {name: value}, body, AT_MS)


def test_a_secret_may_be_plain_text() -> None:
    body, headers = standard("x", {}, key=SECRET.encode())
    assert check(rule("standard"), headers, body, AT_MS)


def test_one_right_signature_among_several_is_enough() -> None:
    wrong = base64.b64encode(b"0" * 32).decode()
    body, headers = standard("x", {}, others=f"v1,{wrong} v1a,{wrong}")
    assert check(rule("standard", STANDARD_SECRET), headers, body, AT_MS)
    only_newer = headers | {"webhook-signature": headers["webhook-signature"].split(" ")[1]}
    with pytest.raises(SignatureInvalid):
        check(rule("standard", STANDARD_SECRET), only_newer, body, AT_MS)


@pytest.mark.parametrize("minutes", [-5, 0, 5])
def test_the_clocks_may_disagree_by_five_minutes(minutes: int) -> None:
    body, headers = standard("x", {}, sent_ms=AT_MS + minutes * MINUTE)
    assert check(rule("standard", STANDARD_SECRET), headers, body, AT_MS)


@pytest.mark.parametrize("minutes", [-6, 6, -60 * 24 * 365])
def test_an_old_delivery_that_is_sent_again_is_refused_and_so_is_one_of_the_future(minutes: int) -> None:
    body, headers = standard("x", {}, sent_ms=AT_MS + minutes * MINUTE)
    with pytest.raises(SignatureInvalid, match="5 minutes"):
        check(rule("standard", STANDARD_SECRET), headers, body, AT_MS)


@pytest.mark.parametrize("stamp", ["", "soon", "-1", "1e9", "9" * 40, "１７"])
def test_a_timestamp_that_is_none_is_refused(stamp: str) -> None:
    body, headers = standard("x", {})
    with pytest.raises(SignatureInvalid):
        check(rule("standard", STANDARD_SECRET), headers | {"webhook-timestamp": stamp}, body, AT_MS)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_all_three_headers_must_be_there(missing: str) -> None:
    body, headers = standard("x", {})
    with pytest.raises(SignatureInvalid, match="must all be there"):
        check(rule("standard", STANDARD_SECRET), headers | {missing: ""}, body, AT_MS)


def test_a_delivery_without_an_id_is_known_by_its_body() -> None:
    body, headers = github(merged(), delivery="")
    first = check(rule("github"), headers, body, 0)
    assert first == check(rule("github"), headers, body, 0)
    other, others = github(merged(8), delivery="")
    assert check(rule("github"), others, other, 0) != first
    assert len(check(rule("github"), headers | {"x-github-delivery": "x" * 5000}, body, 0)) == 32


def test_the_key_of_the_tests_is_that_of_the_secret() -> None:
    assert base64.b64decode(STANDARD_SECRET.removeprefix("whsec_")) == STANDARD_KEY


def test_while_a_secret_is_changed_both_hold() -> None:
    both, delivery = f"another-secret, {SECRET}", github(merged())
    assert check(rule("github", both), delivery[1], delivery[0], 0)
    assert check(rule("gitlab", both), {"x-gitlab-token": SECRET, "idempotency-key": "i"}, b"{}", 0) == "i"
    body, headers = standard("x", {})
    assert check(rule("standard", f"whsec_AAAA,{STANDARD_SECRET}"), headers, body, AT_MS)
    with pytest.raises(SignatureInvalid):
        check(rule("github", both), github(merged(), secret=both)[1], delivery[0], 0)
