"""What the pages say can drift away from the code. These tests hold the two together: commands, settings, record
fields, refusals, headers, paths and links. docs/policy-files.md has tests of its own (test_policy_docs.py)."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import click
import pytest

from proxy.admin.pages import PLACES
from proxy.cli import COMMANDS
from proxy.commands.run import PREPARATIONS
from proxy.commands.serve import serve
from proxy.core.caller import TaskSource
from proxy.core.record import CostSource, Record, Result, UsageSource
from proxy.core.refusal import CODES, Refusal, answer
from proxy.core.usage import Usage
from proxy.settings import Settings

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
SOURCE = "\n".join(path.read_text() for path in sorted((ROOT / "proxy").rglob("*.py")))

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def text_of(page: Path) -> str:
    """A page as it is read, without its HTML comments."""
    return re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.DOTALL)


def code_of(page: Path) -> Iterator[str]:
    """Every line of a page that stands in a code block, and every piece of code within a line."""
    *blocks, prose = re.split(r"^```[a-z]*\n(.*?)^```$", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for block in blocks[1::2]:
        yield from block.splitlines()
    for part in [*blocks[0::2], prose]:
        yield from re.findall(r"`([^`\n]+)`", part)


def command_named(name: str) -> click.Command:
    module = importlib.import_module(f"proxy.commands.{COMMANDS[name][0]}")
    command = getattr(module, name)
    assert isinstance(command, click.Command)
    return command


def used_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Each use of the command on a page: its subcommand, and the words behind it up to a comment or `--`."""
    for line in code_of(page):
        for found in re.finditer(r"(?<![\w/.-])callmeter (?!callmeter\b)([a-z]+)((?: [^#|>;)]*)?)", line):
            yield found[1], found[2].partition(" -- ")[0].split()


def rows(text: str) -> list[list[str]]:
    """The cells of every table row."""
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in text.splitlines() if line.startswith("| ")]


def table_names(page: str) -> list[str]:
    """The names in backticks in the first column of every table of a page."""
    return [name for cells in rows((ROOT / page).read_text()) for name in re.findall(r"`([^`]+)`", cells[0])]


@each_page
def test_every_command_that_a_page_uses_is_there_with_its_options(page: Path) -> None:
    for name, words in used_commands(page):
        assert name in COMMANDS, f"`callmeter {name}` is not there"
        command = command_named(name)
        if isinstance(command, click.Group) and words:
            assert words[0] in command.commands, f"`callmeter {name} {words[0]}` is not there"
            command = command.commands[words[0]]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
        assert used <= known, f"`callmeter {name}` has no {', '.join(sorted(used - known))}"


def test_every_command_is_told_of() -> None:
    told = {name for page in PAGES for name, _ in used_commands(page)}
    assert COMMANDS.keys() <= told


@each_page
def test_every_environment_variable_that_a_page_names_is_read(page: Path) -> None:
    read = set(re.findall(r"CALLMETER_[A-Z_]+[A-Z]", SOURCE)) | {variable for _, variable in serve_settings()}
    named = set(re.findall(r"CALLMETER_[A-Z_]+[A-Z]", text_of(page)))
    assert named <= read


def serve_settings() -> list[tuple[str, str]]:
    """Each option of `serve` and its environment variable."""
    options = [parameter.opts[0] for parameter in serve.params]
    return [(option, "CALLMETER_" + option.removeprefix("--").replace("-", "_").upper()) for option in options]


def test_every_option_of_serve_has_a_row_with_its_variable() -> None:
    table = {tuple(re.findall(r"`([^`]+)`", " ".join(cells[:2]))) for cells in rows(text_of(ROOT / "docs/admins.md"))}
    assert set(serve_settings()) <= table


def test_the_defaults_of_ports_and_hosts_are_those_of_the_settings() -> None:
    told = {cells[0].strip("`"): cells[2].strip("`") for cells in rows(text_of(ROOT / "docs/admins.md")) if cells[2:]}
    expected = {
        "--host": Settings().host,
        "--port": str(Settings().port),
        "--admin-host": Settings().admin_host,
        "--admin-port": str(Settings().admin_port),
        "--policies": str(Settings().policies),
        "--data": str(Settings().data),
        "--drain-seconds": f"{Settings().drain_s:g}",
        "--log-format": Settings().log_format,
    }
    assert {option: told[option] for option in expected} == expected


def test_every_field_of_a_record_is_in_the_docs_and_nothing_else() -> None:
    fields = {"at" if name == "at_ms" else name for name in Record.__struct_fields__} | set(Usage.__struct_fields__)
    assert sorted(set(table_names("docs/record.md"))) == sorted(fields)


@pytest.mark.parametrize("words", [Result, UsageSource, CostSource, TaskSource])
def test_every_word_that_a_record_may_hold_is_explained(words: object) -> None:
    page = text_of(ROOT / "docs/record.md")
    assert [word for word in get_args(words) if f"`{word}`" not in page] == []


def test_every_refusal_has_a_row_with_its_status_and_whether_to_try_again() -> None:
    page = text_of(ROOT / "docs/developers.md")
    told = {cells[0].strip("`"): (cells[1], cells[2]) for cells in rows(page) if cells[0].strip("`") in CODES}
    expected = {}
    for code, facts in CODES.items():
        status = answer(Refusal(code=code), dialect="openai", call_id="1", now_ms=0).status
        expected[code] = (str(status), "yes" if facts.retryable else "no")
    assert told == expected
    assert list(told) == list(CODES), "in order of precedence"


def test_every_refusal_is_given_somewhere() -> None:
    given = SOURCE.replace(inspect.getsource(importlib.import_module("proxy.core.refusal")), "")
    assert [code for code in CODES if f'"{code}"' not in given] == []


@each_page
def test_every_header_of_ours_that_a_page_names_is_in_the_code(page: Path) -> None:
    for header in set(re.findall(r"x-callmeter-[a-z-]+[a-z]", text_of(page))):
        assert f'"{header}"' in SOURCE, f"`{header}` is in no code"


@each_page
def test_every_path_of_the_admin_port_that_a_page_names_is_there(page: Path) -> None:
    routes = re.findall(r'web\.[a-z]+\("(/api/[a-z]+)', SOURCE)
    named = re.findall(r"(?<![\w.-])/api/[a-z]+", text_of(page))
    assert {path for path in named if path != "/api/public"} <= set(routes)  # that one is Langfuse's


def test_the_docs_know_every_place_of_the_admin_port() -> None:
    told = table_names("docs/admins.md")
    assert [path for path, _, _ in PLACES if path not in told] == []


def test_every_agent_that_run_prepares_is_named_in_the_readme() -> None:
    page = text_of(ROOT / "README.md")
    assert [agent for agent in PREPARATIONS if f"`{agent}`" not in page] == []


@each_page
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text_of(page), flags=re.S | re.M)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


def anchors(page: Path) -> set[str]:
    """Headings as they are linked to: lower case, hyphens for spaces, no other punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_container_runs_on_settings_that_exist() -> None:
    file = (ROOT / "Dockerfile").read_text()
    set_there = set(re.findall(r"CALLMETER_[A-Z_]+[A-Z]", file))
    assert set_there <= {variable for _, variable in serve_settings()}
    for port in (Settings().port, Settings().admin_port):
        assert re.search(rf"^EXPOSE .*\b{port}\b", file, flags=re.MULTILINE)
    assert re.search(r"^USER [1-9]\d+$", file, flags=re.MULTILINE), "a number, so that orchestrators can check it"
