"""Programs of Debian 13 that an audit runs: those that images are made with, in their own root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.hardening.figures import AuditError, LackingError
from appliance_image.image import errors
from appliance_image.image.packages import fetch, lock_path, read_lock
from appliance_image.image.places import CACHE
from appliance_image.image.workshop import Workshop, tool_root, workshop

LOCK = lock_path("virtual")
SEEN = "/audit"
"""Where the tools see what is audited."""


@contextmanager
def tools(seen: Path, *, lock: Path = LOCK, cache: Path = CACHE, mirror: str | None = None) -> Iterator[Workshop]:
    """Yield a workshop that sees a directory as :data:`SEEN`.

    Args:
        seen: What is audited.
        lock: Which packages the tools are of.
        cache: Where packages and the tools' root are kept.
        mirror: Where packages come from that are not in the cache; by default where this machine's apt gets its own.

    Raises:
        LackingError: This is not root, or a package cannot be had.

    """
    try:
        packages = read_lock(lock).of("tools")
        paths = [cache / "packages" / each.file for each in packages.packages]
        if not all(each.is_file() for each in paths):
            fetch(packages, cache / "packages", mirror, offline=False)
        root = tool_root(paths, cache)
    except errors.LackingError as lacking:
        raise LackingError(str(lacking)) from lacking
    except errors.ImageError as wrong:
        raise AuditError(str(wrong)) from wrong
    (root / SEEN.removeprefix("/")).mkdir(exist_ok=True)
    with workshop(root, packages.epoch, [(seen, SEEN)]) as shop:
        yield shop
