"""Known vulnerabilities of an image's packages, by Debian's security tracker: a file of it, never the network.

The file is the tracker's JSON (source package → CVE → release → status). What Debian has fixed and an image lacks is
over the limit; what Debian has not fixed is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appliance_image.hardening.figures import AuditError, Figure, Mark, Section
from appliance_image.image.packages import Lock, Package
from netpolicy.inputs import read_document

_RELEASE = "trixie"
_MOST = 1 << 28
_TITLE = "Known vulnerabilities"
_SIGNED = re.compile(r"(.*)-signed(?:-amd64)?|(.*)-amd64-signed")
_REBUILT = re.compile(r"\+b\d+$")
_PIECES = re.compile(r"(\D*)(\d*)")
_NAMED = 40
"""Lines of what is not fixed; the figures above them count all."""
_URGENT = {"high": 0, "medium": 1, "low": 2}


@dataclass(frozen=True, slots=True)
class Source:
    """A source package, in the version that an image has."""

    name: str
    version: str


def section(lock: Lock | None, feed: Path | None, built: Path | None = None) -> Section:
    """Return what is known about the packages of a root.

    Args:
        lock: What the image is made of; None if that is not known.
        feed: The tracker's file; None if there is none.
        built: What was found when the image was built; told where there is no feed.

    Raises:
        AuditError: The file is not the tracker's.

    """
    if feed is None and (then := _when_built(built)) is not None:
        return Section("vulnerabilities", _TITLE, (then,))
    if feed is None:
        return _unknown("no feed given: nothing was looked up (--feed FILE, the security tracker's JSON)")
    if lock is None:
        return _unknown("which packages the root is of is not known (--packages FILE, the image's packages.lock)")
    tracker = _read(feed)
    found = sources(lock.packages)
    fixed: list[Figure] = []
    unfixed: list[tuple[int, Figure]] = []
    urgencies: Counter[str] = Counter()
    for source in found:
        for cve, entry in sorted(tracker.get(source.name, {}).items()):
            release = entry.get("releases", {}).get(_RELEASE)
            if release is None:
                continue
            remedy = release.get("fixed_version")
            urgency = str(release.get("urgency", "not yet assigned"))
            if release["status"] == "resolved":
                if remedy and remedy != "0" and older(source.version, remedy):
                    name = f"{cve} {source.name} {source.version}"
                    fixed.append(Figure(name, f"fixed in {remedy}", Mark.OVER, "0", urgency))
            elif urgency != "unimportant":
                urgencies[urgency] += 1
                reason = f"{urgency}; {release.get('nodsa_reason') or release.get('nodsa') or 'no fix yet'}"
                line = Figure(f"{cve} {source.name}", "open", Mark.TOLD, reason=reason)
                unfixed.append((_URGENT.get(urgency, len(_URGENT)), line))
    dated = datetime.fromtimestamp(feed.stat().st_mtime, UTC)
    unknown = [each.name for each in found if each.name not in tracker]
    head = (
        Figure("feed", f"{feed.name} of {dated:%Y-%m-%d %H:%M} UTC", Mark.TOLD),
        Figure("source packages", f"{len(found)}, {len(unknown)} without an entry", Mark.TOLD),
        Figure("fixed by Debian, not in the image", str(len(fixed)), Mark.OVER if fixed else Mark.HOLDS, "0"),
        Figure("not fixed by Debian", str(len(unfixed)), Mark.TOLD,
               reason=", ".join(f"{count} {name}" for name, count in sorted(urgencies.items()))),
    )  # fmt: skip
    listed = [figure for _, figure in sorted(unfixed, key=lambda each: (each[0], each[1].name))]
    return Section("vulnerabilities", _TITLE, (*head, *fixed, *listed[:_NAMED]))


def sources(packages: Iterable[Package]) -> list[Source]:
    """Return the source packages of what is in the root, each in the oldest of its versions there."""
    found: dict[str, Source] = {}
    for package in packages:
        if "root" not in package.uses:
            continue
        name, version = package.source, package.source_version
        # Debian signs kernels and boot loaders in source packages of their own; the tracker knows the original.
        if (signed := _SIGNED.fullmatch(name)) is not None:
            name, version = signed[1] or signed[2], _REBUILT.sub("", package.version)
        if name not in found or older(version, found[name].version):
            found[name] = Source(name, version)
    return sorted(found.values(), key=lambda each: each.name)


def older(version: str, other: str) -> bool:
    """Tell whether one version is older than another (Debian Policy, 5.6.12)."""
    return _order(_parts(version), _parts(other)) < 0


def _parts(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch), upstream, revision


def _order(one: tuple[int, str, str], other: tuple[int, str, str]) -> int:
    if one[0] != other[0]:
        return -1 if one[0] < other[0] else 1
    return _compared(one[1], other[1]) or _compared(one[2], other[2])


def _compared(one: str, other: str) -> int:
    """Compare in turns what is no digit (``~`` before the end, letters before other marks) and numbers."""
    mine, theirs = (_PIECES.findall(each) for each in (one, other))
    for place in range(max(len(mine), len(theirs))):
        words = [each[place] if place < len(each) else ("", "") for each in (mine, theirs)]
        ranks = [[_rank(letter) for letter in word] + [0] for word, _ in words]
        if ranks[0] != ranks[1]:
            return -1 if ranks[0] < ranks[1] else 1
        numbers = [int(digits or 0) for _, digits in words]
        if numbers[0] != numbers[1]:
            return -1 if numbers[0] < numbers[1] else 1
    return 0


def _rank(letter: str) -> int:
    if letter == "~":
        return -1
    return ord(letter) if letter.isalpha() else ord(letter) + 256


def _read(feed: Path) -> Mapping[str, Mapping[str, Any]]:
    try:
        found = read_document(feed, _MOST)
        for cves in found.values():
            for entry in cves.values():
                for release in entry.get("releases", {}).values():
                    release["status"]
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as wrong:
        raise AuditError(f"{feed} is not the security tracker's JSON: {wrong!r}") from wrong
    if not any(True for _ in _releases(found)):
        raise AuditError(f"{feed} knows nothing of {_RELEASE}")
    result: Mapping[str, Mapping[str, Any]] = found
    return result


def _releases(tracker: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for cves in tracker.values():
        for entry in cves.values():
            if _RELEASE in entry.get("releases", {}):
                yield _RELEASE


def _when_built(path: Path | None) -> Figure | None:
    """Return what debsecan said when the image was built; None if it was not asked."""
    try:
        found = read_document(path, _MOST) if path is not None else {}
        if not found.get("feed"):
            return None
        count = str(len(found["found"]))
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as wrong:
        raise AuditError(f"{path} is not what a build has found: {wrong!r}") from wrong
    return Figure(
        "known when it was built (debsecan)", count, Mark.TOLD, reason=f"by {found['feed']}; --feed tells of today"
    )


def _unknown(reason: str) -> Section:
    return Section("vulnerabilities", _TITLE, (Figure("known vulnerabilities", "", Mark.UNKNOWN, "0", reason),))
