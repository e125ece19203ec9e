"""`callmeter reconcile`, against the real admin port over a real ledger."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.commands.reconcile import reconcile
from proxy.core.usage import Usage
from tests.support.admin_server import Admin
from tests.support.ledger_calls import AT_MS, entries, made

DAY = "2026-09-21"
"""Of AT_MS."""
DAY_S = AT_MS // 86_400_000 * 86_400


def run(path: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(reconcile, [str(path), *arguments])
    assert "Traceback" not in result.output
    return result


def costs(path: Path, **by_item: Any) -> Path:
    results = [
        {"object": "organization.costs.result", "amount": {"value": value, "currency": "usd"}, "line_item": item}
        for item, value in by_item.items()
    ]
    file = path / "costs.json"
    file.write_text(json.dumps({"data": [{"start_time": DAY_S, "end_time": DAY_S + 86_400, "results": results}]}))
    return file


def test_theirs_and_ours_stand_beside_each_other_with_the_calls_that_explain_it(admin: Admin, tmp_path: Path) -> None:
    admin.ledger.ingest(
        entries(
            made(1),
            made(2, usage_source="partial", cost_nusd=400_000),
            made(3, result="lost", cost_nusd=0, list_nusd=0),
            made(4, cost_nusd=None, list_nusd=None, cost_source="none"),
            made(5, model="gpt-5", cost_nusd=0, list_nusd=9_000_000),
            made(6, provider="anthropic", model="claude-opus-4-5"),
        )
    )
    file = costs(
        tmp_path, **{"gpt-5-mini-2025-08-07, input": 0.001, "gpt-5-mini-2025-08-07, output": 0.002, "Web search": 1}
    )
    output = run(file).stdout
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert lines[2:] == [
        "DAY MODEL COUNTED THEIRS OURS DIFFERENCE",
        f"{DAY} gpt-5 cost $0.00 $0.00 $0.00",
        f"{DAY} gpt-5-mini-2025-08-07 cost $0.0030 $0.0016 -$0.0014",
        "1 lost ($0.00): call000003",
        "1 unpriced ($0.00): call000004",
        "1 partial ($0.00040): call000002",
        f"{DAY} Web search cost $1.00 $0.00 -$1.00",
        "TOTAL cost $1.00 $0.0016 -$1.00",
    ]
    answer = json.loads(run(file, "--format", "json").stdout)
    assert answer["total"]["difference"] == {"cost_nusd": 1_600_000 - 1_003_000_000}
    [plan] = [row for row in answer["rows"] if row["model"] == "gpt-5"]
    assert plan["reasons"] == [
        {"why": "plan", "calls": 1, "cost_nusd": 0, "list_nusd": 9_000_000, "call_ids": ["call000005"]}
    ]
    rows = list(csv.DictReader(io.StringIO(run(file, "--format", "csv").stdout)))
    assert [row["difference"] for row in rows] == ["0", "-0.0014", "-1"]


def test_tokens_are_compared_by_kind_whatever_the_date_in_the_name(admin: Admin, tmp_path: Path) -> None:
    usage = Usage(input=10, cached_input=100, cache_write=2, cache_write_1h=3, output=7)
    call = made(1, provider="anthropic", model="claude-opus-4-5-20251101", usage=usage)
    admin.ledger.ingest(entries(call, made(2)))
    file = tmp_path / "usage.csv"
    file.write_text(
        "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
        "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens\n"
        f"{DAY},claude-opus-4-5,10,2,3,100,8\n"
    )
    [row] = json.loads(run(file, "--format", "json").stdout)["rows"]
    assert row["difference"] == {"input": 0, "cached_input": 0, "cache_write": 0, "cache_write_1h": 0, "output": -1}
    assert "claude-opus-4-5" in run(file).stdout


def test_a_file_without_models_is_compared_by_day(admin: Admin, tmp_path: Path) -> None:
    admin.ledger.ingest(entries(made(1), made(2, model="gpt-5")))
    file = tmp_path / "costs.csv"
    file.write_text(
        f"start_time,end_time,amount_value,amount_currency,line_item\n{DAY_S},{DAY_S + 86_400},0.0024,usd,\n"
    )
    [row] = json.loads(run(file, "--format", "json").stdout)["rows"]
    assert (row["model"], row["difference"], row["calls"]) == ("all models", {"cost_nusd": 0}, 2)


@pytest.mark.parametrize("content", ["", "user,tokens\nada,1\n", "{}", '{"data": [{"results": [{}]}]}'])
def test_a_wrong_file_is_named_with_what_is_taken(admin: Admin, tmp_path: Path, content: str) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text(content)
    result = run(file)
    assert result.exit_code == 1
    assert "wrong.csv: " in result.stderr


def test_a_missing_file_is_said_to_be_missing(admin: Admin, tmp_path: Path) -> None:
    result = run(tmp_path / "nothing.json")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
