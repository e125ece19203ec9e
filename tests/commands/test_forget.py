"""`callmeter forget`, against the real admin port over a real ledger."""

from __future__ import annotations

import pytest
from click.testing import CliRunner, Result

from proxy.commands.forget import forget
from tests.support.admin_server import Admin
from tests.support.ledger_calls import entries, made


def run(*arguments: str, answer: str = "") -> Result:
    result = CliRunner().invoke(forget, arguments, input=answer)
    assert "Traceback" not in result.output
    return result


def test_it_asks_before_it_deletes(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1), made(2)))
    assert run("--user", "ada", answer="n\n").exit_code == 1
    assert admin.ledger.report(["user"], since_ms=0, until_ms=2 * made(1).at_ms).rows[0].values == ("ada",)
    result = run("--user", "ada", answer="y\n")
    assert result.exit_code == 0
    assert "2 calls of `ada` belong to `forgotten` now" in result.stdout
    assert "Not reached from here" in result.stderr


def test_old_calls_can_be_dropped(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1)))
    admin.now_ms += 100 * 86_400_000
    result = run("--calls-before", "40d", "--yes")
    assert result.stdout.startswith("1 calls dropped")
    assert admin.ledger.call("call000001") is None


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "either --user or --calls-before"),
        (("--user", "ada", "--calls-before", "40d"), "either --user or --calls-before"),
        (("--user", "forgotten", "--yes"), "nobody's name"),
        (("--calls-before", "1d", "--yes"), "35 days"),
        (("--calls-before", "soon", "--yes"), "calls_before"),
    ],
)
def test_what_cannot_be_done_is_said(admin: Admin, arguments: tuple[str, ...], word: str) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert word in result.stderr
