"""A build with rules of a vendor beside ours."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from ids_rules.configuration import RULE_FILES
from netpolicy.build.manifest import MANIFEST
from netpolicy.build.tree import BuildError

VENDOR_RULES = "vendor.rules"
_BESIDE = RULE_FILES.replace("]", f", {VENDOR_RULES}]")


def beside_ours(configuration: str) -> str:
    """Return a ``suricata.yaml`` that names a vendor's rules beside ours."""
    return configuration.replace(f"\n{RULE_FILES}\n", f"\n{_BESIDE}\n")


def read_build(build: Path) -> dict[str, bytes]:
    """Return the files of a build, by their path in it.

    Raises:
        BuildError: It is none.
        OSError: It cannot be read.

    """
    if not (build / MANIFEST).is_file():
        raise BuildError(f"{build} holds no {MANIFEST}: it is no build; expected what netpolicy compile made")
    return {str(path.relative_to(build)): path.read_bytes() for path in sorted(build.rglob("*")) if path.is_file()}


def built_for(files: Mapping[str, bytes]) -> int | None:
    """Return the major version of Suricata that a build is for, None if it does not say."""
    try:
        version = json.loads(files[MANIFEST]).get("suricata")
    except (KeyError, ValueError, RecursionError, AttributeError):
        return None
    return version if isinstance(version, int) else None


def with_vendor(
    files: Mapping[str, bytes], rules: str, stock: Mapping[str, str], sources: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the files of a build with a vendor's rules for every engine, in place of those it had.

    Args:
        files: Of the build.
        rules: For Suricata.
        stock: Suricata's own ``classification.config`` and ``reference.config``: vendors use more than we do.
        sources: SHA-256 of the files that the rules come from, by name, for the manifest.

    """
    out = dict(files)
    for path in files:
        place = PurePosixPath(path)
        if place.name == "suricata.yaml":
            out[path] = beside_ours(files[path].decode()).encode()
            out[str(place.with_name(VENDOR_RULES))] = rules.encode()
        elif place.name in stock:
            out[path] = _more(files[path].decode(), stock[place.name]).encode()
    manifest = json.loads(files[MANIFEST])
    manifest["vendor_sha256"] = dict(sorted(sources.items()))
    manifest["files_sha256"] = {path: hashlib.sha256(out[path]).hexdigest() for path in sorted(out) if path != MANIFEST}
    out[MANIFEST] = (json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()
    return out


def _more(ours: str, stock: str) -> str:
    """Return our lines, and those of the stock file that say something about what ours do not name."""
    known = {_named(line) for line in ours.splitlines()}
    lines = [line for line in stock.splitlines() if line.startswith("config ") and _named(line) not in known]
    return "\n".join([*ours.splitlines(), *lines, ""])


def _named(line: str) -> str:
    """Return the ``shortname`` of ``config classification: shortname,…`` or ``config reference: shortname prefix``."""
    words = line.partition(":")[2].replace(",", " ").split()
    return words[0] if words else ""
