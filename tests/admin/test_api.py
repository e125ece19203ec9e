"""The admin port as its clients meet it: one token, JSON figures, problems that say what to do."""

from __future__ import annotations

import io
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from proxy.admin.api import admin_app
from proxy.core.record import Record, public
from tests.support.admin_server import NOW_MS, TOKEN, Admin
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused

Client = TestClient[web.Request, web.Application]


async def problem_of(answer: aiohttp.ClientResponse, status: int) -> dict[str, Any]:
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    problem: dict[str, Any] = msgspec.json.decode(await answer.read())
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    return problem


# -- the token -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/"])
async def test_health_and_the_front_page_need_no_token(client: Client, path: str) -> None:
    assert (await client.get(path, headers={"authorization": ""})).status == 200


@pytest.mark.parametrize("path", ["/api/calls", "/api/report", "/api/keys", "/metrics", "/api/policy", "/api/nothing"])
@pytest.mark.parametrize("given", ["", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"])
async def test_everything_else_needs_the_token(client: Client, path: str, given: str) -> None:
    answer = await client.get(path, headers={"authorization": given})
    problem = await problem_of(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "CALLMETER_ADMIN_TOKEN" in problem["detail"]
    assert TOKEN not in problem["detail"]


async def test_the_token_works_in_any_case_of_its_scheme(client: Client) -> None:
    assert (await client.get("/api/calls", headers={"authorization": f"bearer {TOKEN}"})).status == 200


async def test_an_unknown_path_and_a_wrong_method_are_problems(client: Client) -> None:
    assert "/api/nothing" in (await problem_of(await client.get("/api/nothing"), 404))["detail"]
    answer = await client.delete("/api/keys")
    assert "GET" in (await problem_of(answer, 405))["detail"]
    assert answer.headers["allow"] == "GET, HEAD, POST"


# -- health --------------------------------------------------------------------------------------------------------


async def test_readiness_says_what_is_not_ready(client: Client, admin: Admin) -> None:
    answer = await client.get("/readyz")
    assert (answer.status, await answer.json()) == (200, {"ready": True, "faults": {}})
    admin.faults["store"] = "the store cannot be reached"
    answer = await client.get("/readyz")
    assert answer.status == 503
    assert await answer.json() == {"ready": False, "faults": {"store": "the store cannot be reached"}}
    assert (await client.get("/healthz")).status == 200


async def test_the_front_page_says_what_is_where_and_loads_nothing(client: Client) -> None:
    answer = await client.get("/")
    text = await answer.text()
    assert "/api/calls" in text
    assert "callmeter calls" in text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_metrics_and_policy_come_from_the_process(client: Client) -> None:
    answer = await client.get("/metrics")
    assert (answer.content_type, await answer.text()) == ("text/plain", "callmeter_up 1\n")
    assert await (await client.get("/api/policy")).json() == {"version": "v1", "faults": []}


# -- calls and reports ---------------------------------------------------------------------------------------------


async def test_calls_are_records_oldest_first_with_a_cursor(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), refused(2), made(3)))
    first = await (await client.get("/api/calls", params={"limit": "2", "since": "1h"})).json()
    assert [call["call_id"] for call in first["calls"]] == ["call000001", "call000002"]
    assert first["calls"][0] == public(made(1))
    assert first["calls"][0]["at"].endswith("Z")
    rest = await (await client.get("/api/calls", params={"limit": "2", "cursor": first["next"]})).json()
    assert [call["call_id"] for call in rest["calls"]] == ["call000003"]
    assert rest["next"] is None


async def test_a_follower_is_always_given_a_place_to_go_on_from(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1)))
    page = await (await client.get("/api/calls", params={"follow": "true"})).json()
    admin.ledger.ingest(entries(made(2), first=2))
    more = await (await client.get("/api/calls", params={"follow": "true", "cursor": page["next"]})).json()
    assert [call["call_id"] for call in more["calls"]] == ["call000002"]


async def test_calls_are_filtered(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, user="bob", task="feature/x"), refused(3)))

    async def ids(**params: str) -> list[str]:
        return [call["call_id"] for call in (await (await client.get("/api/calls", params=params)).json())["calls"]]

    assert await ids(user="bob") == await ids(task="feature/x") == ["call000002"]
    assert await ids(result="refused") == await ids(refusal="not_allowed") == await ids(rule="no-frontier")
    assert await ids(until=str(AT_MS + 2)) == ["call000001"]
    assert await ids(user="") == ["call000001", "call000002", "call000003"]


