"""YAML as a tree that knows where each of its values stands.

Only what the language needs of YAML is read: one document of mappings, sequences and scalars.  Anchors, aliases and
tags are refused, and so are duplicate keys; depth and size are bounded, so that no input costs more than it is long.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Protocol

import yaml

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.inputs import read_regular
from netpolicy.topology.model import Place

MAX_BYTES = 1 << 20
"""Of a topology file."""
MAX_DEPTH = 24

Plain = str | int | bool | date | None
"""What a scalar stands for."""

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z", re.ASCII)
_CONSTANTS: Mapping[str, Plain] = {"true": True, "false": False, "null": None, "~": None, "": None}


class Filled(str):
    """Text that came out of a table: it may stand for a number, a date or a truth value, as the place demands."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value."""

    value: Plain
    place: Place
    cell: Place | None = None
    """Where in a table its text comes from."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a mapping."""

    text: str
    place: Place
    cell: Place | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Tree, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Fields:
    """A mapping, in the order of the file."""

    items: dict[str, tuple[Key, Tree]]
    place: Place


Tree = Scalar | Items | Fields


def resolve(text: str) -> Plain:
    """Return what a plain (unquoted) scalar stands for: ``true`` and ``false``, decimal integers, ISO 8601 dates, null.

    All else is text: ``yes``, ``012``, ``0x1f`` and ``1.5`` have surprised too many people.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.match(text):
        return int(text)
    if _DATE.match(text):
        try:
            return date.fromisoformat(text)
        except ValueError:
            return text
    return text


def plain(tree: Tree) -> object:
    """Return a tree as dicts, lists and scalars; empty cells of tables leave their key out."""
    if isinstance(tree, Scalar):
        return tree.value
    if isinstance(tree, Items):
        return [plain(item) for item in tree.items if not left_out(item)]
    return {name: plain(value) for name, (_, value) in tree.items.items() if not left_out(value)}


def left_out(tree: Tree) -> bool:
    """Tell whether a value is an empty cell of a table."""
    return isinstance(tree, Scalar) and isinstance(tree.value, Filled) and tree.value == ""


def read_bytes(path: Path, name: str, limit: int) -> bytes:
    """Return the bytes of an input file.

    Raises:
        InputError: It cannot be read, is larger than `limit` bytes, or is not UTF-8.

    """
    start = Place(name, 1, 1)
    try:
        content = read_regular(path, limit)
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _too_large(name, limit) from error
        raise _refused(start, f"'{name}' cannot be read: {error.strerror}", "a readable file") from error
    return text_bytes(content, name, limit)


def text_bytes(content: bytes, name: str, limit: int) -> bytes:
    """Return the bytes of an input that has been read.

    Raises:
        InputError: They are more than `limit`, or not UTF-8.

    """
    if len(content) > limit:
        raise _too_large(name, limit)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        found = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise _refused(Place(name, line, column), found, "text in UTF-8") from error
    return content


def parse(text: str, name: str) -> Tree:
    """Return the one document of a YAML text.

    Args:
        text: The file's content.
        name: What the file is called in places.

    Raises:
        InputError: It is not YAML, or more of YAML than the language has.

    """
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        builder.findings.append(
            _error(builder.place(mark), f"this is not YAML: {error.problem or error.context}", None)
        )
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = Place(name, before.count("\n") + 1, len(before) - before.rfind("\n"))
        builder.findings.append(_error(place, f"character {error.character:#06x} is not allowed", "printable text"))
    except _HopelessError as end:
        builder.findings.append(end.finding)
    if builder.findings:
        raise InputError(builder.findings)
    if builder.root is None:
        raise _refused(Place(name, 1, 1), f"'{name}' is empty", "a topology")
    return builder.root


class _HopelessError(Exception):
    """After this finding the rest of the document cannot be understood."""

    def __init__(self, finding: Diagnostic) -> None:
        self.finding = finding
        super().__init__(str(finding))


class _Mark(Protocol):
    line: int
    """0-based."""
    column: int


@dataclass(slots=True)
class _Open:
    """A mapping or sequence that has not ended yet."""

    place: Place
    keyed: bool
    values: list[Tree] = field(default_factory=list)
    items: dict[str, tuple[Key, Tree]] = field(default_factory=dict)
    key: Key | None = None
    skip: bool = False
    """The key is unusable: its value is read and dropped."""


@dataclass(slots=True)
class _Builder:
    """Makes a tree of parser events, without recursion."""

    name: str
    root: Tree | None = None
    findings: list[Diagnostic] = field(default_factory=list)
    _stack: list[_Open] = field(default_factory=list)

    def place(self, mark: _Mark | None) -> Place:
        if mark is None:
            return Place(self.name, 1, 1)
        return Place(self.name, mark.line + 1, mark.column + 1)

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            self._stop(event, "a second document begins here", "one document")
        self._refuse_extras(event)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            if len(self._stack) >= MAX_DEPTH:
                self._stop(event, f"this is nested deeper than {MAX_DEPTH} levels", f"at most {MAX_DEPTH} levels")
            keyed = isinstance(event, yaml.MappingStartEvent)
            self._refuse_key(event, "a list or mapping")
            self._stack.append(_Open(self.place(event.start_mark), keyed))
        elif isinstance(event, yaml.MappingEndEvent):
            ended = self._stack.pop()
            self._put(Fields(ended.items, ended.place))
        elif isinstance(event, yaml.SequenceEndEvent):
            ended = self._stack.pop()
            self._put(Items(tuple(ended.values), ended.place))

    def _refuse_extras(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            self._stop(event, f"alias '*{event.anchor}' is not part of the language", "the value itself")
        if not isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            return
        if event.anchor is not None:
            self._stop(event, f"anchor '&{event.anchor}' is not part of the language", "the value itself")
        if event.tag is not None:
            self._stop(event, f"tag '{event.tag}' is not part of the language", "the value itself")

    def _refuse_key(self, event: yaml.Event, what: str) -> None:
        if self._stack and self._stack[-1].keyed and self._stack[-1].key is None:
            self._stop(event, f"{what} stands where a key should", "a name")

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        place = self.place(event.start_mark)
        if self._stack and self._stack[-1].keyed and self._stack[-1].key is None:
            self._key(self._stack[-1], Key(event.value, place))
            return
        self._put(Scalar(event.value if event.style else resolve(event.value), place))

    def _key(self, mapping: _Open, key: Key) -> None:
        first = mapping.items.get(key.text)
        mapping.key = key
        mapping.skip = first is not None
        if first is not None:
            message = f"key '{key.text}' stands here a second time; the first is in line {first[0].place.line}"
            self.findings.append(_error(key.place, message, "each key once"))

    def _put(self, tree: Tree) -> None:
        if not self._stack:
            self.root = tree
            return
        above = self._stack[-1]
        if not above.keyed:
            above.values.append(tree)
            return
        if above.key is not None and not above.skip:
            above.items[above.key.text] = (above.key, tree)
        above.key = None

    def _stop(self, event: yaml.Event, message: str, expected: str) -> None:
        raise _HopelessError(_error(self.place(event.start_mark), message, expected))


def _error(place: Place, message: str, expected: str | None) -> Diagnostic:
    return Diagnostic(place, Severity.ERROR, message, expected)


def _too_large(name: str, limit: int) -> InputError:
    return _refused(Place(name, 1, 1), f"'{name}' is larger than {limit} bytes", f"at most {limit} bytes")


def _refused(place: Place, message: str, expected: str) -> InputError:
    return InputError([_error(place, message, expected)])
