"""Redaction: whatever looks like a key is taken out of a text before it leaves the house in a log line or a span.

Keys have no business in the fields that telemetry reads. This is the second lock: a caller may still put one where a
task name or a path belongs.
"""

from __future__ import annotations

import re

REDACTED = "[redacted]"

_KEY_SHAPES = (
    r"cm_[A-Za-z0-9]+[_.][A-Za-z0-9_.=-]{6,}",  # ours, and task keys made from them
    r"(?:sk|pk|rk)-(?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{12,}",  # OpenAI, Anthropic, OpenRouter, DeepSeek, Langfuse
    r"AIza[A-Za-z0-9_-]{20,}",  # Google
    r"(?:gsk|hf|r8|fw|tvly|whsec|glpat|ghp|gho|ghs|github_pat)[_-](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{12,}",
    r"(?:xai|pplx|csk|nvapi)-[A-Za-z0-9_-]{12,}",
    r"A(?:KIA|SIA|BSK)[A-Za-z0-9+/=]{12,}",  # AWS access keys and Bedrock API keys
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?",  # JSON web tokens
)
_KEYS = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_KEY_SHAPES)})")
_NAMED = re.compile(
    r"(?i)\b(bearer\s+|basic\s+|(?:api[_-]?)?key=|x-api-key:\s*|token=|secret=|password=)[^\s&\"',;]{6,}"
)
_USERINFO = re.compile(r"(?<=://)[^/\s@]+@")


def redact(text: str) -> str:
    """`text` with every key, token and password in it replaced; the same object where there is none."""
    if _KEYS.search(text) is not None:
        text = _KEYS.sub(REDACTED, text)
    if _NAMED.search(text) is not None:
        text = _NAMED.sub(rf"\g<1>{REDACTED}", text)
    if "://" in text:
        text = _USERINFO.sub(f"{REDACTED}@", text)
    return text
