"""Single values in policy files: text, words, money, sizes, globs, keys. Each reads a node, says everything that is
wrong with it, and describes itself as JSON Schema and in a word for the table of keys, so that they never disagree.

A value that has a fault reads as None; a policy is only built when no fault was found, so that None is never used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from copy import copy
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from .money import parse_usd
from .price_rules import PriceRule
from .yaml_nodes import Fault, Listing, Node, Scalar, shown

_VARIABLE = re.compile(r"\$\{([^}]*)\}?")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

TEXT_CHARACTERS_MAX = 500
"""Longer text in a rule is a mistake: it would be repeated in sentences and headers."""

SIZE_BYTES_MAX = 2**30
"""The largest `max_body`: each running call holds its body in memory."""

_SIZE = re.compile(r"(\d{1,10}) ?(B|KB|MB|GB|KiB|MiB|GiB)\Z")
_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}


class Report:
    """Where the shapes of one file put what they find, and where they read the environment.

    Messages are led by the keys above the value, outer to inner: `upstreams: openai: url: must begin with ...`.
    """

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self._environ = environ
        self._above: tuple[str, ...] = ()

    def under(self, name: str) -> Report:
        """The same report, for the value of a key."""
        inner = copy(self)
        inner._above = (*self._above, shown(name))
        return inner

    def fault(self, node: Node, message: str) -> None:
        """Something that keeps the policy from being taken."""
        self.faults.append(self._at(node, message))

    def warn(self, node: Node, message: str) -> None:
        """Something that is allowed, and seldom meant."""
        self.warnings.append(self._at(node, message))

    def _at(self, node: Node, message: str) -> Fault:
        return Fault(self.file, node.line, node.column, ": ".join((*self._above, message)))

    def text(self, node: Node) -> str | None:
        """The text of a node with the environment filled in; None after a fault."""
        if not isinstance(node, Scalar):
            self.fault(node, f"must be text, not {kind_of(node)}")
            return None
        if node.is_null:
            self.fault(node, "has no value; give it one or leave the key out")
            return None
        text, unset, malformed = self.filled(node.text)
        if malformed:
            self.fault(node, "`${` must be followed by the name of an environment variable and `}`")
        for name in unset:
            self.fault(node, f"the environment variable `{name}` is not set")
        return None if unset or malformed else text

    def filled(self, text: str) -> tuple[str, list[str], bool]:
        """Text with every `${NAME}` replaced, the names that are unset or empty, and whether any is malformed."""
        unset: list[str] = []
        malformed = False

        def replace(found: re.Match[str]) -> str:
            nonlocal malformed
            name = found.group(1)
            if not found.group(0).endswith("}") or _VARIABLE_NAME.match(name) is None:
                malformed = True
                return ""
            value = self._environ.get(name, "")
            if not value:
                unset.append(name)
            return value

        return _VARIABLE.sub(replace, text), unset, malformed


def kind_of(node: Node) -> str:
    """What a node is, for a message about what it should be."""
    if isinstance(node, Listing):
        return "a list"
    if isinstance(node, Scalar):
        return "empty" if node.is_null else "text"
    return "a table of keys"


def suggestion(word: str, known: Collection[str]) -> str:
    """`; did you mean ...?` where a known word is close, else nothing."""
    close = get_close_matches(word[:TEXT_CHARACTERS_MAX], list(known), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def listed(words: Collection[str]) -> str:
    """Words for a message, in backticks."""
    return ", ".join(f"`{word}`" for word in words)


class Text:
    """Text of bounded length, of a given pattern where there is one."""

    def __init__(self, pattern: str | None = None, *, told: str = "text", what: str = "text") -> None:
        self.told = told
        self._pattern = pattern
        self._expression = re.compile(pattern) if pattern else None
        self._what = what

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None:
            return None
        if len(text) > TEXT_CHARACTERS_MAX:
            report.fault(node, f"is longer than {TEXT_CHARACTERS_MAX} characters")
            return None
        if self._expression is not None and self._expression.fullmatch(text) is None:
            report.fault(node, f"`{shown(text)}` is not {self._what}")
            return None
        return text

    def json_schema(self) -> dict[str, Any]:
        pattern = {"pattern": f"^{self._pattern}$"} if self._pattern else {}
        return {"type": "string", "maxLength": TEXT_CHARACTERS_MAX} | pattern


class Choice:
    """One word of a few."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.told = " or ".join(f"`{word}`" for word in words)

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None or text in self.words:
            return text
        message = f"`{shown(text)}` is not one of {listed(self.words)}{suggestion(text, self.words)}"
        report.fault(node, message)
        return None

    def json_schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


