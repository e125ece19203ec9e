"""`callmeter budgets`, `explain` and `rehearse`, against the real admin port over a real ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from proxy.commands.budgets import budgets
from proxy.commands.explain import explain
from proxy.commands.rehearse import rehearse
from tests.support.admin_server import Admin, admin_server
from tests.support.ledger_calls import entries, made, refused
from tests.support.policies import policy_of

POLICY = """
    access: [{name: no-opus, match: {model: "*opus*"}}]
    budgets:
      - {name: person-day, per: user, limit: $25, every: day}
      - {name: team, per: team, limit: 2M tokens, every: rolling 24h, mode: shadow}
"""


@pytest.fixture
def admin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    with admin_server(tmp_path) as admin:
        for name, value in admin.environ.items():
            monkeypatch.setenv(name, value)
        admin.policy = policy_of(POLICY)
        yield admin


def run(command: click.Command, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)
    assert "Traceback" not in result.output
    return result


def test_the_table_shows_each_counter_in_its_unit(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2, user="bob")))
    lines = run(budgets).stdout.splitlines()
    assert lines[1].startswith("person-day  user=ada       day          ")
    assert "$0.0012" in lines[1]
    assert lines[3].split()[:2] == ["team", "team=payments"]
    assert "1,997,800 tokens" in lines[3]
    assert lines[3].endswith("shadow")
    assert len(json.loads(run(budgets, "--format", "json").stdout)["budgets"]) == 3


def test_an_empty_list_says_so(admin: Admin) -> None:
    assert "no budget has anything spent" in run(budgets).stderr


def test_a_raise_is_given_and_listed(admin: Admin) -> None:
    options = ("raise", "person-day", "--for", "user=ada", "--by", "$20", "--until", "3d", "--reason", "launch week")
    assert "person-day for user=ada: $20.00 more until 2026-" in run(budgets, *options).stdout
    assert "open   person-day for user=ada: $20.00 more" in run(budgets, "raises").stdout
    rest = ("--by", "$1", "--until", "1d", "--reason", "x")
    assert "--for user=..." in run(budgets, "raise", "person-day", *rest).output
    assert run(budgets, "raise", "person-day", "--for", "ada", *rest).exit_code == 2


def test_a_refused_call_is_explained(admin: Admin) -> None:
    admin.ledger.ingest(entries(refused(1, refusal="budget_spent", rule="person-day", shadow=["team"])))
    output = run(explain, "call000001").stdout
    assert "budget_spent by rule `person-day`" in output
    assert "would have been refused by team" in output
    assert "budget person-day for user=ada: $25.00, day" in output
    assert "left $25.00, resets 20" in output
    assert "budget team (shadow) for team=payments: 2,000,000 tokens, rolling 24h" in output


@pytest.mark.parametrize(("joined", "waited"), [(False, ""), (True, ", which it waited for")])
def test_a_call_that_was_answered_from_its_twin_is_explained(admin: Admin, joined: bool, waited: str) -> None:
    admin.ledger.ingest(entries(made(1, replayed=True, joined=joined, twin_of="call000000", cost_nusd=0)))
    assert f"answer   that of call call000000{waited}, once more at no cost" in run(explain, "call000001").stdout


def test_a_user_is_explained_without_a_call(admin: Admin) -> None:
    output = run(explain, "--user", "ada", "--model", "claude-opus-9").stdout
    assert "access no-opus: rule `no-opus` refuses this call" in output
    assert run(explain).exit_code == 2
    assert run(explain, "x", "--user", "ada").exit_code == 2
    assert "no call `nothing`" in run(explain, "nothing").output


def test_a_rehearsal_prints_each_rule_and_the_share(admin: Admin, tmp_path: Path) -> None:
    admin.ledger.ingest(entries(made(1), made(2, task="PAY-9"), made(3, task=None, shadow=["team"])))
    folder = tmp_path / "next"
    folder.mkdir()
    (folder / "a.yaml").write_text("budgets: [{name: tight, limit: $0.0012, every: day}]")
    lines = run(rehearse, str(folder), "--since", "1h").stdout.splitlines()
    assert lines[1].split() == ["tight", "refused", "(no", "task),", "PAY-9", "2", "$0.0024"]
    assert lines[2].startswith("team   (said so, in force as shadow)")
    assert lines[-1] == "2 of 3 calls since 1h would have been refused: $0.0024 of $0.0036"


def test_a_rehearsal_of_faulty_files_prints_their_faults(admin: Admin, tmp_path: Path) -> None:
    folder = tmp_path / "next"
    folder.mkdir()
    (folder / "a.yaml").write_text("budget: 5\n")
    result = run(rehearse, str(folder))
    assert result.exit_code == 1
    assert "a.yaml:1:1" in result.stdout
    assert "no such directory" in run(rehearse, str(tmp_path / "nowhere")).output
