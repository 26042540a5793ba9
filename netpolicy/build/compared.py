"""A build held against what the compiler writes for its topology, byte by byte, and against its own manifest.

Whether a ruleset does what the topology demands is not said here: bytes that are the compiler's may be wrong, and
others may be right.  What is said is which files are not the compiler's, so that none of them is passed over.
"""

from __future__ import annotations

import enum
import errno
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ids_rules.lock import SidLock
from ids_rules.version import NEWEST, Suricata
from netpolicy.build.compile import compile_files
from netpolicy.build.manifest import MANIFEST
from netpolicy.build.vendor import VENDOR_RULES, beside_ours
from netpolicy.diagnostics import InputError
from netpolicy.inputs import parse_document, read_regular
from netpolicy.topology.model import Topology

MOST_BYTES = 1 << 28
"""Of one file of a build."""
MOST_FILES = 1 << 20
_NOT_REGULAR = {errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EFBIG}
"""Of what :mod:`netpolicy.inputs` reads no byte, or not all."""
_HASHES = "files_sha256"
_VENDOR = "vendor_sha256"
_NOT_COMPARED = {"tools", _HASHES, _VENDOR}
"""Of the manifest: versions of tools differ where bytes need not, and hashes are held against the files themselves."""
_STOCK = {"classification.config": "classification", "reference.config": "reference"}
_SHOWN = 160
"""Characters of a line that are told."""


class Kind(enum.StrEnum):
    """How a file is not what it should be."""

    MISSING = "missing"
    EXTRA = "extra"
    ALTERED = "altered"
    IRREGULAR = "irregular"
    """No regular file or directory, or writable by everybody."""
    MANIFEST = "manifest"
    """``manifest.json`` says something else of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One file of a build that is not what the compiler writes."""

    path: str
    kind: Kind
    what: str
    """In words, for an altered text with the first line that differs."""

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass(frozen=True, slots=True)
class Tree:
    """All that is below a directory, read once."""

    files: Mapping[str, bytes]
    irregular: tuple[Difference, ...]


def read_tree(build: Path) -> Tree:
    """Return what is below a directory; links are not followed.

    Raises:
        OSError: Something cannot be read.

    """
    files: dict[str, bytes] = {}
    irregular: list[Difference] = []
    for path, mode in sorted(_walked(build, "")):
        if len(files) > MOST_FILES:
            irregular.append(Difference(path, Kind.IRREGULAR, f"one of more than {MOST_FILES} files"))
            break
        if stat.S_IMODE(mode) & stat.S_IWOTH and not stat.S_ISLNK(mode):
            irregular.append(Difference(path, Kind.IRREGULAR, f"everybody may write it (mode {stat.S_IMODE(mode):o})"))
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            irregular.append(Difference(path, Kind.IRREGULAR, "it is no regular file"))
            continue
        content = _read(build / path)
        if content is None:
            irregular.append(Difference(path, Kind.IRREGULAR, f"no regular file of at most {MOST_BYTES} bytes"))
        else:
            files[path] = content
    return Tree(files, tuple(irregular))


def compare(topology: Topology, lock: SidLock, tree: Tree) -> list[Difference]:
    """Return in what a build is not what the compiler writes for a topology, by path.

    Args:
        topology: With the certificates that are pinned, if any are.
        lock: The numbers of its signatures; those that it has not are numbered as compiling would.
        tree: Of the build.

    Raises:
        InputError: The topology does not compile.

    """
    manifest, found = _manifest(tree.files)
    version = manifest.get("suricata")
    suricata = Suricata(version) if version in set(Suricata) else NEWEST
    expected = {path: text.encode() for path, text in compile_files(topology, lock, suricata).items()}
    found += tree.irregular
    irregular = {each.path for each in tree.irregular}
    vendor = _with_vendor(expected, tree.files)
    found += vendor
    judged = {path for path in tree.files if PurePosixPath(path).name == VENDOR_RULES and path in expected}
    for path in sorted({*expected, *tree.files} - {MANIFEST} - irregular - judged):
        if path not in tree.files:
            found.append(Difference(path, Kind.MISSING, "it is missing"))
        elif path not in expected:
            found.append(Difference(path, Kind.EXTRA, "the compiler writes no such file"))
        elif tree.files[path] != expected[path]:
            found.append(Difference(path, Kind.ALTERED, first_difference(expected[path], tree.files[path])))
    if manifest:
        found += _said(manifest, json.loads(expected[MANIFEST]))
        found += _hashes(manifest.get(_HASHES), tree.files, expected)
    return sorted(set(found), key=lambda each: (each.path, each.kind, each.what))


def first_difference(ours: bytes, theirs: bytes) -> str:
    """Return the first line in which two files differ, in words."""
    try:
        before, after = ours.decode().splitlines(), theirs.decode().splitlines()
    except UnicodeDecodeError:
        return "it is not UTF-8 any more"
    for number, (old, new) in enumerate(zip(before, after, strict=False), 1):
        if old != new:
            return f"line {number} is {_quoted(new)}; the compiler writes {_quoted(old)}"
    if len(before) != len(after):
        number = min(len(before), len(after)) + 1
        if len(after) > len(before):
            return f"line {number} is {_quoted(after[number - 1])}; the compiler's file ends before it"
        return f"it ends before line {number}, {_quoted(before[number - 1])}"
    return "its line endings are not the compiler's"


