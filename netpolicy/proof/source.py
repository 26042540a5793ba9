"""What a file of a ruleset may say: tables, and no command that brings in something from elsewhere.

nft reads more than rules: ``include`` with other files, ``define`` with values that are set somewhere else, and
commands one after the other. What is proven must be what later runs, whichever directory and environment that happens
in. So the words of a file are looked at before nft sees them, as nft's scanner divides them (``src/scanner.l``): only
``"…"`` and ``#…`` can hold anything.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netpolicy.proof.terms import RefusedError

MOST_BYTES = 1 << 26
"""Of one file."""
_TOKEN = re.compile(
    r'(?P<space>[ \t\n]+)|(?P<comment>#[^\n]*)|(?P<text>"[^"\n]*")|(?P<word>[^\s"#{};]+)|(?P<mark>[{};])'
)
_ELSEWHERE = {"include", "define", "redefine", "undefine"}


class SourceError(RefusedError):
    """A file says what no ruleset may.

    Args:
        what: It says.
        place: File, line and column.
        expected: What may stand there.

    """

    def __init__(self, what: str, place: str, expected: str) -> None:
        super().__init__(what, place)
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.place}: {self.what}; expected {self.expected}"

    def __reduce__(self) -> tuple[type[SourceError], tuple[str, str, str]]:  # type: ignore[override]
        return SourceError, (self.what, self.place, self.expected)


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    offset: int


def read_source(path: Path, *, whole: bool) -> str:
    """Return the text of a file of a ruleset, and refuse one whose meaning depends on anything else.

    Args:
        path: Of it.
        whole: Whether it must be as a build's files are: each table declared, deleted and written anew.

    Raises:
        SourceError: It says something else, cannot be read, or is larger than a ruleset can be.

    """
    text = _read(path)
    words = list(_words(text, path))
    if whole:
        _refuse_others(words, text, path)
    return text


def refuse_includes(text: str, path: Path) -> None:
    """Refuse the text of a file of anybody's that brings in others: what is read must be all of it.

    Raises:
        SourceError: It does.

    """
    for found in _TOKEN.finditer(text):
        if found.lastgroup == "word" and found[0] == "include":
            raise SourceError("include", _place(text, found.start(), path), "a ruleset of one file")


def _read(path: Path) -> str:
    expected = f"a file of at most {MOST_BYTES} bytes of UTF-8"
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as refused:
        raise SourceError(str(refused.strerror), str(path), expected) from refused
    with os.fdopen(opened, "rb") as source:
        known = os.fstat(source.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise SourceError("no regular file", str(path), expected)
        content = source.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SourceError("too large", str(path), expected)
    try:
        return content.decode()
    except UnicodeDecodeError as wrong:
        raise SourceError(f"no UTF-8 at byte {wrong.start}", str(path), expected) from wrong


def _words(text: str, path: Path) -> Iterator[_Word]:
    """Yield words, marks and quoted texts; those that ask for something from elsewhere are refused."""
    offset = 0
    while offset < len(text):
        found = _TOKEN.match(text, offset)
        if found is None:
            what = "a quotation mark that nothing closes in its line" if text[offset] == '"' else repr(text[offset])
            raise SourceError(what, _place(text, offset, path), "printable words and quoted texts of one line")
        kind, said = found.lastgroup, found[0]
        # A comment is only what people read, but it must not look to them like something else.
        if kind != "space" and not said.replace("\t", " ").replace("\u3000", " ").isprintable():
            at = next(place for place, each in enumerate(said) if not each.isprintable())
            raise SourceError(repr(said[at]), _place(text, offset + at, path), "printable characters")
        if kind == "word" and (said in _ELSEWHERE or "$" in said or "\\" in said):
            raise SourceError(f"'{said}'", _place(text, offset, path), "a ruleset that is complete by itself")
        if kind not in {"space", "comment"}:
            yield _Word(said, offset)
        offset = found.end()


def _refuse_others(words: Sequence[_Word], text: str, path: Path) -> None:
    """Refuse everything but tables that are declared, deleted and written anew, one after the other."""
    place = 0
    expected = "'table FAMILY NAME', 'delete table FAMILY NAME', 'table FAMILY NAME { … }', for each table"

    def wrong(at: int) -> SourceError:
        offset = words[at].offset if at < len(words) else len(text)
        what = f"'{words[at].text}'" if at < len(words) else "the end"
        return SourceError(what, _place(text, offset, path), expected)

    def take(*wanted: str | None) -> list[str]:
        nonlocal place
        taken = []
        for each in wanted:
            if place >= len(words) or (words[place].text != each if each is not None else words[place].text in "{};"):
                raise wrong(place)
            taken.append(words[place].text)
            place += 1
        return taken

    while place < len(words) or not place:
        _, *named = take("table", None, None)
        take("delete", "table", *named)
        take("table", *named, "{")
        depth = 1
        while depth:
            if place >= len(words):
                raise wrong(place)
            depth += {"{": 1, "}": -1}.get(words[place].text, 0)
            place += 1


def _place(text: str, offset: int, path: Path) -> str:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return f"{path}:{line}:{column}"
