"""Webhooks and outcomes as the sources and the clients of the admin port meet them."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.admin import webhooks
from proxy.admin.api import admin_app
from proxy.admin.webhooks import BODY_BYTES_MAX
from proxy.ledger.database import open_ledger
from proxy.ledger.errors import LedgerUnavailable
from tests.support.admin_server import TOKEN, Admin
from tests.support.deliveries import AT_MS, MINUTE, SECRET, STANDARD_SECRET, github, merged, standard
from tests.support.ledger_calls import entries, made
from tests.support.policies import policy_of

Client = TestClient[web.Request, web.Application]
POLICY = f"""
    outcomes:
      - {{name: merged, from: github, secret: {SECRET}, task: "[A-Z]+-[0-9]+", match: {{repo: "acme/*", base: main}}}}
      - {{name: closed, from: standard, secret: {STANDARD_SECRET}, event: issue.closed}}
      - {{name: told, from: declared, accepted_after: 1d, weight: 2}}
"""


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    ledger = open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield Admin(ledger, policy=policy_of(POLICY), now_ms=AT_MS + MINUTE)
    ledger.close()


@pytest.fixture
async def source(admin: Admin) -> Any:
    """A client without the admin token."""
    async with TestClient(TestServer(admin_app(admin.context()))) as opened:
        yield opened


async def post(source: Client, delivery: tuple[bytes, dict[str, str]], rule: str = "merged") -> tuple[int, Any]:
    body, headers = delivery
    async with source.post(f"/webhooks/{rule}", data=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def outcomes(source: Client, query: str = "") -> list[dict[str, Any]]:
    async with source.get(f"/api/outcomes{query}", headers={"authorization": f"Bearer {TOKEN}"}) as answer:
        found: list[dict[str, Any]] = (await answer.json())["outcomes"]
        return found


async def test_a_signed_merge_becomes_an_outcome_and_its_repeat_none(source: Client, admin: Admin) -> None:
    status, answer = await post(source, github(merged()))
    assert (status, answer["taken"], answer["repeated"], len(answer["outcomes"])) == (200, True, False, 1)
    status, answer = await post(source, github(merged()))
    assert (status, answer["taken"], answer["repeated"]) == (200, False, True)
    (found,) = await outcomes(source)
    assert found["task"] == "PAY-7"
    assert (found["state"], found["source"], found["deliveries"], found["reviewed"]) == ("pending", "signed", 1, True)
    assert found["accepted_after_seconds"] == 14 * 86_400
    metrics = admin.metrics.render()[0].decode()
    assert 'callmeter_webhook_deliveries_total{answer="taken",rule="merged"} 1.0' in metrics
    assert 'callmeter_webhook_deliveries_total{answer="repeated",rule="merged"} 1.0' in metrics
    assert 'callmeter_outcomes_total{rule="merged",state="pending"} 1.0' in metrics


async def test_nothing_of_a_payload_is_kept_but_names(source: Client, admin: Admin, tmp_path: Path) -> None:
    await post(source, github(merged(title="PAY-7 sekret-title", body="sekret-body", author="sekret-ada")))
    assert len(await outcomes(source)) == 1
    for path in tmp_path.iterdir():
        assert b"sekret" not in path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("rule", "changes", "status"),
    [
        ("merged", {"x-hub-signature-256": ""}, 401),
        ("merged", {"x-hub-signature-256": "sha256=" + "0" * 64}, 401),
        ("merged", {"authorization": f"Bearer {TOKEN}", "x-hub-signature-256": ""}, 401),
        ("unknown", {}, 404),
        ("told", {}, 404),
        ("closed", {}, 401),
    ],
)
async def test_who_does_not_sign_is_refused(source: Client, rule: str, changes: dict[str, str], status: int) -> None:
    body, headers = github(merged())
    found, answer = await post(source, (body, headers | changes), rule)
    assert found == status
    assert answer["detail"]
    assert SECRET not in str(answer)
    assert await outcomes(source) == []


async def test_an_old_standard_webhook_is_refused_and_a_young_one_taken(source: Client) -> None:
    old = standard("issue.closed", {"task": "OPS-1"}, sent_ms=AT_MS - 10 * MINUTE)
    assert (await post(source, old, "closed"))[0] == 401
    young = standard("issue.closed", {"task": "OPS-1"})
    assert (await post(source, young, "closed"))[0] == 200
    assert [found["task"] for found in await outcomes(source)] == ["OPS-1"]


async def test_a_body_of_five_megabytes_is_refused_also_where_its_length_is_not_said(source: Client) -> None:
    body, headers = github(merged(body="x" * 5_000_000))
    assert len(body) > BODY_BYTES_MAX
    async with source.post("/webhooks/merged", data=io.BytesIO(body), headers=headers) as told:
        assert (told.status, "at most 2 MiB" in (await told.json())["detail"]) == (413, True)

    async def pieces() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    async with source.post("/webhooks/merged", data=pieces(), headers=headers) as answered:
        assert answered.status == 413


async def test_a_body_that_does_not_arrive_is_given_up(source: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "BODY_S_MAX", 0.02)
    gone = asyncio.Event()

    async def stuck() -> Any:
        yield b"{"
        await gone.wait()

    async with source.post("/webhooks/merged", data=stuck(), headers=github(merged())[1]) as answer:
        assert answer.status == 408
    gone.set()


@pytest.mark.parametrize(
    "payload",
    [merged(repo="other/x"), merged(base="play", title="x"), {"zen": "Keep it logically awesome."}, {}],
)
async def test_what_is_about_something_else_is_answered_and_left(source: Client, payload: dict[str, Any]) -> None:
    status, answer = await post(source, github(payload, event=None if "pull_request" in payload else "ping"))
    assert (status, answer["taken"]) == (200, False)
    assert "rule `merged` is about `pull_request.merged`" in answer["why"]
    assert await outcomes(source) == []


async def test_a_signed_body_that_is_no_json_is_refused_with_a_sentence(source: Client) -> None:
    import hashlib
    import hmac

    digest = hmac.new(SECRET.encode(), b"{", hashlib.sha256).hexdigest()
    status, answer = await post(source, (b"{", {"x-hub-signature-256": f"sha256={digest}"}))
    assert (status, answer["detail"]) == (400, "the body is not JSON")


async def test_other_methods_are_not_taken_and_nothing_else_opens_without_the_token(source: Client) -> None:
    assert (await source.get("/webhooks/merged")).status == 405
    for path in ("/api/outcomes", "/webhooks/../api/outcomes", "/api/tasks/PAY-7"):
        assert (await source.get(path)).status == 401


async def test_a_burst_is_taken_whole_with_each_delivery_once(source: Client) -> None:
    deliveries = [github(merged(number % 200, cut_from=f"b{number % 200}"), delivery=str(number % 250)) for number in
                  range(1000)]  # fmt: skip
    answers = await asyncio.gather(*(post(source, delivery) for delivery in deliveries))
    assert {status for status, _ in answers} == {200}
    assert sum(answer["taken"] for _, answer in answers) == 250
    found = await outcomes(source)
    assert len(found) == 200
    assert sum(outcome["deliveries"] for outcome in found) == 250


async def test_while_the_ledger_is_away_a_delivery_is_to_be_sent_again(
    source: Client, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> Any:
        raise LedgerUnavailable("the ledger at `x` cannot be used now")

    with monkeypatch.context() as patched:
        patched.setattr(admin.ledger.outcomes, "take", away)
        async with source.post("/webhooks/merged", data=github(merged())[0], headers=github(merged())[1]) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert (await post(source, github(merged())))[1]["taken"] is True


async def test_more_than_can_wait_is_to_be_sent_again_and_a_ledger_that_hangs_is_not_waited_for(
    source: Client, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, take = threading.Event(), admin.ledger.outcomes.take

    def hangs(*told: Any) -> Any:
        go.wait(10)
        return take(*told)

    monkeypatch.setattr(webhooks, "WAITING_MAX", 2)
    monkeypatch.setattr(webhooks, "WRITE_S", 0.3)
    with monkeypatch.context() as patched:
        patched.setattr(admin.ledger.outcomes, "take", hangs)
        sending = [
            post(source, github(merged(number, cut_from=str(number)), delivery=str(number))) for number in range(6)
        ]
        answers = await asyncio.gather(*sending)
    go.set()
    assert {status for status, _ in answers} == {503}
    said = {answer["detail"].partition(";")[0] for _, answer in answers}
    assert said == {"2 deliveries wait for the ledger already", "the ledger does not answer in time"}
    taken = await asyncio.gather(*(post(source, github(merged(0, cut_from="0"), delivery="0")) for _ in range(2)))
    assert {status for status, _ in taken} == {200}, "it is there once, whether the first attempt was written or not"


async def test_a_task_shows_what_it_came_to_also_where_no_call_has_it(source: Client, admin: Admin) -> None:
    await post(source, github(merged()))
    await post(source, github(merged(8, title="NOBODY-1", cut_from="x"), delivery="d2"))
    admin.ledger.ingest(entries(made(1, task="PAY-7")))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with source.get("/api/tasks/PAY-7", headers=headers) as answer:
        known = await answer.json()
    async with source.get("/api/tasks/NOBODY-1", headers=headers) as answer:
        unknown = await answer.json()
    assert (known["calls"], [each["state"] for each in known["outcomes"]]) == (1, ["pending"])
    assert (unknown["calls"], unknown["first_at"], len(unknown["outcomes"])) == (0, None, 1)
    assert (await source.get("/api/tasks/other", headers=headers)).status == 404


async def test_what_somebody_declares_is_marked_and_counts_by_its_rule(source: Client, admin: Admin) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with source.post("/api/outcomes", json={"task": "PAY-7", "change": "c"}, headers=headers) as answer:
        first = await answer.json()
        assert answer.status == 201
    assert (first["source"], first["kind"], first["rule"], first["weight"]) == ("self_declared", "declared", "told", 2)
    async with source.post("/api/outcomes", json={"task": "PAY-7", "change": "c"}, headers=headers) as answer:
        assert (answer.status, (await answer.json())["key"]) == (200, first["key"])
    admin.policy = policy_of("")
    async with source.post("/api/outcomes", json={"task": "PAY-7"}, headers=headers) as answer:
        other = await answer.json()
    assert (other["rule"], other["accepted_after_seconds"], other["due_at"]) == ("", None, None)
    admin.ledger.outcomes.accept_due(AT_MS + 365 * 86_400_000, lambda: None)
    states = {found["rule"]: found["state"] for found in await outcomes(source, "?task=PAY-7")}
    assert states == {"told": "accepted", "": "pending"}


@pytest.mark.parametrize("body", [{}, {"task": ""}, {"task": "\u0000"}, {"task": "x", "rule": "merged"}, {"x": 1}])
async def test_a_declaration_that_does_not_fit_is_refused(source: Client, body: dict[str, Any]) -> None:
    async with source.post("/api/outcomes", json=body, headers={"authorization": f"Bearer {TOKEN}"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["detail"]
