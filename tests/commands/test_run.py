"""`callmeter run`: real child processes, that tell what they were started with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from proxy.commands.run import branch_task, prepare
from proxy.commands.task import agent_environment
from proxy.core.keys import Caveat, attenuate, make_key, parse

KEY = make_key(b"a secret of the server", "abcdefgh2345")
ROOT = Path(__file__).resolve().parents[2]
RUN = [sys.executable, "-c", "from proxy.commands.run import run; run()"]
TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"


def run_command(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "CALLMETER_KEY": KEY, "CALLMETER_URL": "http://meter:1"}
    result = subprocess.run(
        [*RUN, *arguments], cwd=cwd, env=variables | environment, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in result.stderr
    return result


def on_branch(directory: Path, branch: str) -> Path:
    subprocess.run(["git", "init", "-q", "-b", branch], cwd=directory, check=True, capture_output=True)
    return directory


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder of programs named like agents; each prints its arguments and its environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("codex", "opencode", "claude", "gemini", "qwen", "my-agent"):
        program = folder / name
        program.write_text(f"#!{sys.executable}\n{TELL}\n")
        program.chmod(0o755)
    return folder


def test_an_agent_does_not_see_where_callmeter_is_imported_from(agents: Path, tmp_path: Path) -> None:
    told = run_command("--task", "PAY-7", "--", str(agents / "my-agent"), cwd=tmp_path)
    assert "PYTHONPATH" not in json.loads(told.stdout)[1]
    more = os.pathsep.join([str(ROOT), "/own/path"])
    told = run_command("--task", "PAY-7", "--", str(agents / "my-agent"), cwd=tmp_path, PYTHONPATH=more)
    assert json.loads(told.stdout)[1]["PYTHONPATH"] == "/own/path"


def started(agents: Path, *arguments: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    path = f"{agents}{os.pathsep}{os.environ['PATH']}"
    result = run_command("--task", "PAY-7", "--", *arguments, cwd=agents, PATH=path, **environment)
    assert result.returncode == 0, result.stderr
    told: tuple[list[str], dict[str, str]] = json.loads(result.stdout)
    return told[0], told[1]


def test_a_command_gets_base_urls_and_a_task_key(agents: Path) -> None:
    arguments, environment = started(agents, "my-agent", "--flag", "-c", "x")
    assert arguments == ["--flag", "-c", "x"]
    assert environment["OPENAI_BASE_URL"] == "http://meter:1/v1"
    assert parse(environment["OPENAI_API_KEY"]).task == "PAY-7"


def test_what_was_set_for_an_unknown_command_is_told_on_stderr(agents: Path) -> None:
    result = run_command("--task", "PAY-7", "--", str(agents / "my-agent"), cwd=agents)
    assert "set for `my-agent`" in result.stderr
    assert "OPENAI_BASE_URL" in result.stderr
    assert KEY[-64:] not in result.stderr


def test_codex_gets_a_provider_in_its_config(agents: Path) -> None:
    arguments, environment = started(agents, "codex", "exec", "hello")
    settings = arguments[1:-2:2]
    assert arguments[0:-2:2] == ["-c"] * len(settings)
    assert arguments[-2:] == ["exec", "hello"]
    config = tomllib.loads("\n".join(settings))
    assert config["model_provider"] == "callmeter"
    provider = config["model_providers"]["callmeter"]
    assert provider["base_url"] == "http://meter:1/v1"
    assert provider["wire_api"] == "responses"
    assert parse(environment[provider["env_key"]]).task == "PAY-7"


def test_opencode_gets_providers_beside_what_its_user_has(agents: Path) -> None:
    own = {"model": "openai/gpt-5", "provider": {"openai": {"options": {"timeout": 1}}, "mine": {}}}
    _, environment = started(agents, "opencode", OPENCODE_CONFIG_CONTENT=json.dumps(own))
    config = json.loads(environment["OPENCODE_CONFIG_CONTENT"])
    assert config["model"] == "openai/gpt-5"
    assert config["provider"]["mine"] == {}
    assert config["provider"]["openai"]["options"]["timeout"] == 1
    assert config["provider"]["openai"]["options"]["baseURL"] == "http://meter:1/v1"
    assert config["provider"]["anthropic"]["options"]["baseURL"] == "http://meter:1/v1"
    assert config["provider"]["google"]["options"]["baseURL"] == "http://meter:1/v1beta"
    assert parse(config["provider"]["openai"]["options"]["apiKey"]).task == "PAY-7"


def test_a_config_of_opencode_that_is_broken_is_told() -> None:
    variables = agent_environment({}, KEY)
    with pytest.raises(click.ClickException, match="no JSON object"):
        prepare(["opencode"], {"OPENCODE_CONFIG_CONTENT": "[1]"}, variables)


def test_claude_gets_one_credential_and_not_its_users_own(agents: Path) -> None:
    _, environment = started(agents, "claude", "-p", "hello", ANTHROPIC_API_KEY="sk-ant-own")
    assert "ANTHROPIC_API_KEY" not in environment
    assert parse(environment["ANTHROPIC_AUTH_TOKEN"]).task == "PAY-7"
    assert environment["ANTHROPIC_BASE_URL"] == "http://meter:1"


def test_gemini_gets_its_own_base_url(agents: Path) -> None:
    _, environment = started(agents, "gemini")
    assert environment["GOOGLE_GEMINI_BASE_URL"] == "http://meter:1"
    assert environment["GEMINI_DEFAULT_AUTH_TYPE"] == "gemini-api-key"
    assert parse(environment["GEMINI_API_KEY"]).task == "PAY-7"


def test_gemini_is_told_what_its_settings_need_until_they_have_it(agents: Path, tmp_path: Path) -> None:
    def told() -> str:
        command = ("--task", "T", "--", str(agents / "gemini"))
        return run_command(*command, cwd=agents, GEMINI_CLI_HOME=str(tmp_path)).stderr

    wanted = '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'
    assert wanted in told()
    (tmp_path / ".gemini").mkdir()
    (tmp_path / ".gemini" / "settings.json").write_text(wanted)
    assert wanted not in told()


def test_qwen_is_told_its_dialect_unless_its_user_says_otherwise(agents: Path) -> None:
    assert started(agents, "qwen", "-p", "hello")[0] == ["--auth-type", "openai", "-p", "hello"]
    assert started(agents, "qwen", "--auth-type=gemini")[0] == ["--auth-type=gemini"]


def test_the_exit_code_is_the_commands_own(tmp_path: Path) -> None:
    result = run_command("--task", "T", "--", sys.executable, "-c", "raise SystemExit(7)", cwd=tmp_path)
    assert result.returncode == 7


def test_a_command_that_is_not_there_is_told_as_a_shell_would(tmp_path: Path) -> None:
    missing = run_command("--task", "T", "--", "no-such-agent", cwd=tmp_path)
    assert missing.returncode == 127
    assert "`no-such-agent` is not installed" in missing.stderr
    (tmp_path / "plain").write_text("")
    assert run_command("--task", "T", "--", str(tmp_path / "plain"), cwd=tmp_path).returncode == 126


def test_the_task_comes_from_the_git_branch(tmp_path: Path) -> None:
    on_branch(tmp_path, "feature/PAY-7-refunds")
    result = run_command("--", sys.executable, "-c", TELL, cwd=tmp_path)
    assert parse(json.loads(result.stdout)[1]["CALLMETER_KEY"]).task == "PAY-7"


@pytest.mark.parametrize(
    ("branch", "task"),
    [
        ("PAY-7", "PAY-7"),
        ("ada/ABC2-10_fix", "ABC2-10"),
        ("fix-login", "fix-login"),
        ("UTF-8x", "UTF-8x"),
        ("main", None),
        ("master", None),
        ("x" * 129, None),
    ],
)
def test_a_branch_names_a_ticket_else_itself(tmp_path: Path, branch: str, task: str | None) -> None:
    assert branch_task(on_branch(tmp_path, branch)) == task


def test_outside_git_and_on_no_branch_there_is_no_task(tmp_path: Path) -> None:
    assert branch_task(tmp_path) is None
    on_branch(tmp_path, "PAY-7")
    (tmp_path / ".git" / "HEAD").write_text("4bf92f3577b34da6a3ce929d0e0e473600000000\n")
    assert branch_task(tmp_path) is None
    result = run_command("--", "true", cwd=tmp_path)
    assert result.returncode == 1
    assert "callmeter run --task NAME" in result.stderr


def test_a_task_key_keeps_its_task_and_refuses_another(tmp_path: Path) -> None:
    on_branch(tmp_path, "OTHER-1")
    narrow = attenuate(KEY, [Caveat("task", "PAY-7")])
    kept = run_command("--", sys.executable, "-c", TELL, cwd=tmp_path, CALLMETER_KEY=narrow)
    assert json.loads(kept.stdout)[1]["CALLMETER_KEY"] == narrow
    refused = run_command("--task", "OTHER-1", "--", "true", cwd=tmp_path, CALLMETER_KEY=narrow)
    assert refused.returncode == 1
    assert "cannot be narrowed to `OTHER-1`" in refused.stderr
