"""`callmeter check`: every fault of the policy files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.commands.check import check

GOOD = "upstreams: {a: {url: 'http://127.0.0.1:1', key: '${SOME_KEY}'}}\naccess: [{name: r}]\n"


def check_command(*arguments: str, **environment: str) -> Result:
    result = CliRunner(env={"CALLMETER_POLICIES": None, "SOME_KEY": None} | environment).invoke(check, arguments)
    assert "Traceback" not in result.output
    return result


def test_a_good_policy_is_summed_up_and_warnings_are_no_faults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    result = check_command(str(tmp_path))
    warning, summary = result.stdout.splitlines()
    assert result.exit_code == 0
    assert warning.startswith(f"{tmp_path}/a.yaml:1:49: warning: upstreams: a: key: `SOME_KEY` is not set")
    assert summary.startswith(f"{tmp_path}: no faults; policy ")
    assert " has 1 upstream, 1 access rule, 0 budgets, 0 duplicates rules, " in summary
    assert summary.endswith(", 0 outcomes rules, 0 unproven rules, 0 prices")
    assert check_command(str(tmp_path), SOME_KEY="x").stdout.count("\n") == 1


def test_every_fault_of_every_file_is_printed_and_the_exit_code_is_1(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("upstreams: {a: {url: x, kay: secret-of-mine}}")
    (tmp_path / "b.yaml").write_text("defaults: {mode: x}")
    result = check_command(str(tmp_path))
    assert result.exit_code == 1
    assert [line.split(" ")[0] for line in result.stdout.splitlines()] == [
        f"{tmp_path}/a.yaml:1:22:",
        f"{tmp_path}/a.yaml:1:25:",
        f"{tmp_path}/b.yaml:1:18:",
    ]
    assert "secret-of-mine" not in result.output


@pytest.mark.parametrize(
    ("name", "message"), [("missing", "there is no such directory"), (".", "holds no policy file")]
)
def test_a_directory_without_policies_is_a_fault(tmp_path: Path, name: str, message: str) -> None:
    result = check_command(str(tmp_path / name))
    assert result.exit_code == 1
    assert f":1:1: {message}" in result.stdout


def test_without_an_argument_it_checks_what_serve_would_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    assert check_command(CALLMETER_POLICIES=str(tmp_path)).exit_code == 0
