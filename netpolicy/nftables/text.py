"""Small pieces of nft syntax."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

INDENT = "\t"


def block(head: str, body: Iterable[str]) -> list[str]:
    """Return the lines of ``head { body }``."""
    return [f"{head} {{", *(f"{INDENT}{line}" if line else "" for line in body), "}"]


def collection(head: str, key_type: str, elements: Sequence[str], *, interval: bool, counter: bool) -> list[str]:
    """Return a named set or map.

    Args:
        head: ``set name`` or ``map name``.
        key_type: What follows ``type``.
        elements: Key, comment and, for a map, verdict of each element.
        interval: Whether any key holds a prefix or a range.
        counter: Whether each element counts its packets.

    """
    body = [f"type {key_type}"]
    if interval:
        body.append("flags interval")
    if counter:
        body.append("counter")
    if elements:
        body.append("elements = {")
        body.extend(f"{INDENT}{element}," for element in elements)
        body.append("}")
    return block(head, body)


def quoted(text: str) -> str:
    """Return a quoted nft string; ids and interface names hold nothing that would need an escape."""
    if '"' in text or "\n" in text or "\\" in text:
        raise ValueError(f"not representable in an nft string: {text!r}")
    return f'"{text}"'


def remark(text: str) -> str:
    """Return `text` as a comment of one line, whatever white space it holds: no title can become a rule."""
    return "# " + " ".join(text.split())
