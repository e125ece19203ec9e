"""`callmeter task`: a task key and the environment for agents, offline."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner, Result

from proxy.commands.task import task
from proxy.core.keys import Caveat, attenuate, make_key, parse, verify

SECRET = b"a secret of the server"
KEY = make_key(SECRET, "abcdefgh2345")
ENVIRONMENT = {"CALLMETER_KEY": KEY, "CALLMETER_URL": "https://meter.example/", "GOOGLE_API_KEY": ""}


def task_command(*arguments: str, **environment: str) -> Result:
    result = CliRunner(env=ENVIRONMENT | environment).invoke(task, arguments)
    assert "Traceback" not in result.output
    return result


def test_it_prints_a_task_key_alone() -> None:
    result = task_command("PAY-7")
    parsed = parse(result.stdout.removesuffix("\n"))
    assert verify(parsed, [SECRET])
    assert parsed.task == "PAY-7"


@pytest.mark.parametrize("form", [(), ("--shell",)])
def test_it_tells_the_line_that_links_the_work_beside_the_key(form: tuple[str, ...]) -> None:
    result = task_command("PAY-7", *form)
    assert result.stderr.endswith("comes to: Task: PAY-7\n")
    assert "Task:" not in result.stdout
    as_json = task_command("PAY-7", "--json")
    assert (json.loads(as_json.stdout)["trailer"], as_json.stderr) == ("Task: PAY-7", "")


@pytest.mark.parametrize("option", ["--models", "--upstreams"])
def test_an_empty_limit_is_refused_rather_than_none(option: str) -> None:
    result = task_command("PAY-7", option, " ,")
    assert result.exit_code == 2
    assert f"{option} is empty" in result.stderr
    assert "cm_" not in result.output


def test_limits_become_caveats() -> None:
    result = task_command(
        *("PAY-7", "--max-cost", "$5", "--expires", "2099-01-01T00:00:00Z"),
        *("--models", "gpt-*,o4", "--models", "claude-*", "--upstreams", "openai"),
    )
    parsed = parse(result.stdout.strip())
    assert list(parsed.max_cost_nusd.values()) == [5_000_000_000]
    assert parsed.expires_at_ms == 4_070_908_800_000
    assert parsed.models == (("gpt-*", "o4", "claude-*"),)
    assert parsed.upstreams == (("openai",),)


def test_shell_prints_lines_that_a_shell_takes() -> None:
    result = task_command("it's PAY-7", "--shell")
    script = (
        result.stdout
        + 'printf "%s\\n" "$OPENAI_BASE_URL" "$ANTHROPIC_BASE_URL" "$GOOGLE_GEMINI_BASE_URL" "$CALLMETER_KEY"'
    )
    shown = subprocess.run(["/bin/sh", "-eu"], input=script, capture_output=True, text=True, check=True).stdout.split()
    assert shown[:3] == ["https://meter.example/v1", "https://meter.example", "https://meter.example"]
    assert parse(shown[3]).task == "it's PAY-7"
    assert all(line.startswith("export ") for line in result.stdout.splitlines())


def test_every_credential_in_the_environment_is_the_task_key() -> None:
    shown = json.loads(task_command("PAY-7", "--json", GOOGLE_API_KEY="AIza-own").stdout)
    assert shown["task"] == "PAY-7"
    assert shown["expires_at"] is None
    environment = shown["environment"]
    names = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY")
    assert {environment[name] for name in (*names, "CALLMETER_KEY")} == {shown["key"]}


def test_the_url_of_this_machine_is_the_default() -> None:
    assert "export OPENAI_BASE_URL=http://127.0.0.1:8080/v1" in task_command("T", "--shell", CALLMETER_URL="").stdout


def test_a_task_key_can_be_narrowed_again_but_not_to_another_task() -> None:
    narrow = attenuate(KEY, [Caveat("task", "PAY-7")])
    again = task_command("PAY-7", "--max-cost", "$1", CALLMETER_KEY=narrow)
    assert parse(again.stdout.strip()).task == "PAY-7"
    other = task_command("PAY-8", CALLMETER_KEY=narrow)
    assert other.exit_code == 1
    assert "for task `PAY-7` and cannot be narrowed to `PAY-8`" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["T"], {"CALLMETER_KEY": ""}, "CALLMETER_KEY is not set"),
        (["T"], {"CALLMETER_KEY": "sk-own-secret"}, "CALLMETER_KEY: this is no Callmeter key"),
        (["T"], {"CALLMETER_URL": "meter.example"}, "CALLMETER_URL is `meter.example`"),
        (["T" * 129], {}, "a task is 1 to 128 printable characters"),
        ([""], {}, "a task is 1 to 128 printable characters"),
        (["T", "--max-cost", "5"], {}, "write dollars like `$25`"),
        (["T", "--expires", "soon"], {}, "`soon` is no time"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    arguments: list[str], environment: dict[str, str], sentence: str
) -> None:
    result = task_command(*arguments, **environment)
    assert result.exit_code in (1, 2)
    assert sentence in result.stderr
    assert "sk-own-secret" not in result.output
