"""Shapes of policy files that hold others: lists, tables of keys, tables by name. They read and describe themselves as
single values do (`policy_values.py`), and so a whole file is one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import yaml

from .policy_values import Choice, Report, Text, kind_of, listed, suggestion
from .yaml_nodes import Listing, Node, Scalar, Table, shown


class Shape(Protocol):
    """What a value may be. `told` is its word in the table of keys."""

    told: str

    def read(self, node: Node, report: Report) -> Any:
        """The value, or None after a fault."""

    def json_schema(self) -> dict[str, Any]:
        """The same as JSON Schema."""


class ListOf:
    """A list of values of one shape, each with its node, since what comes after may have to point at it."""

    def __init__(self, shape: Shape, *, unique: bool = False) -> None:
        self.shape = shape
        self.told = "list" if isinstance(shape, Keys) else f"list of {shape.told}"
        self._unique = unique

    def read(self, node: Node, report: Report) -> list[tuple[Node, Any]]:
        if not isinstance(node, Listing):
            report.fault(node, f"must be a list, not {kind_of(node)}")
            return []
        values = [(item, self.shape.read(item, report)) for item in node.items]
        for place, (item, value) in enumerate(values):
            if self._unique and value is not None and any(value == other for _, other in values[:place]):
                report.fault(item, f"`{shown(str(value))}` is already in the list")
        return values

    def json_schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.shape.json_schema()} | ({"uniqueItems": True} if self._unique else {})


class Key(msgspec.Struct, frozen=True):
    """A key of a table: its shape, what it is for, and what holds where it is missing: `default` as written in a file,
    or `otherwise` in words."""

    shape: Shape
    about: str
    default: str | None = None
    required: bool = False
    otherwise: str = "none"


class Keys:
    """A table of known keys. Reads as a dict of those that are there. `open_keys` are further ones, by what they
    begin with: `label.` and a name that the writer chooses."""

    told = "table"

    def __init__(self, keys: Mapping[str, Key], *, open_keys: Mapping[str, Key] | None = None) -> None:
        self.keys = dict(keys)
        self.open_keys = dict(open_keys or {})

    def _key(self, name: str) -> Key | None:
        if name in self.keys:
            return self.keys[name]
        return next((key for start, key in self.open_keys.items() if name.startswith(start) and name != start), None)

    def read(self, node: Node, report: Report) -> dict[str, Any] | None:
        if not isinstance(node, Table):
            report.fault(node, f"must be a table of keys, not {kind_of(node)}")
            return None
        values: dict[str, Any] = {}
        for name, value in node.entries:
            key = self._key(name.text)
            if key is None:
                report.fault(name, self._unknown(name.text))
                continue
            values[name.text] = key.shape.read(value, report.under(name.text))
        for name_, key in self.keys.items():
            if key.required and all(name_ != there.text for there, _ in node.entries):
                report.fault(node, f"the key `{name_}` is missing")
        return values

    def _unknown(self, name: str) -> str:
        known = [*self.keys, *(f"{start}NAME" for start in self.open_keys)]
        hint = suggestion(name, known) or f"; known here: {listed(known)}"
        return f"unknown key `{shown(name)}`{hint}"

    def json_schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {name: _described(key) for name, key in self.keys.items()},
        }
        if self.open_keys:
            patterns = {
                f"^{re.escape(glob).replace(chr(92) + '*', '.+')}$": key for glob, key in self.open_keys.items()
            }
            schema["patternProperties"] = {pattern: _described(key) for pattern, key in patterns.items()}
        required = [name for name, key in self.keys.items() if key.required]
        return schema | ({"required": required} if required else {})


def _described(key: Key) -> dict[str, Any]:
    schema = key.shape.json_schema() | {"description": key.about}
    return schema | ({"default": yaml.safe_load(key.default)} if key.default is not None else {})


class MapOf:
    """A table whose keys are names that the writer chooses. Reads as a list of name, its node, and the value."""

    def __init__(self, name: Text, shape: Shape) -> None:
        self.name = name
        self.shape = shape
        self.told = "table by name"

    def read(self, node: Node, report: Report) -> list[tuple[Scalar, Any]]:
        if not isinstance(node, Table):
            report.fault(node, f"must be a table of names, not {kind_of(node)}")
            return []
        named: list[tuple[Scalar, Any]] = []
        for key, value in node.entries:
            read = self.shape.read(value, report.under(key.text))
            if self.name.read(key, report) is not None:
                named.append((key, read))
        return named

    def json_schema(self) -> dict[str, Any]:
        names = self.name.json_schema()
        return {"type": "object", "propertyNames": names, "additionalProperties": self.shape.json_schema()}


class Either:
    """One of some words, or a table of keys."""

    def __init__(self, words: Choice, keys: Keys) -> None:
        self.words, self.keys = words, keys
        tables = " or ".join(f"`{{{name}: ...}}`" for name in keys.keys)
        self.told = f"{words.told} or {tables}"

    def read(self, node: Node, report: Report) -> Any:
        return self.keys.read(node, report) if isinstance(node, Table) else self.words.read(node, report)

    def json_schema(self) -> dict[str, Any]:
        return {"anyOf": [self.words.json_schema(), self.keys.json_schema()]}
