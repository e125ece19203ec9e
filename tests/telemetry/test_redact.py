from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.telemetry.redact import REDACTED, redact

HEX = "0123456789abcdef" * 4

KEYS = [
    f"cm_k234567abcdef_{HEX}",
    f"cm_k234567abcdef.W3sidGFzayI6IlBBWS03In1d.{HEX}",
    "sk-proj-abc123DEF456ghi789JKL012",
    "sk-ant-api03-abc123DEF456-ghi789",
    "sk-or-v1-0123456789abcdef",
    "AIza" + "Sy0123456789abcdefghijklmnopqrstuv",
    "gsk_abc123DEF456ghi789",
    "xai-abc123DEF456ghi789",
    "pplx-abc123DEF456ghi789",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_abc123DEF456ghi789JKL012mno345",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcDEF",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "around", ["{}", "Bearer {}", "it was `{}`, sadly", "https://x/v1?key={}&b=1", "x-api-key: {}"]
)
def test_a_key_is_taken_out_wherever_it_stands(key: str, around: str) -> None:
    shown = redact(around.format(key))
    assert REDACTED in shown
    assert key not in shown
    assert key[-12:] not in shown


def test_secrets_are_known_by_their_names_and_places() -> None:
    assert redact("redis://user:hunter2@host:6379/0") == f"redis://{REDACTED}@host:6379/0"
    assert redact("password=hunter2hunter2 x") == f"password={REDACTED} x"
    assert redact("authorization: Bearer opaque-token-1") == f"authorization: Bearer {REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        "PAY-7",
        "risk-assessment-2026-q4-review",
        "claude-sonnet-4-5-20250929",
        "gpt-5-mini",
        "/v1/models/{model}",
        "01jd000000000000000000000a",
        "k234567abcdef",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "claude-cli/2.1.330 (external, sdk-cli)",
        "sk-learn-pipeline-refactoring",
        "https://api.openai.com/v1/chat/completions",
    ],
)
def test_names_that_are_no_keys_stay_as_they_are(text: str) -> None:
    assert redact(text) is text


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    assert redact(redact(text)) == redact(text)
