"""A topology while it is read: entries that are right by themselves, before they are held against each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar, cast, get_args

from netpolicy.diagnostics import InputError
from netpolicy.topology import schema
from netpolicy.topology.fields import IDENTIFIER, IDENTIFIER_LENGTH, identifier_error, nearest_name, shown
from netpolicy.topology.findings import Findings, Spot
from netpolicy.topology.model import Place
from netpolicy.topology.source import MAX_BYTES, Fields, Key, Scalar, Tree, parse, read_bytes, text_bytes
from netpolicy.topology.table import Filling, Table, read_table
from netpolicy.topology.validate import locate, validated

S = TypeVar("S", bound=schema.Spec)

_KINDS: Mapping[str, type[schema.Spec]] = {
    name: get_args(info.annotation)[1]
    for name, info in schema.TopologySpec.model_fields.items()
    if name not in {"network", "templates"}
}
_MADE = tuple(name for name in schema.TemplateSpec.model_fields if name != "table")
POLICY = ("services", "forbidden", "flows", "invariants")
"""The sections that say what may pass; the others say what there is."""
SINGULAR = {name: "firewall" if name == "firewalls" else name.rstrip("s") for name in _KINDS} | {
    "services": "service",
    "forbidden": "forbidden protocol",
}


@dataclass(frozen=True, slots=True)
class Entry(Generic[S]):
    """One named thing of a section."""

    id: str
    spec: S
    key: Key
    tree: Tree
    row: Place | None = None
    """The row of a table it was made from."""

    def at(self, *location: str | int) -> Spot:
        """Return where a part of it stands; without a location, where its name stands."""
        if not location:
            return Spot(self.key.place, self.row, self.key.cell)
        found = locate(self.tree, location, self.key)
        return Spot(found.place, self.row, found.cell)

    @property
    def place(self) -> Place:
        """Return where it is defined: for what a template made, its row."""
        return self.key.place if self.row is None else self.row


@dataclass(slots=True)
class Draft:
    """All entries of a topology by section; those that are wrong by themselves are only known by name."""

    network: Entry[schema.NetworkSpec] | None = None
    sections: dict[str, dict[str, Entry[schema.Spec]]] = field(default_factory=lambda: {name: {} for name in _KINDS})
    broken: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _KINDS})
    unknown: set[str] = field(default_factory=set)
    """Sections of which not every name could be read."""
    sound: bool = True
    """Nothing is wrong with what there is, so that what may pass can be held against it."""
    tables: dict[str, Table] = field(default_factory=dict)
    digest: str = ""

    def of(self, kind: type[S]) -> dict[str, Entry[S]]:
        """Return the entries of the section that holds specs of `kind`."""
        name = next(name for name, each in _KINDS.items() if each is kind)
        return cast("dict[str, Entry[S]]", self.sections[name])

    def names(self, section: str) -> list[str]:
        """Return every name of a section, also of entries that are wrong."""
        return [*self.sections[section], *sorted(self.broken[section])]

    def known(self, section: str, name: str) -> bool:
        """Tell whether a section has such an entry, right or wrong."""
        return name in self.sections[section] or name in self.broken[section]

    def dangling(self, section: str, name: str) -> bool:
        """Tell whether a name means nothing; not said where the section could not be read whole."""
        return section not in self.unknown and not self.known(section, name)

    def entries(self) -> Iterator[tuple[str, Entry[schema.Spec]]]:
        """Yield every entry with the name of its section."""
        for section, entries in self.sections.items():
            for entry in entries.values():
                yield section, entry


def read_draft(path: Path, findings: Findings, content: bytes | None = None) -> Draft:
    """Read a topology and its tables; report what is wrong with each entry by itself.

    Args:
        path: See :func:`netpolicy.topology.load.load_topology`.
        findings: Take what is wrong.
        content: Of the file, if it is not to be read.

    Raises:
        InputError: The file cannot be read or is not YAML: nothing more can be said.

    """
    name = str(path)
    content = read_bytes(path, name, MAX_BYTES) if content is None else text_bytes(content, name, MAX_BYTES)
    tree = parse(content.decode("utf-8-sig"), name)
    reader = _Reader(path, findings)
    reader.read(tree)
    digest = hashlib.sha256(content)
    for table in reader.draft.tables.values():
        digest.update(hashlib.sha256(table.content).digest())
    reader.draft.digest = digest.hexdigest()
    return reader.draft


@dataclass(slots=True)
class _Reader:
    path: Path
    findings: Findings
    draft: Draft = field(default_factory=Draft)

    def read(self, tree: Tree) -> None:
        if not isinstance(tree, Fields):
            self.findings.error(Spot(tree.place), "this is not a topology", "a mapping with 'network', 'tiers', …")
            self.draft.sound = False
            return
        for key, value in tree.items.values():
            before = self.findings.error_count
            self._section(key, value)
            if self.findings.error_count > before and key.text not in POLICY:
                self.draft.sound = False
        for section, info in schema.TopologySpec.model_fields.items():
            if info.is_required() and section not in tree.items:
                expected = f"'{section}': {info.description}"
                self.findings.error(Spot(tree.place), f"the topology has no '{section}'", expected)
                self.draft.sound = False

    def _section(self, key: Key, value: Tree) -> None:
        valid = list(schema.TopologySpec.model_fields)
        if key.text not in valid:
            near = nearest_name(key.text, valid)
            self.findings.error(Spot(key.place), f"unknown key {shown(key.text)}", "one of " + ", ".join(valid), near)
            self.draft.unknown.update(_KINDS if near is None else {near})
        elif key.text == "network":
            spec = validated(schema.NetworkSpec, key, value, None, self.findings)
            self.draft.network = Entry("network", spec, key, value) if spec else None
        elif key.text == "templates":
            before = self.findings.error_count
            for name, template in self._entries(key, value):
                self._template(name, template)
            if self.findings.error_count > before:
                self.draft.unknown.update(_MADE)
        else:
            for name, entry in self._entries(key, value):
                self._take(key.text, name, entry, None)

    def _entries(self, key: Key, tree: Tree) -> Iterator[tuple[Key, Tree]]:
        if isinstance(tree, Fields):
            yield from tree.items.values()
        else:
            found = shown(tree.value) if isinstance(tree, Scalar) else "a list"
            message = f"{found} stands where the entries of '{key.text}' should"
            self.findings.error(Spot(tree.place), message, "a mapping of names to entries")
            self.draft.unknown.add(key.text)

    def _take(self, section: str, key: Key, tree: Tree, row: Place | None) -> None:
        spot = Spot(key.place, row, key.cell)
        expected = identifier_error(key.text, IDENTIFIER, IDENTIFIER_LENGTH)
        if expected is not None:
            self.findings.error(spot, f"{shown(key.text)} is not a name", expected)
            self.draft.broken[section].add(key.text)
            return
        if self.draft.known(section, key.text):
            known = self.draft.sections[section].get(key.text)
            where = f"; the first is at {known.place}" if known else ""
            self.findings.error(
                spot, f"{SINGULAR[section]} '{key.text}' is defined a second time{where}", "each name once"
            )
            return
        spec = validated(_KINDS[section], key, tree, row, self.findings)
        if spec is None:
            self.draft.broken[section].add(key.text)
        else:
            self.draft.sections[section][key.text] = Entry(key.text, spec, key, tree, row)

    def _template(self, key: Key, tree: Tree) -> None:
        valid = list(schema.TemplateSpec.model_fields)
        if not isinstance(tree, Fields):
            self.findings.error(
                Spot(tree.place), f"template '{key.text}' is not a mapping", "a mapping with 'table', …"
            )
            return
        for inner, _ in tree.items.values():
            if inner.text not in valid:
                near = nearest_name(inner.text, valid)
                self.findings.error(
                    Spot(inner.place), f"unknown key {shown(inner.text)}", "one of " + ", ".join(valid), near
                )
        table = self._table(key, tree)
        if table is None:
            return
        for row in table.rows:
            filling = Filling(table, row, self.findings)
            before = self.findings.error_count
            made = [
                (section, filling.key(name), filling.tree(entry))
                for section in _MADE
                if section in tree.items
                for name, entry in self._entries(*tree.items[section])
            ]
            if self.findings.error_count > before:
                return  # a column that is not there is not there in any row
            for section, name, entry in made:
                self._take(section, name, entry, row.place)

    def _table(self, key: Key, tree: Fields) -> Table | None:
        if "table" not in tree.items:
            self.findings.error(Spot(key.place), f"template '{key.text}' has no 'table'", "the name of a CSV file")
            return None
        value = tree.items["table"][1]
        name = value.value if isinstance(value, Scalar) else None
        if not isinstance(name, str) or not name:
            self.findings.error(Spot(value.place), "this is not the name of a table", "the name of a CSV file")
            return None
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            self.findings.error(
                Spot(value.place),
                f"table {shown(name)} is elsewhere",
                "a file in the directory of the topology or below",
            )
            return None
        if name not in self.draft.tables:
            try:
                self.draft.tables[name] = read_table(self.path.parent / name, str(self.path.parent / name))
            except InputError as refused:
                self.findings.add(refused.diagnostics)
                return None
        return self.draft.tables[name]