class Secret:
    """A provider's key, never shown. The environment may lack it: then there is none, and callers bring their own."""

    told = "text, best `${NAME}`"

    def read(self, node: Node, report: Report) -> str | None:
        if not isinstance(node, Scalar):
            report.fault(node, f"must be text, not {kind_of(node)}")
            return None
        text, unset, malformed = report.filled(node.text)
        if malformed:
            report.fault(node, "`${` must be followed by the name of an environment variable and `}`")
            return None
        if unset:
            names = listed(unset)
            report.warn(node, f"{names} is not set, so this upstream has no key: callers must bring their own")
            return None
        text = text.strip()  # secrets that come from files often end with a line break
        if node.is_null or not text:
            report.fault(node, "has no value; give it one or leave the key out")
        elif text.startswith("$"):
            report.fault(node, "looks like an environment variable; write it as `${NAME}`")
        elif text.startswith("cm_"):
            report.fault(node, "is a Callmeter key; the provider's own key belongs here")
        elif not (text.isascii() and text.isprintable()) or " " in text:
            report.fault(node, "holds a space or a character that no key has; was it copied whole?")
        else:
            return text
        return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string"}


class Url:
    """The base of a provider's paths: http or https, a host, perhaps a port and a path."""

    told = "URL"

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None:
            return None
        wrong = _wrong_with_url(text)
        if wrong is not None:
            report.fault(node, wrong)
            return None
        text = text.rstrip("/")
        if text.endswith("/v1"):
            report.warn(node, "ends in `/v1`, which most SDKs put before their paths themselves; it may arrive twice")
        return text

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(https?://|\$\{)"}


def _wrong_with_url(text: str) -> str | None:
    """What is wrong, without repeating the URL: it may hold a password."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return "holds a space or a character that no URL has"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is not a URL; write one like `https://api.example.com`"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "must begin with `http://` or `https://` and a host"
    if parts.username is not None or parts.password is not None:
        return "holds a user or a password; put the provider's credential into `key`"
    if "?" in text or "#" in text:
        return "must end with the path: queries and fragments belong to calls"
    return None


class Whole:
    """A whole number from 1 up."""

    told = "whole number"

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum

    def read(self, node: Node, report: Report) -> int | None:
        text = report.text(node)
        if text is None:
            return None
        if re.fullmatch(r"[0-9]{1,18}", text) is None or not 1 <= int(text) <= self._maximum:
            report.fault(node, f"`{shown(text)}` is not a whole number from 1 to {self._maximum:,}")
            return None
        return int(text)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": 1, "maximum": self._maximum}


class Money:
    """Dollars, read as nano-USD."""

    told = "dollars, like `$5`"

    def read(self, node: Node, report: Report) -> int | None:
        text = report.text(node)
        if text is None:
            return None
        try:
            return parse_usd(text)
        except ValueError:
            report.fault(node, f"`{shown(text)}` is not an amount of money; write dollars like `$25` or `$0.05`")
            return None

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^\$ ?[0-9][0-9_]*(\.[0-9]{1,9})?$"}


class Size:
    """A number of bytes with its unit."""

    told = "size, like `32MiB`"

    def read(self, node: Node, report: Report) -> int | None:
        text = report.text(node)
        if text is None:
            return None
        found = _SIZE.match(text)
        if found is None:
            report.fault(node, f"`{shown(text)}` is not a size; write a number with its unit, like `32MiB` or `500KB`")
            return None
        size = int(found.group(1)) * _SIZE_UNITS[found.group(2)]
        if not 1 <= size <= SIZE_BYTES_MAX:
            report.fault(node, f"`{shown(text)}` is out of range: from 1B to {SIZE_BYTES_MAX // 2**30}GiB")
            return None
        return size

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[0-9]{1,10} ?(B|[KMG]i?B)$"}


class GlobList:
    """One glob or a list of them, any of which may match."""

    told = "glob or list of globs"

    def read(self, node: Node, report: Report) -> tuple[str, ...] | None:
        one = Text()
        if not isinstance(node, Listing):
            text = one.read(node, report)
            return None if text is None else (text,)
        if not node.items:
            report.fault(node, "an empty list matches nothing; leave the key out, or name something")
        patterns = [one.read(item, report) for item in node.items]
        return tuple(pattern for pattern in patterns if pattern is not None)

    def json_schema(self) -> dict[str, Any]:
        one = {"type": "string", "maxLength": TEXT_CHARACTERS_MAX}
        return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}


class Rate:
    """A price in USD or a factor, as decimal text. In quotes, since a bare `1.10` is a float to other readers."""

    told = "decimal text"

    def __init__(self, key: str) -> None:
        self._key = key

    def read(self, node: Node, report: Report) -> str | None:
        text = report.text(node)
        if text is None or not isinstance(node, Scalar):
            return None
        if node.plain and text == node.text:
            report.fault(
                node, f'write `{shown(text)}` in quotes: prices are decimal text, never floats, such as "1.10"'
            )
            return None
        try:
            if self._key == "multiplier":
                PriceRule({}, multiplier=text)
            else:
                PriceRule({}, {self._key: text})
        except ValueError as error:
            report.fault(node, str(error).removeprefix(f"`{self._key}` "))
            return None
        return text

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?|\$\{.*)$"}
