"""Single values of `alerts` in policy files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from .policy_values import Report
from .yaml_nodes import Node


class Webhook:
    """Where a message goes. Never repeated in a message of ours: whoever knows the URL can post there."""

    told = "URL, best `${NAME}`"

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None:
            return None
        text = text.strip()
        wrong = _wrong_with(text)
        if wrong is None:
            return text
        report.fault(node, wrong)
        return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(https?://|\$\{)"}


def _wrong_with(text: str) -> str | None:
    if not text.isascii() or not text.isprintable() or " " in text:
        return "holds a space or a character that no URL has"
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return "is not a URL; write one like `https://hooks.example.com/callmeter`"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must begin with `http://` or `https://` and a host"
    return None
