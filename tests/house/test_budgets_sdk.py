"""Budgets as people with the real SDKs meet them: which exception comes, how often the SDK asks, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import anthropic
import httpx2
import openai
import pytest
from google import genai
from google.genai import errors, types

from proxy.core.keys import Caveat, attenuate
from proxy.core.money import format_usd
from tests.support.house import POLICY, REPOSITORY, Caller, House, Providers, clean_environ, eventually, own_house

DIALECTS = ("openai", "anthropic", "gemini")
MODELS = {"openai": "gpt-5-mini", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
DEAR = {"openai": "gpt-5", "anthropic": "claude-opus-4-1", "gemini": "gemini-2.5-pro"}
CHEAP = {"openai": "gpt-4.1-nano", "anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash-lite"}
ASK: list[Any] = [{"role": "user", "content": "Where is the rounding fault?"}]
CHAT = "/openai/v1/chat/completions"
BOOK = {"input": 250, "output": 2000}
"""What gpt-5-mini costs, in nano-USD a token."""

BUDGETS = """\
budgets:
  - {name: person-day, match: {user: "day*"}, per: user, limit: $0.0001, every: day, timezone: Europe/Berlin,
     reserve: $0.00001, help: "ask #ai-budget"}
  - {name: held, match: {user: "held*"}, per: user, limit: $0.01, every: day, reserve: $0.009}
  - {name: at-once, match: {user: "busy*"}, per: user, limit: 1 concurrent}
  - {name: a-minute, match: {user: "fast*"}, per: user, limit: 1 calls, every: minute}
  - {name: cheaper, match: {user: "swap*"}, per: user, limit: $0.004, every: day, reserve: worst_case,
     then: {use: {openai: gpt-4.1-nano, anthropic: claude-haiku-4-5, gemini: gemini-2.5-flash-lite}}}
  - {name: tried-out, match: {user: "shadow*"}, per: user, limit: $0.000001, every: day, mode: shadow}
  - {name: warned, match: {user: "warn*"}, per: user, limit: $0.001, every: day, reserve: $0.00001, warn_at: [10%, 50%]}
  - {name: soft, match: {user: "soft*"}, per: user, limit: $0.000001, every: day, then: warn}
  - {name: shortened, match: {user: "trim*"}, per: user, limit: $0.004, every: day, reserve: worst_case, trim: true}
  - {name: short-leash, match: {user: "cut*"}, per: user, limit: $0.0005, every: day, when_outgrown: cut}
  - {name: in-time, match: {user: "later*"}, per: user, limit: $0.10, every: day, unbounded: $0.06}
  - {name: bounded, match: {user: "bound*"}, per: user, limit: $1, every: day, reserve: worst_case}
access:
  - {name: ticket-needed, match: {user: "ticket*", not: {task_source: key}}, then: refuse, help: "run callmeter task"}
"""
CHANGING = """\
budgets:
  - {{name: changing, match: {{user: "change*"}}, per: user, limit: {limit}, every: day, reserve: $0.00001}}
