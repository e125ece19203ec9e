"""Single values of budgets in policy files: limits, windows, zones, marks, what is counted apart. As those in
`policy_values.py`, each reads a node, says everything that is wrong with it, and describes itself."""

from __future__ import annotations

import re
from typing import Any

from .admission import Unit
from .amounts import EXAMPLES, LIMIT_PATTERN, parse_limit
from .matching import FIELDS, LABEL
from .policy_values import Choice, Money, Report, Text, listed, suggestion
from .windows import CALENDAR, Every, check_timezone
from .yaml_nodes import Listing, Node, Scalar, shown

PER_MAX = 4
"""Dimensions of one budget; more than these make a counter for nearly every call."""

_PERCENT = re.compile(r"([0-9]{1,3})(?:\.([0-9]))?%\Z")


class Limit:
    """An amount with its unit."""

    told = f"limit: {EXAMPLES}"

    def read(self, node: Node, report: Report) -> tuple[Unit, int] | None:
        text = report.text(node)
        if text is None:
            return None
        try:
            return parse_limit(text)
        except ValueError as error:
            report.fault(node, shown_whole(str(error)))
            return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": LIMIT_PATTERN}


def shown_whole(sentence: str) -> str:
    """A sentence that repeats what a file says, in one line."""
    return "".join(character if character.isprintable() else " " for character in sentence)


class Window:
    """How often a limit starts anew."""

    told = "`minute`, `hour`, `day`, `week`, `month`, `rolling 24h` (or another length in m, h, d, w), or `ever`"

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None:
            return None
        try:
            Every.parse(text)
        except ValueError as error:
            report.fault(node, shown_whole(str(error)))
            return None
        return text

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [{"enum": [*CALENDAR, "ever"]}, {"type": "string", "pattern": "^rolling [1-9][0-9]*[mhdw]$"}]}


class Timezone:
    """The name of a time zone."""

    told = "time zone, like `Europe/Berlin`"

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None:
            return None
        try:
            check_timezone(text)
        except ValueError as error:
            report.fault(node, shown_whole(str(error)))
            return None
        return text

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string"}


class Percent:
    """A share of a limit, read in thousandths."""

    told = "percentage"

    def read(self, node: Node, report: Report) -> int | None:
        text = report.text(node)
        if text is None:
            return None
        found = _PERCENT.match(text)
        permille = int(found[1]) * 10 + int(found[2] or 0) if found else 0
        if not 1 <= permille <= 1000:
            report.fault(node, f"`{shown(text)}` is not a percentage from 0.1% to 100%, like `80%`")
            return None
        return permille

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,3}(\.[0-9])?%$"}


class YesNo:
    """True or false. Other ways to say it, which YAML itself would read as text or not, are none."""

    told = "`true` or `false`"

    def read(self, node: Node, report: Report) -> bool | None:
        text = report.text(node)
        if text is None or text in ("true", "false"):
            return None if text is None else text == "true"
        report.fault(node, f"`{shown(text)}` is neither `true` nor `false`")
        return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Per:
    """One field, or a list of them, whose values have a counter each."""

    told = "field or list of fields"

    def read(self, node: Node, report: Report) -> tuple[str, ...] | None:
        items = node.items if isinstance(node, Listing) else [node]
        if not items:
            report.fault(node, "an empty list counts nothing apart; write `org` for one counter for all")
            return None
        fields: list[str] = []
        for item in items:
            field = self._field(item, report)
            if field is not None and field in fields:
                report.fault(item, f"`{shown(field)}` is already in the list")
            elif field is not None:
                fields.append(field)
        if len(items) > PER_MAX:
            report.fault(node, f"counts more than {PER_MAX} fields apart")
        return tuple(fields) or None

    def _field(self, node: Node, report: Report) -> str | None:
        field = Text().read(node, report)
        if field is None or field in FIELDS or (field.startswith(LABEL) and field != LABEL):
            return field
        known = [*FIELDS, f"{LABEL}NAME"]
        hint = suggestion(field, known) or f"; known here: {listed(known)}"
        report.fault(node, f"`{shown(field)}` is nothing that calls can be counted apart by{hint}")
        return None

    def json_schema(self) -> dict[str, Any]:
        one = {"anyOf": [{"enum": list(FIELDS)}, {"type": "string", "pattern": rf"^{re.escape(LABEL)}.+$"}]}
        many = {"type": "array", "items": one, "minItems": 1, "maxItems": PER_MAX, "uniqueItems": True}
        return {"anyOf": [*one["anyOf"], many]}


class WordOrMoney:
    """One of some words, or a fixed amount."""

    def __init__(self, words: Choice, money: Money) -> None:
        self._words, self._money = words, money
        self.told = f"{words.told} or {money.told}"

    def read(self, node: Node, report: Report) -> Any:
        filled = report.filled(node.text)[0] if isinstance(node, Scalar) else ""
        return (self._money if filled.startswith("$") else self._words).read(node, report)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [self._words.json_schema(), self._money.json_schema()]}