@pytest.mark.parametrize(
    ("params", "parameter"),
    [
        ({"since": "yesterday"}, "since"),
        ({"until": "1y"}, "until"),
        ({"result": "great"}, "result"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"follow": "yes"}, "follow"),
        ({"usr": "ada"}, "usr"),
    ],
)
async def test_a_wrong_parameter_is_named(client: Client, params: dict[str, str], parameter: str) -> None:
    assert (await problem_of(await client.get("/api/calls", params=params), 400))["parameter"] == parameter


async def test_a_report_has_rows_by_name_and_their_total(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, user="cy", cost_nusd=900), made(2, user="ada"), refused(3, user="bob")))
    report = await (await client.get("/api/report", params={"by": "user,model", "since": "7d"})).json()
    assert [row["user"] for row in report["rows"]] == ["ada", "bob", "cy"]
    assert report["rows"][0]["cost_nusd"] == 1_200_000
    assert report["rows"][0]["usage"]["input"] == 1000
    assert report["total"]["cost_nusd"] == sum(row["cost_nusd"] for row in report["rows"]) == 1_200_900
    assert (report["total"]["calls"], report["total"]["refused"]) == (3, 1)
    assert report["by"] == ["user", "model"]


async def test_a_report_takes_whole_hours_of_a_duration_and_written_times_as_they_are(
    client: Client, admin: Admin
) -> None:
    admin.ledger.ingest(entries(made(1), made(2, at_ms=AT_MS - 2 * HOUR_MS)))

    async def calls(**params: str) -> int:
        total = (await (await client.get("/api/report", params=params)).json())["total"]
        return int(total["calls"])

    assert await calls(since="10m") == 1  # both began within the hour of `since`
    assert await calls(since=str(NOW_MS - 600_000)) == 0
    assert await calls(since="1d", until="1h") == 1
    assert await calls() == 2


@pytest.mark.parametrize(
    ("params", "parameter"),
    [({"by": "spend"}, "by"), ({"timezone": "Mars/Base"}, "timezone"), ({"sort": "cost"}, "sort"), ({"by": ","}, "by")],
)
async def test_a_report_that_cannot_be_names_its_parameter(
    client: Client, params: dict[str, str], parameter: str
) -> None:
    assert (await problem_of(await client.get("/api/report", params=params), 400))["parameter"] == parameter


async def test_a_task_may_be_named_like_a_branch(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, task="feature/x y"), made(2, task="feature/x y", user="bob")))
    task = await (await client.get("/api/tasks/feature%2Fx%20y")).json()
    assert (task["task"], task["calls"], task["cost_nusd"]) == ("feature/x y", 2, 2_400_000)
    assert [row["user"] for row in task["by"]] == ["ada", "bob"]
    await problem_of(await client.get("/api/tasks/unheard-of"), 404)


async def test_repricing_goes_on_until_there_is_no_next(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, cost_source="assumed"), made(2, cost_source="assumed", at_ms=AT_MS - HOUR_MS)))

    def better(record: Record) -> Record:
        return msgspec.structs.replace(record, cost_nusd=1, cost_source="policy")

    admin.price = better
    done = await (await client.post("/api/reprice", json={"since": "1h"})).json()
    assert done == {"looked_at": 1, "changed": 1, "difference_nusd": -1_199_999, "next": None}
    await problem_of(await client.post("/api/reprice", json={"since": "soon"}), 400)
    await problem_of(await client.post("/api/reprice", json={"cursor": "x"}), 400)


async def test_a_ledger_that_is_away_is_503_and_says_so(client: Client, admin: Admin, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.execute("DROP TABLE calls")
    connection.close()
    answer = await client.get("/api/calls")
    assert "cannot be used now" in (await problem_of(answer, 503))["detail"]
    assert answer.headers["retry-after"] == "5"


async def test_a_fault_of_ours_is_500_without_its_details(client: Client, admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, cost_source="assumed")))

    def broken(_record: Record) -> Record:
        raise RuntimeError("the inside of the house")

    admin.price = broken
    problem = await problem_of(await client.post("/api/reprice", json={}), 500)
    assert "inside" not in problem["detail"]


