"""Outcomes in a running house: a task that is refused until its change is merged, again when that is reverted; sessions
that are claimed; what a developer sees. Real processes, signed deliveries, the real command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from proxy.core.record import rfc3339
from tests.support.deliveries import SECRET, STANDARD_SECRET, github, merged, pushed, reverting, standard
from tests.support.house import (
    POLICY,
    REPOSITORY,
    Answer,
    Caller,
    House,
    Providers,
    clean_environ,
    eventually,
    own_house,
    request,
)
from tests.support.store import now_ms

CHAT = "/openai/v1/chat/completions"
ASK = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}
RULES = f"""\
outcomes:
  - {{name: merged, from: github, secret: {SECRET}, task: "[A-Z]+-[0-9]+", match: {{base: main}}, accepted_after: 14d}}
  - {{name: closed, from: standard, secret: {STANDARD_SECRET}, event: issue.closed, accepted_after: 1m}}
unproven:
  - {{name: nothing-shipped, match: {{user: "held*"}}, limit: $0.000001, every: rolling 7d, help: "ask #ai"}}
  - {{name: nothing-yet, match: {{user: "warned*"}}, limit: $0.000001, every: day, then: warn}}
  - {{name: not-in-force, match: {{user: "shadow*"}}, limit: $0.000001, every: ever, mode: shadow}}
"""


@pytest.fixture(scope="module")
def shop(providers: Providers) -> Iterator[House]:
    with own_house(providers, policy=POLICY) as house:
        house.write_policy(RULES, "outcomes.yaml")
        eventually(lambda: deliver(house, ({"zen": "x"},), event="ping").status == 200, "the rules are in force")
        yield house


def deliver(house: House, what: tuple[Mapping[str, Any]], rule: str = "merged", **more: Any) -> Answer:
    body, headers = github(what[0], delivery=f"d{now_ms()}-{id(what)}", **more)
    return request(house.admin_url, "POST", f"/webhooks/{rule}", body, headers)


def ask(caller: Caller, task: str | None = None, **headers: str) -> Answer:
    named = {"x-callmeter-task": task} if task else {}
    return caller.post(CHAT, ASK, named | headers)


def code(answer: Answer) -> str | None:
    return answer.headers.get("x-callmeter-reason")


def callmeter(caller: Caller, *words: str) -> subprocess.CompletedProcess[str]:
    environ = clean_environ() | {"CALLMETER_URL": caller.house.url, "CALLMETER_KEY": caller.key}
    command = [sys.executable, "-m", "proxy", *words]
    done = subprocess.run(command, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=50, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_a_task_is_refused_until_its_change_is_merged_and_again_when_that_is_reverted(shop: House) -> None:
    held = shop.caller("held")
    refused = ask(held, "PAY-7")
    assert (refused.status, code(refused), refused.headers["x-should-retry"]) == (403, "unproven", "false")
    sentence = refused.json["error"]["message"]
    assert "rule `nothing-shipped`" in sentence
    assert "put the line `Task: PAY-7` into the commit or pull request" in sentence
    assert sentence.endswith("ask #ai")
    assert code(ask(held)) == "unproven", "leaving the task away is no way out"
    assert deliver(shop, (merged(at_ms=now_ms()),)).json["taken"] is True
    eventually(lambda: code(ask(held, "PAY-7")) is None, "the outcome is known")
    assert code(ask(held, "PAY-8")) == "unproven"
    assert code(ask(held)) == "unproven"
    assert deliver(shop, (pushed(("revert", reverting(7)), at_ms=now_ms()),)).json["taken"] is True
    eventually(lambda: code(ask(held, "PAY-7")) == "unproven", "it is undone")
    record = held.record(refused.headers["x-callmeter-call"])
    assert (record["result"], record["refusal"], record["rule"], record["cost_nusd"]) == (
        "refused", "unproven", "nothing-shipped", 0,
    )  # fmt: skip


def test_a_rule_may_warn_or_only_be_recorded(shop: House) -> None:
    warned, shadow = shop.caller("warned"), shop.caller("shadow")
    answer = ask(warned, "OPS-1")
    assert answer.status == 200
    assert answer.headers["x-callmeter-warning"].startswith("nothing-yet; task `OPS-1` has come to no outcome yet")
    quiet = ask(shadow, "OPS-1")
    assert (quiet.status, "x-callmeter-warning" in quiet.headers) == (200, False)
    assert shadow.record(quiet.headers["x-callmeter-call"])["shadow"] == ["not-in-force"]


def test_an_outcome_is_accepted_by_the_clock_of_the_bookkeeper(shop: House) -> None:
    sent_ms = now_ms()
    at_ms = sent_ms - 59_000  # a second before it has held for a minute
    about = {"task": "OPS-2", "change": "c"}
    body, headers = standard("issue.closed", about, sent_ms=sent_ms, at_ms=at_ms, delivery="msg_a")
    assert request(shop.admin_url, "POST", "/webhooks/closed", body, headers).status == 200

    def outcome() -> dict[str, Any]:
        (found,) = shop.admin("GET", "/api/tasks/OPS-2").json["outcomes"]
        return found  # type: ignore[no-any-return]

    assert outcome()["state"] in ("pending", "accepted")
    eventually(lambda: outcome()["state"] == "accepted", "it held for a minute")
    assert (outcome()["landed_at"], outcome()["accepted_at"]) == (rfc3339(at_ms), rfc3339(at_ms + 60_000))
    metrics = shop.admin("GET", "/metrics").body.decode()
    assert 'callmeter_outcomes_total{rule="closed",state="accepted"}' in metrics


def test_a_developer_sees_links_and_claims_what_is_theirs(shop: House) -> None:
    ada, bob = shop.caller("ada"), shop.caller("bob")
    ask(ada, "DEV-1")
    silent = ask(ada, **{"x-callmeter-session": "evening"})
    cost_nusd = ada.record(silent.headers["x-callmeter-call"])["cost_nusd"]
    shown = callmeter(ada, "me")
    assert shown.returncode == 0, shown.stderr
    for word in ("DEV-1", "nothing yet", "evening", "`Task: DEV-1`", "`callmeter claim SESSION TASK`"):
        assert word in shown.stdout
    theirs = callmeter(bob, "claim", "evening", "DEV-1")
    assert (theirs.returncode, "no call of yours in session `evening`" in theirs.stderr) == (1, True)
    claimed = callmeter(ada, "claim", "evening", "DEV-1")
    assert claimed.returncode == 0, claimed.stderr
    assert claimed.stdout.startswith("1 call of session evening, $")
    moved = ada.record(silent.headers["x-callmeter-call"])
    assert (moved["task"], moved["task_source"], moved["revision"], moved["cost_nusd"]) == (
        "DEV-1", "claimed", 2, cost_nusd,
    )  # fmt: skip
    again = callmeter(ada, "claim", "evening", "DEV-2")
    assert (again.returncode, "was claimed for task `DEV-1` already" in again.stderr) == (1, True)
    mine = json.loads(callmeter(ada, "me", "--format", "json").stdout)
    assert {(task["task"], task["task_source"]) for task in mine["tasks"]} == {
        ("DEV-1", "header"),
        ("DEV-1", "claimed"),
    }
    assert mine["sessions"] == []


def test_an_agent_with_a_task_key_cannot_claim(shop: House) -> None:
    ada = shop.caller("ada")
    agent = Caller(shop, ada.user, ada.task_key("DEV-1"))
    refused = agent.post("/callmeter/claims", {"session": "evening", "task": "DEV-1"})
    assert (refused.status, code(refused)) == (403, "not_allowed")
    assert "traceback" not in refused.body.decode().lower()
