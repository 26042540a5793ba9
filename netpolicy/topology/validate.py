"""One entry against its schema, with what is wrong told in the words of the language and at its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from netpolicy.topology.fields import WRONG, nearest_name, shown
from netpolicy.topology.findings import Findings, Spot
from netpolicy.topology.model import Place
from netpolicy.topology.schema import Spec
from netpolicy.topology.source import Fields, Items, Key, Scalar, Tree, left_out, plain

S = TypeVar("S", bound=Spec)
Location = tuple[str | int, ...]


def validated(kind: type[S], key: Key, tree: Tree, row: Place | None, findings: Findings) -> S | None:
    """Return the entry at `key`, or None with what is wrong with it reported."""
    empty = list(_empty(key, tree))
    for found in empty:
        spot = Spot(found.place, row, found.cell)
        findings.error(spot, f"'{found.text}' has no value", "a value, or no such key")
    try:
        spec = kind.model_validate(plain(tree))
    except ValidationError as error:
        report = _Report(kind, key, tree, row, findings)
        errors = error.errors(include_url=False)
        meant = {report.meant(details) for details in errors if details["type"] == "extra_forbidden"}
        for details in errors:
            if details["loc"] not in meant:  # what is missing stands there under a wrong name
                report.add(details)
        return None
    return None if empty else spec


def locate(tree: Tree, location: Location, key: Key) -> Key:
    """Return a key with the text and place of what `location` leads to, as far as it can be followed.

    Only `place` and `cell` of the answer mean anything when the location leads to a value.
    """
    found = Key(key.text, tree.place, tree.cell if isinstance(tree, Scalar) else None)
    for step in location:
        if isinstance(tree, Fields) and str(step) in tree.items:
            tree = tree.items[str(step)][1]
        elif isinstance(tree, Items) and isinstance(step, int):
            tree = [item for item in tree.items if not left_out(item)][step]
        else:
            break
        found = Key(str(step), tree.place, tree.cell if isinstance(tree, Scalar) else None)
    return found


def _empty(key: Key, tree: Tree) -> Iterator[Key]:
    """Yield the keys without a value."""
    if isinstance(tree, Scalar):
        if tree.value is None:
            yield key
    elif isinstance(tree, Items):
        for item in tree.items:
            yield from _empty(Key(key.text, item.place), item)
    else:
        for inner, value in tree.items.values():
            yield from _empty(inner, value)


@dataclass(frozen=True, slots=True)
class _Report:
    """Tells what pydantic found in the words of the language."""

    kind: type[BaseModel]
    key: Key
    tree: Tree
    row: Place | None
    findings: Findings

    def meant(self, details: ErrorDetails) -> Location:
        """Return the location that an unknown key was probably meant to have."""
        location: Location = details["loc"]
        near = nearest_name(str(location[-1]), _keys(self.kind, location[:-1]))
        return (*location[:-1], near) if near else location[:0]

    def add(self, details: ErrorDetails) -> None:
        location: Location = details["loc"]
        if details["input"] is None:
            return  # reported as a key without a value
        match details["type"]:
            case "missing":
                parent = _parent_key(self.tree, location, self.key)
                what = ".".join(str(step) for step in (self.key.text, *location[:-1]))
                message = f"'{what}' has no '{location[-1]}'"
                description = _description(self.kind, location)
                expected = f"'{location[-1]}': {description}" if description else None
                self.findings.error(self._spot(parent), message, expected)
            case "extra_forbidden":
                valid, name = _keys(self.kind, location[:-1]), str(location[-1])
                spot = self._spot(_key_at(self.tree, location) or self.key)
                message = f"unknown key {shown(name)}"
                self.findings.error(spot, message, "one of " + ", ".join(valid), nearest_name(name, valid))
            case error if error == WRONG:
                context: dict[str, Any] = details["ctx"]
                spot = self._spot(locate(self.tree, location, self.key))
                self.findings.error(spot, context["message"], context["expected"], context["nearest"])
            case _:
                found = locate(self.tree, location, self.key)
                message = f"{shown(details['input'])} stands where the entries of '{found.text}' should"
                self.findings.error(self._spot(found), message, "a mapping")

    def _spot(self, found: Key) -> Spot:
        return Spot(found.place, self.row, found.cell)


def _parent_key(tree: Tree, location: Location, key: Key) -> Key:
    """Return the key of the mapping that lacks something."""
    parent = location[:-1]
    return (_key_at(tree, parent) if parent else None) or key


def _key_at(tree: Tree, location: Location) -> Key | None:
    found: Key | None = None
    for step in location:
        if isinstance(tree, Fields) and str(step) in tree.items:
            found, tree = tree.items[str(step)]
        else:
            break
    return found


def _model_at(kind: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """Return the model that a location leads into."""
    current: type[BaseModel] | None = kind
    inside_mapping = False
    for step in location:
        if inside_mapping:
            inside_mapping = False
            continue
        if current is None:
            return None
        info = next((each for name, each in current.model_fields.items() if (each.alias or name) == step), None)
        if info is None:
            return None
        annotation = info.annotation
        inside_mapping = getattr(annotation, "__origin__", None) is dict
        candidates = (annotation, *getattr(annotation, "__args__", ()))
        current = next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
    return current


def _keys(kind: type[BaseModel], location: Location) -> list[str]:
    model = _model_at(kind, location)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _description(kind: type[BaseModel], location: Location) -> str | None:
    model = _model_at(kind, location[:-1])
    if model is None:
        return None
    found = {info.alias or name: info for name, info in model.model_fields.items()}.get(str(location[-1]))
    return found.description if found else None
