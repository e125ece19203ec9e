"""`callmeter twins` and `/api/twins`, over a real ledger."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from proxy.commands.twins import twins
from tests.support.admin_server import Admin
from tests.support.ledger_calls import entries, made


def twins_command(*arguments: str) -> Result:
    result = CliRunner().invoke(twins, arguments)
    assert "Traceback" not in result.output
    return result


def copied(admin: Admin, kind: str = "task") -> None:
    admin.ledger.ingest(
        entries(
            made(1),
            made(2, task="PAY-9", user="ben", twin_of="call000001", twin_kind=kind, cost_nusd=2_000_000),
            made(3, task="PAY-8\x1b[2J", twin_of="call000001", cost_nusd=1_000_000_000),
        )
    )


def test_a_group_is_a_table_and_a_sentence(admin: Admin) -> None:
    copied(admin)
    lines = twins_command("--since", "30d").stdout.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["TASK", "USER", "BEGUN", "(UTC)", "REPEATS", "TIMES", "CALLS", "REFUSED", "COST"],
        ["PAY-7", "ada", *lines[1].split()[2:4], "-", "1", "1", "0", "$0.0012"],
    ]
    assert "PAY-7 of ada" in lines[3]
    assert "\x1b" not in lines[2]
    assert lines[4] == "The same work 3 times, by 2 people: $1.00 in all; done once, it would have cost $0.0012."


def test_work_that_was_refused_is_not_said_to_be_done(admin: Admin) -> None:
    no = made(2, task="PAY-9", twin_of="call000001", result="refused", refusal="duplicate", cost_nusd=0)
    admin.ledger.ingest(entries(made(1), no))
    lines = twins_command("--since", "30d").stdout.splitlines()
    assert lines[2].split()[-4:] == ["1", "1", "1", "$0.00"]
    assert lines[3].startswith("The same work 2 times, by one person, 1 of its 2 calls refused: $0.0012 in all;")


def test_json_is_the_answer_of_the_api_with_users_in_the_order_of_names(admin: Admin) -> None:
    copied(admin)
    [group] = json.loads(twins_command("--since", "30d", "--format", "json").stdout)["groups"]
    assert [(task["task"][:5], task["user"]) for task in group["tasks"]] == [
        ("PAY-7", "ada"),
        ("PAY-8", "ada"),
        ("PAY-9", "ben"),
    ]
    assert group["tasks"][2]["repeats"] == {
        "task": "PAY-7",
        "user": "ada",
        "call_id": "call000002",
        "twin_of": "call000001",
        "rule": None,
        "kind": "task",
    }
    assert (group["cost_nusd"], group["one_cost_nusd"]) == (1_003_200_000, 1_200_000)


def test_what_is_only_alike_is_said_to_be(admin: Admin) -> None:
    copied(admin, "similar")
    lines = twins_command("--since", "30d").stdout.splitlines()
    assert "like PAY-7 of ada" in lines[3]
    assert lines[4].startswith("The same work, or much alike, 3 times, by 2 people")


def test_no_twins_are_no_error(admin: Admin) -> None:
    result = twins_command()
    assert result.exit_code == 0
    assert "no task repeats another since 7d" in result.stderr


def test_a_time_that_is_none_is_named(admin: Admin) -> None:
    result = twins_command("--since", "yesterday")
    assert result.exit_code == 1
    assert "`since` is `yesterday`" in result.stderr


def test_there_is_no_way_to_sort_by_use(admin: Admin) -> None:
    assert {option for parameter in twins.params for option in parameter.opts} == {"--since", "--until", "--format"}
