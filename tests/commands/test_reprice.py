"""`callmeter reprice`, against the real admin port over a real ledger."""

from __future__ import annotations

import msgspec
import pytest
from click.testing import CliRunner

from proxy.commands.reprice import reprice
from proxy.ledger import reprice as module
from tests.support.admin_server import Admin
from tests.support.ledger_calls import entries, made


def test_all_steps_are_taken_and_summed_up(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CALLS", 2)
    monkeypatch.setattr(module, "STEP_CALLS_MAX", 2)
    admin.ledger.ingest(entries(*(made(number, cost_source="assumed") for number in range(5))))
    admin.price = lambda record: (
        None
        if record.call_id == "call000004"
        else msgspec.structs.replace(record, cost_nusd=2_200_000, cost_source="policy")
    )
    result = CliRunner().invoke(reprice, [])
    assert result.stdout == "5 calls looked at, 4 have another cost now: +$0.0040\n"
    assert result.stderr.startswith("1 are still without a price")


def test_nothing_to_do_is_said(admin: Admin) -> None:
    admin.ledger.ingest(entries(made(1)))
    result = CliRunner().invoke(reprice, ["--since", "1d"])
    assert (result.exit_code, result.stderr) == (0, "every call has its price; nothing to do\n")
