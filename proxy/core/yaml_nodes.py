"""YAML as nodes with places: what stands where in a policy file, read strictly and with bounds.

Built from the parser's events rather than by a YAML constructor: text stays as written (no `no` that turns into
False, no `1.10` that turns into a float), a duplicate key is a fault, and every value remembers its line and column.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import yaml

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C parser where PyYAML has it: five times as fast, and the same events."""

FILE_CHARACTERS_MAX = 2 * 2**20
"""A thousand rules take some 200 KB; more than this is not a policy file."""

NODES_MAX = 200_000
"""Values in one file with every alias written out, so that a few nested aliases cannot stand for billions."""

DEPTH_MAX = 32
"""Levels of nesting; the deepest rule needs six."""

SHOWN_CHARACTERS_MAX = 60
"""How much of a value a message repeats."""


class Fault(msgspec.Struct, frozen=True, order=True):
    """Something wrong at a place in a file (line and column count from 1). Also used for warnings."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class Node(msgspec.Struct, kw_only=True):
    """A value and its place, counted from 1. `size` is the number of values in it, aliases written out."""

    line: int
    column: int
    size: int = 1


class Scalar(Node, kw_only=True):
    """Text as written; `plain` where it stands without quotes."""

    text: str
    plain: bool = True

    @property
    def is_null(self) -> bool:
        """Nothing at all, or YAML's ways to say so."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


class Listing(Node, kw_only=True):
    """A list."""

    items: list[Node] = []


class Table(Node, kw_only=True):
    """Keys and values in their order. Keys are text and differ from each other."""

    entries: list[tuple[Scalar, Node]] = []


class _Broken(Exception):
    """Reading cannot go on from here."""

    def __init__(self, mark: Any, message: str) -> None:
        super().__init__(message)
        self.line, self.column = mark.line + 1, mark.column + 1


def read_yaml(file: str, text: str) -> tuple[Node | None, list[Fault]]:
    """The one document of a file, None where it holds nothing but comments, and every fault found. Never raises."""
    if len(text) > FILE_CHARACTERS_MAX:
        return None, [Fault(file, 1, 1, f"the file has more than {FILE_CHARACTERS_MAX:,} characters")]
    builder = _Builder(file)
    try:
        root = builder.document(yaml.parse(text, Loader=Loader))
    except _Broken as broken:
        return None, [*builder.faults, Fault(file, broken.line, broken.column, str(broken))]
    except yaml.MarkedYAMLError as error:
        return None, [*builder.faults, _syntax_fault(file, text, error)]
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # A character that YAML forbids, or an escape that stands for none; Python's own parser lets the latter through.
        return None, [*builder.faults, _character_fault(file, text, error)]
    return root, builder.faults


def _syntax_fault(file: str, text: str, error: yaml.MarkedYAMLError) -> Fault:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    message = f"not valid YAML: {error.problem or error.context or 'unreadable'}"
    if error.context and error.context_mark is not None:
        message += f" {error.context} that begins on line {error.context_mark.line + 1}"
    if "${" in "".join(text.splitlines()[line - 1 : line]):
        message += "; inside braces `${NAME}` must be in quotes"
    return Fault(file, line, column, message)


def _character_fault(file: str, text: str, error: Exception) -> Fault:
    position = getattr(error, "position", None)
    if not isinstance(position, int):
        position = error.start if isinstance(error, UnicodeEncodeError) else 0
    before = text[:position]
    message = "not valid YAML: a character that may not stand here; the file must be plain UTF-8 text"
    return Fault(file, before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1, message)


class _Builder:
    """Turns the events of one file into nodes."""

    def __init__(self, file: str) -> None:
        self.faults: list[Fault] = []
        self._file = file
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self, events: Iterable[Any]) -> Node | None:
        """The one document. Raises _Broken, and what the parser raises."""
        root: Node | None = None
        documents = 0
        stream = iter(events)
        for event in stream:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Broken(event.start_mark, "a second document (`---`) begins here; write one in each file")
                root = self._node(next(stream), stream, 1)
        if isinstance(root, Scalar) and root.is_null:
            return None
        return root

    def _node(self, event: Any, stream: Iterator[Any], depth: int) -> Node:
        mark = event.start_mark
        if depth > DEPTH_MAX:
            raise _Broken(mark, f"more than {DEPTH_MAX} levels of nesting")
        if isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(event.anchor or "")
            if node is None:
                raise _Broken(mark, f"alias `*{event.anchor}` stands before its anchor, or has none")
            self._count(node.size, mark)
            return node
        if event.tag is not None:
            self._fault(mark, f"tags such as `{shown(str(event.tag))}` are not used in policy files")
        node = self._fresh(event, stream, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _fresh(self, event: Any, stream: Iterator[Any], depth: int) -> Node:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        self._count(1, mark)
        if isinstance(event, yaml.ScalarEvent):
            return Scalar(line=line, column=column, text=event.value, plain=not event.style)
        before = self._nodes - 1
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(inner := next(stream), yaml.SequenceEndEvent):
                items.append(self._node(inner, stream, depth + 1))
            return Listing(line=line, column=column, size=self._nodes - before, items=items)
        entries = self._entries(stream, depth)
        return Table(line=line, column=column, size=self._nodes - before, entries=entries)

    def _entries(self, stream: Iterator[Any], depth: int) -> list[tuple[Scalar, Node]]:
        entries: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(inner := next(stream), yaml.MappingEndEvent):
            mark = inner.start_mark
            key = self._node(inner, stream, depth + 1)
            value = self._node(next(stream), stream, depth + 1)
            if not isinstance(key, Scalar):
                self._fault(mark, "a key must be text")
            elif key.plain and key.text == "<<":
                self._fault(mark, "merge keys (`<<`) are not used in policy files; write the keys out")
            elif key.text in entries:
                first = entries[key.text][0].line
                self._fault(mark, f"duplicate key `{shown(key.text)}`, already on line {first}")
            else:
                entries[key.text] = (key, value)
        return list(entries.values())

    def _count(self, nodes: int, mark: Any) -> None:
        self._nodes += nodes
        if self._nodes > NODES_MAX:
            raise _Broken(mark, f"more than {NODES_MAX:,} values, with aliases written out")

    def _fault(self, mark: Any, message: str) -> None:
        self.faults.append(Fault(self._file, mark.line + 1, mark.column + 1, message))


def shown(text: str) -> str:
    """A value of a file for a message: one line of bounded length."""
    line = "".join(character if character.isprintable() else " " for character in text[: SHOWN_CHARACTERS_MAX + 1])
    return line if len(line) <= SHOWN_CHARACTERS_MAX else line[: SHOWN_CHARACTERS_MAX - 1] + "…"
