"""Issues that were opened again, which sources tell alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...core.happenings import Happening, Texts
from .payload import moment_ms, text


def read_reopened(issue: dict[str, Any], body: str, labels: tuple[str, ...], received_ms: int) -> Sequence[Happening]:
    """What an issue that was opened again undoes: what its texts name."""
    texts = Texts(messages=(body,), title=text(issue, "title"), labels=labels, body=body)
    at_ms = moment_ms(issue.get("updated_at"), received_ms)
    return [Happening(effect="undone", reopens=True, reason="reopened", at_ms=at_ms, texts=texts)]
