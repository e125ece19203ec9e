"""What a person is told at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.commands.serve import announce
from proxy.settings import Settings
from proxy.supervisor import Announcement


def told(capsys: pytest.CaptureFixture[str], keyless: list[str], **settings: object) -> str:
    announce(Announcement(Settings(data=Path("data"), **settings), "cm_first_key", keyless))  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_the_addresses_and_the_first_key_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(capsys, [], port=9090)
    assert "Callmeter serves on http://127.0.0.1:9090" in said
    assert "cm_first_key" in said


def test_only_upstreams_without_a_provider_key_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "provider key" not in told(capsys, [])
    assert "No provider key for the upstream groq:" in told(capsys, ["groq"])
    assert "No provider key for the upstreams groq, own:" in told(capsys, ["groq", "own"])
