"""Errors: the one word for what went wrong, out of the error bodies of every provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .values import decode, mapping

UNNAMED_ERROR = "error"
"""Recorded where a provider says that something failed and gives it no name."""

ERROR_NAME_CHARACTERS_MAX = 64
"""A longer `code` or `type` is a sentence and no name."""


def error_code(body: bytes) -> str | None:
    """The provider's own code or type in an error body; None where the body is no error that is known here."""
    document = decode(body)
    if isinstance(document, list) and document:
        document = document[0]
    return error_code_in(mapping(document))


def error_code_in(document: Mapping[str, Any]) -> str | None:
    """The same of a decoded document: `{"error": {...}}`, `{"error": "..."}`, or the error itself at the top."""
    error = document.get("error")
    if isinstance(error, dict):
        return name_of_error(error)
    if error:
        return UNNAMED_ERROR
    if "message" in document or "detail" in document:
        return name_of_error(document)
    return None


def name_of_error(error: Mapping[str, Any]) -> str:
    """`{"code", "type", "status"}` -> the most telling of them: a word goes before a number."""
    number: str | None = None
    for field in ("code", "type", "status"):
        value = error.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not 0 < len(value) <= ERROR_NAME_CHARACTERS_MAX:
            continue
        if not value.isdigit():
            return value
        number = number or value
    return number or UNNAMED_ERROR