"""


class No(NamedTuple):
    """A refusal as the SDK raised it."""

    kind: str
    status: int
    code: str | None
    text: str
    headers: Mapping[str, str]


class Person:
    """Somebody with an SDK of each dialect. `asked` counts what the SDKs really sent."""

    def __init__(self, caller: Caller, *, key: str | None = None) -> None:
        self.caller = caller
        self.asked = 0
        self._key = key or caller.key
        self._http = httpx2.Client(event_hooks={"request": [self._count]})
        url, http = caller.house.url, self._http
        self._openai = openai.OpenAI(base_url=f"{url}/v1", api_key=self._key, http_client=http)
        self._anthropic = anthropic.Anthropic(base_url=url, api_key=self._key, http_client=http)
        options = types.HttpOptions(base_url=url, httpx_client=http)
        self._gemini = genai.Client(api_key=self._key, http_options=options)

    def _count(self, _request: httpx2.Request) -> None:
        self.asked += 1

    def ask(
        self, dialect: str, wish: str = "", *, tokens: int = 100, retries: int = 2, model: str | None = None
    ) -> Mapping[str, str]:
        """One call; the headers of its answer."""
        model, wishes = model or MODELS[dialect], {"x-sim": wish}
        if dialect == "openai":
            chats = self._openai.with_options(max_retries=retries).chat.completions.with_raw_response
            return chats.create(model=model, messages=ASK, max_completion_tokens=tokens, extra_headers=wishes).headers
        if dialect == "anthropic":
            messages = self._anthropic.with_options(max_retries=retries).messages.with_raw_response
            return messages.create(model=model, messages=ASK, max_tokens=tokens, extra_headers=wishes).headers
        retry = types.HttpRetryOptions(attempts=retries + 1, initial_delay=1.0, jitter=0.0)
        options = types.HttpOptions(headers=wishes, retry_options=retry)
        answer = self._gemini.models.generate_content(
            model=model,
            contents="hello",
            config=types.GenerateContentConfig(max_output_tokens=tokens, http_options=options),
        )
        assert answer.sdk_http_response is not None
        return answer.sdk_http_response.headers or {}

    def refused(self, dialect: str, **asked: Any) -> No:
        """One call that must be refused, and how the SDK says so. `asked` counts from here on."""
        self.asked = 0
        try:
            self.ask(dialect, **asked)
        except openai.APIStatusError as no:
            return No(type(no).__name__, no.status_code, no.code, no.message, no.response.headers)
        except anthropic.APIStatusError as no:
            body: Any = no.body
            code = body["error"]["details"]["error_code"]
            return No(type(no).__name__, no.status_code, code, no.message, no.response.headers)
        except errors.APIError as no:
            details: Any = no.details
            code = details["error"]["details"][0]["reason"].lower()
            response: Any = no.response
            return No(type(no).__name__, no.code, code, str(no), response.headers)
        raise AssertionError("it was not refused")

    def close(self) -> None:
        self._http.close()


pytestmark = pytest.mark.xdist_group("budgeted")


@pytest.fixture(scope="module")
def budgeted(providers: Providers) -> Iterator[House]:
    """A house with the budgets above."""
    with own_house(providers, policy=POLICY) as made:
        made.write_policy(BUDGETS, "budgets.yaml")
        until_policy_has(made, "bounded")
        yield made


def until_policy_has(house: House, text: str) -> str:
    """Waits until the loaded policy mentions a text; its version."""
    probe = house.caller("bound")

    def met() -> str:
        told = house.admin("GET", f"/api/explain?user={probe.user}&upstream=openai").json
        return told["policy_version"] if text in json.dumps(told["budgets"]) else ""

    version: str = eventually(met, f"the policy never came to have {text}")
    return version


@contextmanager
def person(house: House, name: str, *caveats: Caveat) -> Iterator[Person]:
    caller = house.caller(name)
    made = Person(caller, key=attenuate(caller.key, list(caveats)) if caveats else None)
    yield made
    made.close()


@contextmanager
def running(who: Person, dialect: str, first_ms: int) -> Iterator[None]:
    """A call that runs meanwhile."""
    simulator = who.caller.house.providers.simulator
    before = len(simulator.seen)
    calling = threading.Thread(target=who.ask, args=(dialect, f"first-ms={first_ms}"))
    calling.start()
    eventually(lambda: len(simulator.seen) > before, "the provider saw no call")
    yield
    calling.join()


SPENT = {"openai": "APIStatusError", "anthropic": "PaymentRequiredError", "gemini": "ClientError"}
LIMITED = {"openai": "RateLimitError", "anthropic": "RateLimitError", "gemini": "ClientError"}
FORBIDDEN = {"openai": "PermissionDeniedError", "anthropic": "PermissionDeniedError", "gemini": "ClientError"}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_spent_budget_is_told_once_with_its_rule_limit_spending_reset_and_help(budgeted: House, dialect: str) -> None:
    with person(budgeted, "day") as ada:
        ada.ask(dialect, "chunks=300")
        cost = ada.caller.record()["cost_nusd"]
        no = ada.refused(dialect)
        assert (no.kind, no.status, no.code, ada.asked) == (SPENT[dialect], 402, "budget_spent", 1)
        assert f"budget `person-day` of $0.00010 a day for user `{ada.caller.user}` is spent" in no.text
        assert f": {format_usd(cost)} used, $0.000010 needed; resets 20" in no.text
        assert "ask #ai-budget" in no.text
        assert no.headers["x-should-retry"] == "false"
        assert "retry-after" not in no.headers
        assert no.headers["x-callmeter-reason"] == "budget_spent"
        assert no.headers["ratelimit"].startswith('"person-day";r=0;t=')
        _, second = ada.caller.records(2)
        assert (second["result"], second["refusal"], second["rule"]) == ("refused", "budget_spent", "person-day")
        assert (second["status"], second["cost_nusd"], second["hold_nusd"]) == (402, 0, 0)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("name", "code"), [("held", "budget_held"), ("busy", "busy")])
def test_what_only_running_calls_hold_is_tried_again_and_passes(
    budgeted: House, dialect: str, name: str, code: str
) -> None:
    with person(budgeted, name) as ada, person(budgeted, name) as other:
        ada.ask(dialect)  # so that it is known how long such calls run
        with running(ada, dialect, first_ms=700):
            other.ask(dialect)  # another user has a counter of their own
            no = ada.refused(dialect, retries=0)
            assert (no.kind, no.status, no.code) == (LIMITED[dialect], 429, code)
            assert 1 <= int(no.headers["retry-after"]) <= 60
            assert "x-should-retry" not in no.headers
            ada.asked = 0
            ada.ask(dialect, retries=4)
            assert ada.asked >= 2, "the SDK was let pass at once"
        refused = [record for record in ada.caller.records(4) if record["result"] == "refused"]
        assert {record["refusal"] for record in refused} == {code}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_limit_on_calls_a_minute_says_when_the_minute_is_over(budgeted: House, dialect: str) -> None:
    with person(budgeted, "fast") as ada:
        for _ in range(3):  # the minute may turn once in between
            try:
                ada.ask(dialect, retries=0)
            except (openai.RateLimitError, anthropic.RateLimitError, errors.ClientError):
                break
        no = ada.refused(dialect, retries=0)
        assert (no.kind, no.status, no.code) == (LIMITED[dialect], 429, "rate_limited")
        assert 1 <= int(no.headers["retry-after"]) <= 60
        assert f"limit `a-minute` of 1 call a minute for user `{ada.caller.user}` is reached" in no.text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_rule_that_wants_a_proven_task_takes_a_task_key_and_nothing_else(budgeted: House, dialect: str) -> None:
    with person(budgeted, "ticket") as ada, person(budgeted, "ticket", Caveat("task", "PAY-1")) as ben:
        no = ada.refused(dialect)
        assert (no.kind, no.status, no.code, ada.asked) == (FORBIDDEN[dialect], 403, "task_required", 1)
        assert "ticket-needed" in no.text
        assert "run callmeter task" in no.text
        ben.ask(dialect)
        assert ben.caller.record()["task"] == "PAY-1"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_max_cost_of_a_task_key_is_one_counter_for_every_key_derived_from_it(budgeted: House, dialect: str) -> None:
    caller = budgeted.caller("eve")
    first = attenuate(caller.key, [Caveat("task", "PAY-2"), Caveat("max_cost", 2_000_000)])
    derived = attenuate(first, [Caveat("models", ("*",))])
    refilled = attenuate(first, [Caveat("max_cost", 900_000_000)])
    people = [Person(caller, key=key) for key in (first, derived, refilled)]
    people[0].ask(dialect, "chunks=2000", tokens=20)
    for one in people:
        no = one.refused(dialect, tokens=20)
        assert (no.kind, no.status, no.code, one.asked) == (SPENT[dialect], 402, "budget_spent", 1)
        assert "the `max_cost` of $0.002" in no.text
        one.close()
    Person(caller).ask(dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_call_that_does_not_fit_goes_on_with_another_model_and_the_record_has_both(
    budgeted: House, dialect: str
) -> None:
    with person(budgeted, "swap") as ada:
        headers = ada.ask(dialect, model=DEAR[dialect], tokens=150 if dialect == "anthropic" else 1000)
        record = ada.caller.record()
        assert (record["model_asked"], record["model"], record["result"]) == (DEAR[dialect], CHEAP[dialect], "ok")
        assert record["rule"] == "cheaper"
        assert headers["x-callmeter-warning"].startswith("cheaper; ")
        assert CHEAP[dialect] in headers["x-callmeter-warning"]
        path, _, body = budgeted.providers.simulator.seen[-1]
        assert CHEAP[dialect] in path + body.decode()
        assert DEAR[dialect] not in (path + body.decode()).replace(CHEAP[dialect], "")


def test_a_call_that_fits_neither_with_its_own_model_nor_with_the_other_is_refused(budgeted: House) -> None:
    with person(budgeted, "swap") as ada:
        no = ada.refused("openai", model="gpt-5", tokens=30_000)
        assert (no.status, no.code, ada.asked) == (402, "budget_spent", 1)
        assert "is too small for this call" in no.text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_shadow_budget_is_recorded_and_stops_nobody(budgeted: House, dialect: str) -> None:
    with person(budgeted, "shadow") as ada:
        headers = ada.ask(dialect)
        record = ada.caller.record()
        assert (record["result"], record["shadow"], record["warnings"]) == ("ok", ["tried-out"], [])
        assert "x-callmeter-warning" not in headers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_marks_and_soft_budgets_warn_in_a_header(budgeted: House, dialect: str) -> None:
    with person(budgeted, "warn") as ada, person(budgeted, "soft") as ben:
        assert "x-callmeter-warning" not in ada.ask(dialect, "chunks=40" if dialect == "anthropic" else "chunks=350")
        assert "is used to 50% and more" in ada.ask(dialect)["x-callmeter-warning"]
        assert "budget `soft` of $0.0000010 a day" in ben.ask(dialect)["x-callmeter-warning"]
        assert ben.caller.record()["result"] == "ok"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_answer_tells_what_is_left_in_the_standard_headers(budgeted: House, dialect: str) -> None:
    with person(budgeted, "bound") as ada:
        headers = ada.ask(dialect)
        assert headers["ratelimit-policy"] == '"bounded";q=1000000;qu="micro-usd";w=86400'
        told = headers["ratelimit"].removeprefix('"bounded";r=').partition(";t=")
        record = ada.caller.record()
        worst = record["estimate"]["worst_nusd"]
        assert record["cost_nusd"] <= worst
        assert int(told[0]) == (1_000_000_000 - worst) // 1000
        assert 0 <= int(told[2]) <= 86400


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_call_that_is_too_large_is_given_a_shorter_answer_where_the_budget_says_trim(
    budgeted: House, dialect: str
) -> None:
    with person(budgeted, "trim") as ada:
        ada.ask(dialect, tokens=20_000, model="gpt-5-mini" if dialect == "openai" else "claude-haiku-4-5")
        body = json.loads(ada.caller.house.providers.simulator.seen[-1][2])
        sent = body["max_completion_tokens" if dialect == "openai" else "max_tokens"]
        assert 1 <= sent < 2_000
        assert ada.caller.record()["estimate"]["worst_nusd"] <= 4_000_000


def test_a_call_without_a_limit_on_its_output_is_given_one_where_a_budget_holds_the_worst_case(
    budgeted: House,
) -> None:
    ada = budgeted.caller("bound")
    assert ada.post(CHAT, {"model": "gpt-5-mini", "messages": ASK}).status == 200
    assert json.loads(budgeted.providers.simulator.seen[-1][2])["max_completion_tokens"] == 32_000


def test_a_changed_limit_keeps_what_was_spent(budgeted: House) -> None:
    with person(budgeted, "change") as ada:
        user = ada.caller.user

        def limited_to(limit: str, nusd: int) -> dict[str, Any]:
            budgeted.write_policy(CHANGING.format(limit=limit), "changing.yaml")

            def found() -> Any:
                told = budgeted.admin("GET", f"/api/explain?user={user}&upstream=openai").json["budgets"]
                return next((row for row in told if row["name"] == "changing" and row["limit_nusd"] == nusd), None)

            row: dict[str, Any] = eventually(found, f"the policy never came to have {limit}")
            return row

        limited_to("$0.0001", 100_000)
        eventually(lambda: "ratelimit" in ada.ask("openai", "chunks=1"), "the worker has the budget not yet")
        ada.ask("openai", "chunks=300")
        records = ada.caller.records(2, lambda all_: all_[-1]["usage"]["output"] == 300)
        spent = sum(record["cost_nusd"] for record in records)
        # A first call that the worker still took under the policy before may be seeded into the counter, or not.
        under = sum(
            record["cost_nusd"] for record in records if record["policy_version"] == records[-1]["policy_version"]
        )
        assert ada.refused("openai").code == "budget_spent"
        row = limited_to("$2", 2_000_000_000)
        assert under <= row["spent_nusd"] <= spent
        eventually(lambda: passes(ada), "the higher limit does not hold")
        limited_to("$0.0002", 200_000)
        eventually(lambda: not passes(ada), "the lower limit does not hold")
        assert ada.refused("openai").code == "budget_spent"


def passes(who: Person) -> bool:
    try:
        who.ask("openai", "chunks=1", retries=0)
    except openai.APIStatusError:
        return False
    return True


def test_a_stream_that_outgrows_a_budget_that_cuts_ends_with_an_error_in_openais_sdk(budgeted: House) -> None:
    ada = budgeted.caller("cut")
    with openai.OpenAI(base_url=f"{budgeted.url}/v1", api_key=ada.key) as sdk:
        stream = sdk.chat.completions.create(
            model="gpt-5-mini", messages=ASK, stream=True, max_completion_tokens=20, extra_headers=SLOW_AND_LONG
        )
        seen: list[Any] = []
        with pytest.raises(openai.APIError, match=r"`short-leash` of .* has no room for the rest of this answer"):
            seen.extend(stream)
    the_stream_was_cut(ada, len(seen))


def test_a_stream_that_outgrows_a_budget_that_cuts_ends_with_an_error_in_anthropics_sdk(budgeted: House) -> None:
    ada = budgeted.caller("cut")
    seen: list[str] = []
    with (
        anthropic.Anthropic(base_url=budgeted.url, api_key=ada.key) as sdk,
        sdk.messages.stream(
            model="claude-haiku-4-5", messages=ASK, max_tokens=20, extra_headers=SLOW_AND_LONG
        ) as stream,
        pytest.raises(anthropic.APIStatusError, match=r"`short-leash` of .* has no room for the rest of this answer"),
    ):
        seen.extend(stream.text_stream)
    the_stream_was_cut(ada, len(seen))


SLOW_AND_LONG = {"x-sim": "chunks=3000, pause-ms=1"}


def the_stream_was_cut(ada: Caller, seen: int) -> None:
    record = ada.record()
    assert (record["result"], record["error"], record["refusal"]) == ("failed", "budget_cut", "budget_spent")
    assert record["rule"] == "short-leash"
    assert 0 < seen < 2500
    assert record["cost_nusd"] > 0
    assert record["usage_source"] == "partial"


def test_what_a_background_answer_will_cost_is_held_until_it_is_fetched(budgeted: House) -> None:
    ada = budgeted.caller("later")
    with openai.OpenAI(base_url=f"{budgeted.url}/v1", api_key=ada.key, max_retries=0) as sdk:
        made = sdk.responses.create(model="gpt-5-mini", input="take your time", background=True)
        with pytest.raises(openai.RateLimitError, match=r"`in-time` .* is held by running calls"):
            sdk.responses.create(model="gpt-5-mini", input="and again", background=True)
        while sdk.responses.retrieve(made.id).status != "completed":
            pass
        eventually(lambda: counter_of(ada)["held_nusd"] == 0, "it is held although it was fetched")
        sdk.responses.create(model="gpt-5-mini", input="and again", background=True)
    spent = [record["cost_nusd"] for record in ada.records(3) if record["usage_source"] == "reported"]
    assert counter_of(ada)["spent_nusd"] == sum(spent) > 0


def counter_of(person: Caller) -> Any:
    """The one counter of a person's."""
    rows = person.house.admin("GET", "/api/budgets").json["budgets"]
    [row] = [row for row in rows if row["scope"] == {"user": person.user}]
    return row


def test_the_commands_show_budgets_and_explain_a_refusal(budgeted: House) -> None:
    with person(budgeted, "day") as ada:
        ada.ask("openai", "chunks=300")
        cost = ada.caller.record()["cost_nusd"]
        call_id = ada.refused("openai").headers["x-callmeter-call"]
        ada.caller.record(call_id)
        [row] = [
            row
            for row in json.loads(command(budgeted, "budgets", "--format", "json"))["budgets"]
            if row["scope"] == {"user": ada.caller.user}
        ]
        assert (row["name"], row["limit_nusd"], row["spent_nusd"], row["held_nusd"]) == ("person-day", 100_000, cost, 0)
        assert (row["left_nusd"], row["overshoot_nusd"]) == (0, cost - 100_000)
        told = command(budgeted, "explain", call_id)
        assert "budget_spent by rule `person-day`" in told
        assert f"budget person-day for user={ada.caller.user}: $0.00010, day" in told
        assert f"spent {format_usd(cost)}, held $0.00, left $0.00, resets 20" in told


def command(house: House, *words: str) -> str:
    environ = clean_environ() | {"CALLMETER_ADMIN_URL": house.admin_url, "CALLMETER_ADMIN_TOKEN": house.token}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *words],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
