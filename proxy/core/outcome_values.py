"""Single values of `outcomes` in policy files. As those in `policy_values.py`, each reads a node, says everything that
is wrong with it, and describes itself."""

from __future__ import annotations

import re
from typing import Any

from .patterns import PatternInvalid, compiled
from .policy_values import Report, Text, kind_of, listed
from .windows import DAY_MS, ROLLING_UNITS_MS
from .yaml_nodes import Node, Scalar, shown

DAYS_MAX = 366
"""A change that must hold longer than a year is never accepted in the books that it belongs to."""

_DURATION = re.compile(r"(0|[1-9][0-9]{0,5}) ?([mhdw])\Z")


class Duration:
    """A length of time, read in ms."""

    told = "length of time, like `14d`"

    def read(self, node: Node, report: Report) -> int | None:
        text = report.text(node)
        if text is None:
            return None
        found = _DURATION.match(text)
        length_ms = int(found[1]) * ROLLING_UNITS_MS[found[2]] if found else 0
        if found is None or length_ms > DAYS_MAX * DAY_MS:
            report.fault(
                node, f"`{shown(text)}` is not a length of time from 0m to {DAYS_MAX}d; write one like `14d` or `36h`"
            )
            return None
        return length_ms

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^(0|[1-9][0-9]{0,5}) ?[mhdw]$"}


class Pattern:
    """A regular expression, in the syntax of RE2."""

    told = "regular expression"

    def read(self, node: Node, report: Report) -> str | None:
        text = Text().read(node, report)
        if text is None:
            return None
        try:
            expression = compiled(text)
        except PatternInvalid as error:
            report.fault(node, f"`{shown(text)}` {error}")
            return None
        if expression.search("") is not None:
            report.fault(node, f"`{shown(text)}` fits the empty text too, and so would find a task everywhere")
            return None
        if expression.groups > 1:
            report.warn(node, f"`{shown(text)}` has several groups; the task is what the first one finds")
        return text

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": 500}


class SigningSecret:
    """What a webhook is signed with. Never shown. Without it anybody could tell of outcomes, so it must be there."""

    told = "text, best `${NAME}`"

    def read(self, node: Node, report: Report) -> str | None:
        if not isinstance(node, Scalar):
            report.fault(node, f"must be text, not {kind_of(node)}")
            return None
        text, unset, malformed = report.filled(node.text)
        text = text.strip()  # secrets that come from files often end with a line break
        if malformed:
            report.fault(node, "`${` must be followed by the name of an environment variable and `}`")
        elif unset:
            report.fault(node, f"{listed(unset)} is not set: without the secret anybody could tell of outcomes")
        elif node.is_null or not text:
            report.fault(node, "has no value; make one with `openssl rand -hex 32`, and give it to the source too")
        elif min(len(part.strip()) for part in text.split(",")) < SECRET_CHARACTERS_MIN:
            report.fault(node, f"is shorter than {SECRET_CHARACTERS_MIN} characters, and so could be guessed")
        else:
            return text
        return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string"}


SECRET_CHARACTERS_MIN = 8
"""Whoever sees one signed message can try secrets as fast as they can hash."""
