"""Every file of a build is what the compiler writes for its topology, or is judged by another theorem.

The bytes of emitters are compared here and nothing more: what a packet meets is never expected of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from netpolicy.build.compared import Difference, Kind
from netpolicy.proof.case import Finding

FILES = "files"


def files(differences: Iterable[Difference], judged: Iterable[str]) -> Iterator[Finding]:
    """Yield files that nothing judges and that are not the compiler's.

    Args:
        differences: All that a build has.
        judged: Paths of files that other theorems judge whatever is in them.

    """
    known = frozenset(judged)
    for each in differences:
        if each.path in known and each.kind in {Kind.ALTERED, Kind.MANIFEST}:
            continue
        place = PurePosixPath(each.path)
        yield Finding(FILES, place.parts[0] if len(place.parts) > 1 else None, str(each))