# -- keys ----------------------------------------------------------------------------------------------------------


async def test_a_key_is_shown_once_and_what_it_stands_for_always(client: Client) -> None:
    body = {"user": "ada", "team": "payments", "labels": {"cost_center": "4711"}, "expires_at": "90d"}
    answer = await client.post("/api/keys", json=body)
    made_key = await answer.json()
    assert answer.status == 201
    assert answer.headers["cache-control"] == "no-store"
    assert made_key["key"] == f"cm_{made_key['key_id']}_secret"
    listed = await (await client.get("/api/keys")).json()
    [shown] = listed["keys"]
    assert "key" not in shown
    assert (shown["user"], shown["team"], shown["org"], shown["kind"]) == ("ada", "payments", "default", "person")
    assert shown["labels"] == {"cost_center": "4711"}
    assert shown["expires_at"].endswith("Z")
    assert shown["revoked_at"] is None


async def test_a_key_is_changed_and_revoked(client: Client) -> None:
    key_id = (await (await client.post("/api/keys", json={"user": "ada", "expires_at": "1d"})).json())["key_id"]
    changed = await (await client.patch(f"/api/keys/{key_id}", json={"team": "search", "expires_at": None})).json()
    assert (changed["team"], changed["expires_at"], changed["version"]) == ("search", None, 2)
    revoked = await (await client.post(f"/api/keys/{key_id}/revoke", json={})).json()
    assert revoked["revoked_at"]
    await problem_of(await client.patch("/api/keys/missing", json={"team": "x"}), 404)
    await problem_of(await client.patch("/api/keys/missing", json={"acts_for": "ci-*"}), 404)
    problem = await problem_of(await client.patch(f"/api/keys/{key_id}", json={"acts_for": "ci-*"}), 400)
    assert "kind `service`" in problem["detail"]
    await problem_of(await client.post("/api/keys/missing/revoke"), 404)


async def test_an_import_makes_all_keys_or_none(client: Client, admin: Admin) -> None:
    wanted: list[dict[str, Any]] = [{"user": "ada"}, {"user": "bob", "team": "search"}]
    imported = (await (await client.post("/api/keys/import", json={"keys": wanted})).json())["keys"]
    assert [(key["user"], key["key"].startswith("cm_")) for key in imported] == [("ada", True), ("bob", True)]
    problem = await problem_of(
        await client.post(
            "/api/keys/import", json={"keys": [*wanted, {"user": " "}, {"user": "x", "expires_at": "1y"}]}
        ),
        400,
    )
    assert "keys[2]: `user`" in problem["detail"]
    assert "keys[3]: `expires_at`" in problem["detail"]
    assert "no key was made" in problem["detail"]
    assert len(admin.ledger.keys.list()) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "missing required field `user`"),
        ({"user": 5}, "Expected `str`"),
        ({"user": "ada", "admin": True}, "unknown field `admin`"),
        ({"user": "a\nb"}, "printable"),
        ({"user": "x" * 200}, "1 to 128"),
        ({"user": "ada", "labels": {"": "x"}}, "label"),
        ({"user": "ada", "labels": {f"l{n}": "x" for n in range(40)}}, "at most 32"),
        ({"user": "ada", "kind": "robot"}, "robot"),
        ({"user": "ada", "acts_for": "ci-*"}, "kind `service`"),
        ({"user": "ada", "expires_at": "2020-01-01T00:00:00Z"}, "not in the future"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_with_the_reason(
    client: Client, admin: Admin, body: dict[str, Any], words: str
) -> None:
    problem = await problem_of(await client.post("/api/keys", json=body), 400)
    assert words in problem["detail"]
    assert admin.ledger.keys.list() == []


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"5"])
async def test_a_body_that_is_no_json_object_is_a_problem(client: Client, data: bytes) -> None:
    assert "the body" in (await problem_of(await client.post("/api/keys", data=data), 400))["detail"]


async def test_a_body_that_is_too_large_is_a_problem(client: Client) -> None:
    await problem_of(await client.post("/api/keys", data=io.BytesIO(b" " * (16 * 1024 * 1024 + 1))), 413)


def test_an_admin_port_without_a_token_does_not_start(admin: Admin) -> None:
    with pytest.raises(ValueError, match="CALLMETER_ADMIN_TOKEN"):
        admin_app(replace(admin.context(), admin_token=""))
