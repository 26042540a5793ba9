"""Which certificates the ends of a network have: public data that its certification authority hands out."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.inputs import read_regular
from netpolicy.topology.model import Place, Topology

COLUMNS = ("id", "uri", "not_after", "sha1", "sha256")
MAX_BYTES = 64 * 1024 * 1024

_SHA1 = re.compile(r"[0-9a-f]{40}")


def read_certificates(path: Path, topology: Topology) -> Mapping[str, tuple[str, ...]]:
    """Return the SHA-1 of the certificates that are pinned for each node and firewall, by id, sorted.

    A CSV file with the columns of :data:`COLUMNS`, one row for each certificate; an end that is being renewed has two.

    Raises:
        InputError: It is not such a file, or names an end that the topology has not.
        OSError: It cannot be read.

    """
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text), strict=True))
    except OSError as refused:
        what = f"the file cannot be read: {refused.strerror}"
        raise InputError([_wrong(path, 1, what, f"a regular file of at most {MAX_BYTES} bytes")]) from refused
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError([_wrong(path, 1, f"this is not CSV in UTF-8: {error}", ",".join(COLUMNS))]) from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise InputError([_wrong(path, 1, "this is not a list of certificates", f"the columns {','.join(COLUMNS)}")])
    wrong = list(_faults(path, rows[1:], topology))
    if wrong:
        raise InputError(wrong)
    found: dict[str, set[str]] = {}
    for end, _, _, sha1, _ in rows[1:]:
        found.setdefault(end, set()).add(sha1)
    return {end: tuple(sorted(each)) for end, each in sorted(found.items())}


def _faults(path: Path, rows: list[list[str]], topology: Topology) -> Iterator[Diagnostic]:
    known = [*topology.nodes, *topology.firewalls]
    for line, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS):
            yield _wrong(path, line, f"{len(row)} values", f"{len(COLUMNS)}: {','.join(COLUMNS)}")
        elif row[0] not in topology.nodes and row[0] not in topology.firewalls:
            near = difflib.get_close_matches(row[0], known, 1)
            text = f"there is no node or firewall '{row[0]}'"
            yield _wrong(path, line, text, "one of the topology", near[0] if near else None)
        elif not _SHA1.fullmatch(row[3]):
            yield _wrong(path, line, f"'{row[3]}' is not a SHA-1", "40 hexadecimal digits in lower case")


def _wrong(path: Path, line: int, message: str, expected: str, nearest: str | None = None) -> Diagnostic:
    return Diagnostic(Place(str(path), line, 1), Severity.ERROR, message, expected, nearest)
