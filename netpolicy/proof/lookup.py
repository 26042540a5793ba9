"""Which element of a set or map holds a key, found fast when asked often."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.proof.model import Collection, Element, Name, Span, Value

_MOST = 20_000
"""Collections, and answers of one, that are remembered before all of them are forgotten."""

Key = tuple[int | str, ...]


class _Index:
    """The elements of one collection by those parts of the key of which each has one value only."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection  # as long as it lives, nothing else has its id
        keys = [each.key for each in collection.elements if each.key is not None]
        parts = range(len(keys[0])) if keys else range(0)
        self._exact = tuple(number for number in parts if all(_exact(key[number]) is not None for key in keys))
        self._groups: dict[Key, list[Element]] = {}
        self._others: Element | None = None
        self._known: dict[Key, Element | None] = {}
        for element in collection.elements:
            if element.key is None:
                self._others = element
            else:
                values = (_exact(element.key[number]) for number in self._exact)
                self._groups.setdefault(tuple(each for each in values if each is not None), []).append(element)

    def find(self, values: Key) -> Element | None:
        """Return the element that holds a key: the one for all others only if no other does."""
        if values in self._known:
            return self._known[values]
        group = self._groups.get(tuple(values[number] for number in self._exact), ())
        found = next(_holding(group, values), self._others)
        if len(self._known) > _MOST:
            self._known.clear()
        self._known[values] = found
        return found


_indexes: dict[int, _Index] = {}


def find(collection: Collection, values: Key) -> Element | None:
    """Return the element of a collection that holds a key, None if there is none."""
    index = _indexes.get(id(collection))
    if index is None:
        if len(_indexes) > _MOST:
            _indexes.clear()
        index = _indexes[id(collection)] = _Index(collection)
    return index.find(values)


def _exact(part: Value) -> int | str | None:
    if isinstance(part, Span):
        return part.first if part.first == part.last else None
    return part.text if isinstance(part, Name) and not part.text.endswith("*") else None


def _holding(elements: Iterator[Element] | list[Element] | tuple[()], values: Key) -> Iterator[Element]:
    for element in elements:
        if all(value in part for value, part in zip(values, element.key or (), strict=True)):  # type: ignore[operator]
            yield element
