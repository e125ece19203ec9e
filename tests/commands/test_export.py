"""`callmeter export`, against the real admin port over a real ledger."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.commands.export import export, record_of
from proxy.core.focus import COLUMNS, head
from proxy.core.record import public
from proxy.ledger.errors import LedgerUnavailable
from tests.support.admin_server import Admin
from tests.support.ledger_calls import AT_MS, HOUR_MS, entries, made, refused
from tests.support.outcome_rows import landed, put

NULLABLE = {
    "AvailabilityZone",
    "ChargeClass",
    "CommitmentDiscountCategory",
    "CommitmentDiscountId",
    "CommitmentDiscountName",
    "CommitmentDiscountStatus",
    "CommitmentDiscountType",
    "ContractedUnitPrice",
    "InvoiceId",
    "ListUnitPrice",
    "RegionId",
    "RegionName",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "SkuId",
    "SkuPriceId",
}


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(export, arguments)
    assert "Traceback" not in result.output
    return result


def rows(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_focus_rows_add_up_to_the_ledger_and_have_every_column(admin: Admin) -> None:
    plan = made(3, upstream="claude-max", provider="anthropic", cost_nusd=0, cost_parts_nusd={}, list_nusd=7)
    admin.ledger.ingest(entries(made(1), made(2, cost_nusd=1, at_ms=AT_MS - HOUR_MS), plan, refused(4)))
    found = rows(run("focus", "--since", "2026-01-01"))
    assert list(found[0]) == head(with_users=False)
    assert sum(Decimal(row["BilledCost"]) for row in found) == Decimal("0.001200001")
    assert sum(int(row["x_cost_nusd"]) for row in found) == 1_200_001
    [under_plan] = [row for row in found if row["x_upstream"] == "claude-max"]
    assert (under_plan["BilledCost"], under_plan["ListCost"]) == ("0.0", "0.000000007")
    assert {name for row in found for name, cell in row.items() if name in COLUMNS and not cell} <= NULLABLE
    assert {row["ChargePeriodStart"][-7:] for row in found} == {":00:00Z"}
    assert [row["ChargePeriodStart"] for row in found] == sorted(row["ChargePeriodStart"] for row in found)


def test_nobody_is_named_unless_it_is_asked_for(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, user="adele"), made(2, user="bob", session="s-1", labels={"who": "bob"})))
    for kind in ("focus", "csv", "otlp"):
        plain = run(kind, "--since", "2026-01-01").stdout
        assert "adele" not in plain
        assert "bob" not in plain
        named = run(kind, "--since", "2026-01-01", "--with-users").stdout
        assert "adele" in named
        assert "bob" in named
    [together] = rows(run("focus", "--since", "2026-01-01"))
    assert together["x_calls"] == "2"
    assert [row["x_user"] for row in rows(run("focus", "--since", "2026-01-01", "--with-users"))] == ["adele", "bob"]


def test_what_a_task_cost_is_shared_out_among_its_outcomes(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, cost_nusd=10, list_nusd=10), made(2, task="S-1", cost_nusd=5)))
    put(admin.ledger, landed(1), landed(2, weight=2, state="undone"))
    found = rows(run("focus", "--since", "2026-01-01"))
    assert [(row["x_task"], row["x_outcome"], row["x_outcome_status"], row["x_cost_nusd"]) for row in found] == [
        ("PAY-7", "outcome0001", "accepted", "3"),
        ("PAY-7", "outcome0002", "undone", "7"),
        ("S-1", "", "", "5"),
    ]
    assert sum(int(row["x_input_tokens"]) for row in found) == 2000


def test_billing_periods_are_months_of_the_time_zone(admin: Admin) -> None:
    late = 1_793_467_800_000  # 2026-10-31T17:30:00Z, an hour before November in Kolkata
    admin.ledger.ingest(entries(made(1, at_ms=late), made(2, at_ms=late + HOUR_MS), made(3, at_ms=late + 2 * HOUR_MS)))
    admin.now_ms = late + 10 * HOUR_MS
    found = rows(run("focus", "--since", "2026-10-01", "--timezone", "Asia/Kolkata"))
    assert [(row["BillingPeriodStart"], row["ChargePeriodStart"], row["x_calls"]) for row in found] == [
        ("2026-09-30T18:30:00Z", "2026-10-31T17:00:00Z", "1"),
        ("2026-10-31T18:30:00Z", "2026-10-31T18:30:00Z", "1"),
        ("2026-10-31T18:30:00Z", "2026-10-31T19:00:00Z", "1"),
    ]
    assert {row["BillingPeriodEnd"] for row in found} == {"2026-10-31T18:30:00Z", "2026-11-30T18:30:00Z"}


def test_a_task_that_looks_like_a_formula_stays_text(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1, task="=cmd()")))
    for kind in ("focus", "csv"):
        assert "'=cmd()" in run(kind, "--since", "2026-01-01").stdout


def test_csv_has_a_line_for_each_call_over_all_pages(admin: Admin) -> None:
    admin.ledger.ingest(entries(*(made(number) for number in range(2_100))))
    found = rows(run("csv", "--since", "2026-01-01"))
    assert [row["call_id"] for row in found] == [f"call{number:06d}" for number in range(2_100)]
    assert sum(int(row["cost_nusd"]) for row in found) == 2_100 * 1_200_000


def test_otlp_has_the_ids_of_the_record_and_is_the_same_each_time(admin: Admin) -> None:
    ids = {"trace_id": "0a" * 16, "span_id": "0b" * 8, "client_span_id": "0c" * 8}
    admin.ledger.ingest(entries(made(1, **ids), made(2, **ids | {"span_id": "0d" * 8})))
    first, second = (run("otlp", "--since", "2026-01-01").stdout for _ in range(2))
    assert first == second
    [request] = [json.loads(line) for line in first.splitlines()]
    spans = request["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["spanId"] for span in spans] == ["0b" * 8, "0c" * 8, "0d" * 8, "0c" * 8]
    assert {span["traceId"] for span in spans} == {"0a" * 16}


def test_a_record_survives_its_way_out_and_back() -> None:
    record = made(1, labels={"a": "b"}, at_ms=AT_MS + 123)
    assert record_of(public(record)) == record


def test_a_file_is_there_only_when_it_is_whole(admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.ledger.ingest(entries(made(1), made(2, at_ms=AT_MS - HOUR_MS)))
    wanted = tmp_path / "out.csv"
    assert run("focus", "--since", "2026-01-01", "-o", str(wanted)).exit_code == 0
    assert len(wanted.read_text().splitlines()) == 3

    whole = admin.ledger.hours

    def broken(*arguments: int | str) -> Iterator[object]:
        yield next(whole(*arguments))  # type: ignore[arg-type]
        raise LedgerUnavailable("away")

    monkeypatch.setattr(admin.ledger, "hours", broken)
    other = tmp_path / "other.csv"
    result = run("focus", "--since", "2026-01-01", "-o", str(other))
    assert result.exit_code == 1
    assert "broke off" in result.stderr
    assert not other.exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".other")] == []


def test_a_pipe_is_written_to_and_a_link_kept(admin: Admin, tmp_path: Path) -> None:
    pipe, link, file = (tmp_path / name for name in ("pipe", "link.csv", "file.csv"))
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_text)
        assert run("focus", "-o", str(pipe)).exit_code == 0
        assert read.result(timeout=30).startswith("AvailabilityZone,")
    assert pipe.is_fifo()
    link.symlink_to(file)
    assert run("focus", "-o", str(link)).exit_code == 0
    assert link.is_symlink()
    assert file.read_text().startswith("AvailabilityZone,")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["focus", "--since", "yesterday"], "since"),
        (["csv", "--timezone", "Mars/Olympus"], "time zone"),
        (["focus", "--timezone", "Mars/Olympus"], "time zone"),
        (["otlp", "--until", "never"], "until"),
        (["focus", "-o", "/nowhere/at/all.csv"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(admin: Admin, arguments: list[str], word: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert word in result.stderr


def test_an_empty_ledger_gives_a_head_alone(admin: Admin) -> None:
    assert len(run("focus").stdout.splitlines()) == 1
    assert len(run("csv").stdout.splitlines()) == 1
    assert run("otlp").stdout == ""


def test_the_public_validator_finds_no_fault(admin: Admin, tmp_path: Path) -> None:
    program = shutil.which("focus-validator")
    if program is None:
        pytest.skip("focus-validator is not on the PATH; `pip install focus-validator 'multimethod<1.12'` brings it")
    admin.ledger.ingest(entries(made(1), made(2, task=None), made(3, model=None, model_asked=None)))
    wanted = tmp_path / "focus.csv"
    assert run("focus", "--since", "2026-01-01", "-o", str(wanted)).exit_code == 0
    [packages] = Path(program).parent.parent.glob("lib/python*/site-packages")  # it reads a file of its own from there
    command = [program, "--data-file", str(wanted), "--validate-version", "1.0"]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False)
    assert "Validation succeeded" in done.stdout, done.stdout
