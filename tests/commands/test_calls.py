"""`callmeter calls`, against the real admin port over a real ledger."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
from click.testing import CliRunner, Result

from proxy.commands import calls as module
from proxy.commands.admin_client import AdminClient, AdminError
from proxy.commands.calls import HEADS, calls, table_row
from proxy.core.record import public
from proxy.core.usage import Usage
from tests.support.admin_server import Admin
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused


def calls_command(*arguments: str) -> Result:
    result = CliRunner().invoke(calls, arguments)
    assert "Traceback" not in result.output
    return result


def test_the_table_shows_a_line_for_each_call_in_120_columns(admin: Admin) -> None:
    long = made(2, user="a-very-long-user-name", task="feature/" + "x" * 90, model="m" * 80, cost_source="assumed")
    admin.ledger.ingest(entries(made(1, ms_total=1234.5), long, refused(3, count=12)))
    lines = calls_command().stdout.splitlines()
    assert lines[0].split("  ")[0] == HEADS[0]
    assert len(lines) == 4
    assert max(map(len, lines)) <= 120
    assert "ada" in lines[1]
    assert "PAY-7" in lines[1]
    assert "1,100" in lines[1]
    assert "$0.0012" in lines[1]
    assert lines[1].endswith("1234")
    assert "~$0.0012" in lines[2]
    assert "12x not_allowed" in lines[3]


def test_jsonl_is_the_record_of_the_contract_a_line_each(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, task="Zoë"), made(2)))
    lines = calls_command("--format", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [public(made(1, task="Zoë")), public(made(2))]


def test_csv_has_a_head_and_spreadsheets_take_no_name_for_a_formula(admin: Admin) -> None:
    usage = Usage(input=5, requests={"web_search": 2})
    admin.ledger.ingest(entries(made(1, task="=cmd()", labels={"a": "b"}, usage=usage)))
    [row] = csv.DictReader(io.StringIO(calls_command("--format", "csv").stdout))
    assert (row["call_id"], row["task"], row["labels"]) == ("call000001", "'=cmd()", "a=b")
    assert (row["input"], row["requests"], row["cost_nusd"]) == ("5", "2", "1200000")


def test_csv_has_its_head_also_where_nothing_is_found(admin: Admin) -> None:
    assert calls_command("--format", "csv").stdout.startswith("call_id,revision,at,")


def test_no_model_of_a_caller_breaks_a_line_of_csv_or_steers_a_terminal(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, model_asked="gpt\x1b[31m\x00\n,x")))
    lines = calls_command("--format", "csv").stdout.splitlines()
    assert len(lines) == 2
    assert '"gpt\ufffd[31m\ufffd\ufffd,x"' in lines[1]


def test_times_the_wrong_way_round_are_told(admin: Admin) -> None:
    result = calls_command("--since", "1h", "--until", "2h")
    assert result.exit_code == 1
    assert "`since` (`1h`) is after `until` (`2h`)" in result.stderr


def test_filters_are_passed_on(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, user="bob"), made(3, at_ms=AT_MS - 9 * HOUR_MS)))
    assert "call000002" in calls_command("--user", "bob", "--format", "jsonl").stdout
    assert len(calls_command("--since", "1d", "--format", "jsonl").stdout.splitlines()) == 3
    assert len(calls_command("--since", "1d", "--until", "1h", "--format", "jsonl").stdout.splitlines()) == 1


def test_many_calls_come_in_pages_and_none_is_missed(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_CALLS", 3)
    admin.ledger.ingest(entries(*(made(number) for number in range(10))))
    lines = calls_command("--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["call_id"] for line in lines] == [f"call{number:06d}" for number in range(10)]


def test_no_calls_is_a_sentence_that_says_what_to_try(admin: Admin) -> None:
    result = calls_command("--user", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "no calls since 1h with user `nobody`; look further back with `--since 30d`\n"
    assert calls_command("--user", "nobody", "--since", "90d").stderr == "no calls since 90d with user `nobody`\n"
    assert "further back" not in calls_command("--since", "2020-01-01", "--until", "2020-02-01").stderr


def test_a_wrong_time_is_the_sentence_of_the_api(admin: Admin) -> None:
    result = calls_command("--since", "yesterday")
    assert result.exit_code == 1
    assert "`since` is `yesterday`; write `1h`" in result.stderr


def test_follow_shows_calls_as_they_come_until_ctrl_c(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.ledger.ingest(entries(made(1)))
    rounds = iter(range(3))

    def later(_seconds: float) -> None:
        number = next(rounds)
        if number == 2:
            raise KeyboardInterrupt
        admin.ledger.ingest(entries(made(number + 2), first=number + 2))

    monkeypatch.setattr(time, "sleep", later)
    result = calls_command("--follow", "--format", "jsonl")
    assert result.exit_code == 0
    shown = [json.loads(line)["call_id"] for line in result.stdout.splitlines()]
    assert shown == ["call000001", "call000002", "call000003"]


def test_follow_waits_for_a_proxy_that_is_started_anew(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.ledger.ingest(entries(made(1)))
    rounds = iter(range(4))
    get = AdminClient.get
    away = False

    def sometimes(self: AdminClient, *arguments: object) -> object:
        if away:
            raise AdminError("the proxy is away.")
        return get(self, *arguments)  # type: ignore[arg-type]

    def later(_seconds: float) -> None:
        nonlocal away
        number = next(rounds)
        away = number in (0, 1)
        if number == 2:
            admin.ledger.ingest(entries(made(2), first=2))
        if number == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(AdminClient, "get", sometimes)
    monkeypatch.setattr(time, "sleep", later)
    result = calls_command("--follow", "--format", "jsonl")
    assert [json.loads(line)["call_id"] for line in result.stdout.splitlines()] == ["call000001", "call000002"]
    assert result.stderr == "the proxy is away. Waiting.\n"


def test_follow_has_no_end(admin: Admin) -> None:
    result = calls_command("--follow", "--until", "1h")
    assert result.exit_code == 2
    assert "leave out --until" in result.stderr


def test_no_name_can_steer_the_terminal() -> None:
    line = table_row(public(made(1, task="\x1b[2Jgone", user="a\nb")))
    assert line.isprintable()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"cost_nusd": None}, "unpriced"),
        ({"cost_nusd": 0, "usage_source": "estimated"}, "$0.00"),
        ({"usage_source": "partial"}, "~$0.0012"),
        ({}, "$0.0012"),
    ],
)
def test_a_cost_says_what_it_rests_on(changes: dict[str, object], shown: str) -> None:
    assert module.cost(public(made(1, **changes))) == shown


def test_an_answer_from_a_twin_is_told_in_the_table() -> None:
    shown = [table_row(public(made(1, replayed=True, joined=joined))).split()[5] for joined in (False, True)]
    assert shown == ["replayed", "joined"]
    assert table_row(public(made(1, replayed=True, result="client_gone"))).split()[5] == "client_gone"


def test_why_a_call_was_refused_is_asked_for_with_an_option_of_its_own() -> None:
    result = calls_command("--result", "duplicate")
    assert result.exit_code == 2
    assert "`duplicate` is why calls are refused; ask with --refusal duplicate" in result.stderr
    assert "`joined` calls are `ok`" in calls_command("--result", "joined").stderr
