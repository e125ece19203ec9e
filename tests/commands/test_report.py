"""`callmeter report`, against the real admin port over a real ledger."""

from __future__ import annotations

import csv
import io
import json

from click.testing import CliRunner, Result

from proxy.commands.report import report
from proxy.core.outcomes import Team
from proxy.core.policy import Policy
from tests.support.admin_server import Admin
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused
from tests.support.outcome_rows import DAY_MS, landed, put


def report_command(*arguments: str) -> Result:
    result = CliRunner().invoke(report, arguments)
    assert "Traceback" not in result.output
    return result


def test_the_table_ends_with_the_total(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, task=None), refused(3)))
    lines = report_command().stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["TASK", "CALLS", "REFUSED", "FAILED", "TOKENS", "REPEATED", "COST"],
        ["PAY-7", "2", "1", "0", "1,100", "-", "$0.0012"],
        ["-", "1", "0", "0", "1,100", "-", "$0.0012"],
        ["-" * len(lines[0])],
        ["TOTAL", "3", "1", "0", "2,200", "-", "$0.0024"],
    ]


def test_the_share_of_the_money_that_went_into_repeats_is_shown(admin: Admin) -> None:
    admin.ledger.ingest(
        entries(
            made(1),
            made(2, moved_on=False, twin_of="call000001"),
            made(3, moved_on=False, cost_nusd=2_400_000),
            made(4, task="PAY-8", cost_nusd=10_000_000),
            made(5, task="PAY-8", moved_on=False, twin_of="call000004", cost_nusd=20_000),
        )
    )
    lines = report_command().stdout.splitlines()
    assert [(line.split()[0], line.split()[-2]) for line in lines if "$" in line] == [
        ("PAY-7", "75%"),
        ("PAY-8", "<1%"),
        ("TOTAL", "24%"),
    ]
    [row, _] = json.loads(report_command("--format", "json").stdout)["rows"]
    assert (row["repeat_calls"], row["repeat_nusd"]) == (2, 3_600_000)


def test_what_the_cost_rests_on_is_said_below(admin: Admin) -> None:
    admin.ledger.ingest(
        entries(made(1, cost_nusd=None, cost_source="none"), made(2, cost_source="assumed"), made(3, result="lost"))
    )
    output = report_command("--by", "team,user").stdout
    assert "1 call has no price and is not" in output
    assert "1 call of an unknown model counts" in output
    assert "callmeter reprice" in output
    assert "1 call was cut off with the proxy and counts" in output


def test_what_is_said_below_of_several_calls_is_said_of_several(admin: Admin) -> None:
    unpriced = [made(number, cost_nusd=None, cost_source="none") for number in (1, 2)]
    admin.ledger.ingest(entries(*unpriced, *(made(number, cost_source="assumed") for number in (3, 4))))
    output = report_command().stdout
    assert "2 calls have no price and are not" in output
    assert "2 calls of unknown models count" in output


def test_json_is_the_answer_of_the_api(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, user="bob")))
    answer = json.loads(report_command("--by", "user", "--format", "json").stdout)
    assert [row["user"] for row in answer["rows"]] == ["ada", "bob"]
    assert answer["total"]["cost_nusd"] == 2_400_000


def test_csv_tells_the_total_from_the_rows(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, team="-payments"), made(2, team="total")))
    rows = list(csv.DictReader(io.StringIO(report_command("--by", "team,model", "--format", "csv").stdout)))
    assert [(row["row"], row["team"], row["cost_usd"]) for row in rows] == [
        ("row", "'-payments", "0.0012"),
        ("row", "total", "0.0012"),
        ("total", "", "0.0024"),
    ]


def test_an_empty_report_says_what_to_try(admin: Admin) -> None:
    result = report_command("--since", "1d")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no calls since 1d" in result.stderr


def test_outcomes_stand_beside_the_cost_and_a_team_beside_its_tension(admin: Admin) -> None:
    admin.policy = Policy(teams=(Team(name="payments", unit="merged", size=8), Team(name="ops", unit="merged", size=2)))
    admin.ledger.ingest(
        entries(
            made(1, cost_nusd=4_000_000_000),
            made(2, task="PAY-8", cost_nusd=1_000_000_000, repeats=1, twin_of="call000001"),
            made(3, team="ops", task=None, cost_nusd=1, shadow=["task-needed"]),
            made(4, at_ms=AT_MS - 31 * DAY_MS, cost_nusd=10_000_000_000),
        )
    )
    put(
        admin.ledger,
        landed(1, landed_ms=AT_MS - DAY_MS),
        landed(2, task="PAY-9", landed_ms=AT_MS - 2 * HOUR_MS, state="undone"),
    )
    output = report_command("--by", "team").stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[0].endswith("REPEATED COST TREND ACCEPTED PER CHANGE HALF LIE IN UNPROVEN UNDONE")
    assert lines[2].endswith("20% $5.00 -50% 1 $14.00 $14.00 to $14.00 20% -")
    assert lines[5].endswith("20% $5.00 -50% 1 $14.00 $14.00 to $14.00 20% 50%")
    assert "payments: 1 x merged, $5.00 each, 0.03 per person and week; undone -, repeated 20%, unproven 20%" in output
    assert "ops: fewer than 5 people, whose delivery is not shown apart" in output
    assert "1 call passed that a rule in shadow mode would have refused." in output
    rows = list(csv.DictReader(io.StringIO(report_command("--by", "team", "--format", "csv").stdout)))
    assert [(row["team"], row["accepted_nusd"], row["delivery_units"]) for row in rows[1:3]] == [
        ("payments", "4000000000", "1"),
        ("", "0", ""),
    ]
    outcomes = report_command("--by", "outcome").stdout
    assert "merged acme/pay base-1 accepted" in outcomes


def test_nothing_sorts_people_by_use(admin: Admin) -> None:
    result = report_command("--by", "user", "--sort", "cost")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_an_unknown_name_is_told_with_those_there_are(admin: Admin) -> None:
    result = report_command("--by", "spend")
    assert result.exit_code == 1
    assert "`spend` is nothing to report by; write one or more of task, team, user" in result.stderr
