"""`callmeter outcome`, against the real admin port over a real ledger."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from proxy.commands.outcome import outcome
from tests.support.admin_server import Admin
from tests.support.policies import policy_of


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(outcome, arguments)
    assert "Traceback" not in result.output
    return result


def test_an_outcome_that_is_declared_without_a_rule_is_shown_and_never_accepted(admin: Admin) -> None:
    result = run("add", "PAY-7", "--change", "the refund page")
    assert result.exit_code == 0
    assert "PAY-7" in result.stdout
    assert "self_declared" in result.stdout
    assert "it is never accepted" in result.stderr
    listed = run("list")
    assert listed.stdout.splitlines()[1].endswith("the refund page  self_declared  1       pending")


def test_a_rule_may_let_it_count(admin: Admin) -> None:
    admin.policy = policy_of("outcomes: [{name: told, from: declared, accepted_after: 2d}]")
    result = run("add", "PAY-7", "--rule", "told")
    assert "pending until " in result.stdout
    assert result.stderr == ""
    wrong = run("add", "PAY-7", "--rule", "other")
    assert wrong.exit_code == 1
    assert "no rule `other` has `from: declared`; there is `told`" in wrong.stderr


def test_lists_are_filtered_and_say_so_where_there_is_nothing(admin: Admin) -> None:
    assert "no outcome is known" in run("list").stderr
    run("add", "PAY-7")
    run("add", "PAY-8")
    answer = json.loads(run("list", "--task", "PAY-8", "--state", "pending", "--format", "json").stdout)
    assert [found["task"] for found in answer["outcomes"]] == ["PAY-8"]
    assert "no such outcome is known" in run("list", "--state", "undone").stderr
    assert run("list", "--state", "lost").exit_code == 2