def _quoted(line: str) -> str:
    shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"
    return repr(shown.strip())


def _walked(build: Path, below: str) -> Iterator[tuple[str, int]]:
    """Yield every entry below a directory with its mode, by its relative path."""
    with os.scandir(build / below) as entries:
        for entry in entries:
            path = f"{below}{entry.name}"
            mode = entry.stat(follow_symlinks=False).st_mode
            yield path, mode
            if stat.S_ISDIR(mode):
                yield from _walked(build, f"{path}/")


def _read(path: Path) -> bytes | None:
    """Return a regular file's content; None if it became something else meanwhile, or is too large."""
    try:
        return read_regular(path, MOST_BYTES, follow=False)
    except OSError as failed:
        if failed.errno in _NOT_REGULAR:
            return None
        raise


def _manifest(files: Mapping[str, bytes]) -> tuple[dict[str, Any], list[Difference]]:
    try:
        manifest = parse_document(files.get(MANIFEST, b""))
    except ValueError as wrong:
        return {}, [Difference(MANIFEST, Kind.MANIFEST, f"it is no JSON: {wrong}")]
    if not isinstance(manifest, dict):
        return {}, [Difference(MANIFEST, Kind.MANIFEST, "it is no JSON object")]
    return manifest, []


def _with_vendor(expected: dict[str, bytes], files: Mapping[str, bytes]) -> list[Difference]:
    """Expect the rules of a vendor beside ours where a build has them; return what is wrong with them."""
    found: list[Difference] = []
    for path in [each for each in expected if PurePosixPath(each).name == "suricata.yaml"]:
        beside = str(PurePosixPath(path).with_name(VENDOR_RULES))
        if beside not in files:
            continue
        expected[beside] = files[beside]
        expected[path] = beside_ours(expected[path].decode()).encode()
        found.extend(Difference(beside, Kind.ALTERED, each) for each in _rules(files[beside]))
        for name, keyword in _STOCK.items():
            place = str(PurePosixPath(path).with_name(name))
            if place in files and _is_more(expected[place], files[place], keyword):
                expected[place] = files[place]
    return found


def _rules(content: bytes) -> list[str]:
    """Return why rules are none that a vendor may have beside ours."""
    from ids_rules.vendor import read_vendor  # noqa: PLC0415 - stands on packages that few builds need

    with tempfile.NamedTemporaryFile(suffix=".rules") as file:
        file.write(content)
        file.flush()
        try:
            read_vendor([Path(file.name)])
        except InputError as refused:
            return [f"line {each.place.line}: {each.message}" for each in refused.diagnostics]
    return []


def _is_more(ours: bytes, theirs: bytes, keyword: str) -> bool:
    """Tell whether a file is ours, and below it says things only of what ours does not name."""
    if not theirs.startswith(ours):
        return False
    line = re.compile(rf"config {keyword}:\s*([^\s,]+)")
    known = {match[1] for match in line.finditer(ours.decode())}
    try:
        added = theirs[len(ours) :].decode().splitlines()
    except UnicodeDecodeError:
        return False
    names = [match[1] if (match := line.match(each)) else None for each in added]
    return None not in names and not known & set(names)


def _said(manifest: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what a manifest says otherwise than the compiler's, beside hashes."""
    for key in sorted({*manifest, *expected} - _NOT_COMPARED):
        if key not in expected:
            yield Difference(MANIFEST, Kind.MANIFEST, f"the compiler writes no '{key}'")
        elif manifest.get(key) != expected[key]:
            said = json.dumps(manifest.get(key), ensure_ascii=False)[:_SHOWN]
            wanted = json.dumps(expected[key], ensure_ascii=False)[:_SHOWN]
            yield Difference(MANIFEST, Kind.MANIFEST, f"'{key}' is {said}; the compiler writes {wanted}")


def _hashes(hashes: object, files: Mapping[str, bytes], expected: Mapping[str, bytes]) -> Iterator[Difference]:
    """Yield files whose hash a manifest does not have."""
    if not isinstance(hashes, dict):
        yield Difference(MANIFEST, Kind.MANIFEST, f"it has no '{_HASHES}'")
        return
    for path in sorted({*hashes, *files} - {MANIFEST}):
        if path not in hashes:
            yield Difference(path, Kind.MANIFEST, "manifest.json does not list it")
        elif path not in files:
            yield Difference(path, Kind.MANIFEST, "manifest.json lists it, and it is not there")
        elif hashes[path] != hashlib.sha256(files[path]).hexdigest():
            of_compiler = hashes[path] == hashlib.sha256(expected.get(path, b"")).hexdigest()
            whose = "the compiler's" if of_compiler else "that of another file"
            yield Difference(path, Kind.MANIFEST, f"manifest.json has another hash for it, {whose}")
