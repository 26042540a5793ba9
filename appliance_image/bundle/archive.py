"""The one file that a bundle is: a POSIX ustar archive of which every byte is settled by what it holds."""

from __future__ import annotations

import errno
import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from appliance_image.bundle.manifest import LISTS, Held, Manifest, parse
from appliance_image.bundle.model import Bundle
from appliance_image.bundle.refused import Code, Refused
from netpolicy.inputs import read_regular

BUNDLE_BYTES = 64 << 20
"""The most a bundle may have."""
ENTRIES = 4096
"""The most members it may have."""
SUFFIX = ".bundle"

_MANIFEST, _CMS, _FILES = "manifest.json", "manifest.cms", "files/"
BLOCK = tarfile.BLOCKSIZE
_NAME, SIZE = slice(0, 100), slice(124, 136)
"""Fields of a header (POSIX.1-2017, pax, ustar)."""


def file_name(manifest: Manifest) -> str:
    """Return what a bundle's file is called."""
    return f"{manifest.firewall}-{manifest.serial}{SUFFIX}"


def write(manifest: Manifest, cms: bytes | None, crl: bytes, files: Mapping[str, bytes]) -> bytes:
    """Return a bundle's bytes; equal parts give equal bytes."""
    members = {_MANIFEST: manifest.emit(), LISTS: crl, **{f"{_FILES}{path}": files[path] for path in files}}
    if cms is not None:
        members[_CMS] = cms
    return _pack(members)


def read(path: Path) -> Bundle:
    """Return the bundle in a file, of which nothing but the form is known.

    Raises:
        Refused: It is too large, is no bundle in form (malformed), or a file is not as the manifest says (altered).
        OSError: It cannot be read.

    """
    try:
        content = read_regular(path, BUNDLE_BYTES)
    except OSError as failed:
        if failed.errno == errno.EFBIG:
            raise _malformed(str(failed.strerror)) from failed
        raise
    return read_bytes(content)


def read_bytes(content: bytes) -> Bundle:
    """Return the bundle with these bytes; see :func:`read`."""
    if len(content) > BUNDLE_BYTES:
        raise _malformed(f"it has more than {BUNDLE_BYTES} bytes")
    members = _members(content)
    for name in (_MANIFEST, LISTS):
        if name not in members:
            raise _malformed(f"it holds no {name}")
    manifest = parse(members[_MANIFEST])
    files = {name.removeprefix(_FILES): held for name, held in members.items() if name.startswith(_FILES)}
    extra = {name for name in members if not name.startswith(_FILES)} - {_MANIFEST, _CMS, LISTS}
    if extra or set(files) != set(manifest.files):
        differing = sorted(extra | (set(files) ^ set(manifest.files)))
        raise _malformed(f"members and manifest differ: {', '.join(differing[:3])}")
    for name, held, known in (
        (LISTS, members[LISTS], manifest.crl),
        *((path, files[path], manifest.files[path]) for path in files),
    ):
        if Held.of(held) != known:
            raise Refused(Code.ALTERED, f"'{name}' is not the file that manifest.json tells of")
    return Bundle(
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
        manifest_json=members[_MANIFEST],
        manifest=manifest,
        cms=members.get(_CMS),
        crl=members[LISTS],
        files=files,
    )


def _pack(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    for name in sorted(members):
        out.write(header(name, len(members[name])))
        out.write(members[name])
        out.write(bytes(-len(members[name]) % BLOCK))
    out.write(bytes(2 * BLOCK))
    return out.getvalue()


def header(name: str, size: int) -> bytes:
    """Return the header (ustar) of a plain file, the only one that it may have here."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    entry.mode = 0o644
    return entry.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")


def _members(content: bytes) -> dict[str, bytes]:
    """Return the members of an archive that :func:`_pack` could have made, and refuse all others.

    There is no leeway: a link, a directory, a path of its own making, a time or a mode makes another header than the
    one that name and size call for.
    """
    members: dict[str, bytes] = {}
    at, last = 0, ""
    while content[at : at + BLOCK] != bytes(BLOCK):
        found = content[at : at + BLOCK]
        if len(found) < BLOCK or len(members) == ENTRIES:
            raise _malformed(f"it is cut off, or has more than {ENTRIES} members")
        name, size = _name_and_size(found)
        if found != header(name, size):
            raise _malformed(f"its member at byte {at} is no plain file as bundles hold them")
        if name <= last:
            raise _malformed(f"its member '{name}' stands twice, or out of order")
        at, last = at + BLOCK, name
        members[name] = content[at : at + size]
        after = at + size + -size % BLOCK
        if content[at + size : after] != bytes(-size % BLOCK):
            raise _malformed(f"its member '{name}' is cut off, or something is hidden behind it")
        at = after
    if content[at:] != bytes(2 * BLOCK):
        raise _malformed("something follows its end")
    return members


def _name_and_size(header: bytes) -> tuple[str, int]:
    try:
        name = header[_NAME].rstrip(b"\0").decode("ascii")
        size = int(header[SIZE].rstrip(b"\0").decode("ascii"), 8)
    except ValueError as wrong:
        raise _malformed("a member's header holds no name or no size") from wrong
    if not name or "\0" in name or not 0 <= size <= BUNDLE_BYTES:
        raise _malformed("a member's header holds no name, or a size that is too large")
    return name, size


def _malformed(text: str) -> Refused:
    return Refused(Code.MALFORMED, text)
