"""A root from package files: what they hold, less what an appliance never reads; no maintainer script runs.

Scripts would need dpkg, debconf, Perl and a shell, and what they leave behind depends on the machine.  What they would
have done that matters is done in :mod:`appliance_image.image.settle`.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from appliance_image.image.errors import ImageError

_MERGED = ("bin", "sbin", "lib", "lib64")
"""Directories of / that are links into /usr, as Debian 13 has them."""

_LEFT_OUT = tuple(
    PurePosixPath(each)
    for each in (
        "etc",
        "usr/include",
        "usr/lib/dracut",
        "usr/lib/initcpio",
        "usr/lib/kernel",
        "usr/lib/pcrlock.d",
        "usr/lib/systemd/catalog",
        "usr/lib/systemd/portable",
        "usr/lib/systemd/user",
        "usr/lib/systemd/user-generators",
        "usr/lib/systemd/user-environment-generators",
        "usr/lib/systemd/user-preset",
        "usr/lib/systemd/system-environment-generators",
        "usr/share/apport",
        "usr/share/bash-completion",
        "usr/share/bug",
        "usr/share/debconf",
        "usr/share/doc",
        "usr/share/gcc",
        "usr/share/gdb",
        "usr/share/initramfs-tools",
        "usr/share/info",
        "usr/share/lintian",
        "usr/share/locale",
        "usr/share/man",
        "usr/share/menu",
        "usr/share/mime",
        "usr/share/pam-configs",
        "usr/share/perl5",
        "usr/share/pixmaps",
        "usr/share/pkgconfig",
        "usr/share/polkit-1",
        "usr/share/python3",
        "usr/share/vim",
        "usr/share/zsh",
        "var",
        "run",
        "tmp",
        "home",
        "srv",
        "media",
        "mnt",
        "opt",
    )
)
"""/etc is made by :mod:`~appliance_image.image.settle`; /var is a tmpfs."""

_CONFIGURATION = tuple(
    PurePosixPath(each)
    for each in (
        "etc/ld.so.conf",
        "etc/ld.so.conf.d",
        "etc/netconfig",
        "etc/mke2fs.conf",
        "etc/protocols",
        "etc/services",
        "etc/ethertypes",
        "etc/suricata/classification.config",
        "etc/suricata/reference.config",
        "etc/suricata/threshold.config",
        "etc/ssl/openssl.cnf",
    )
)
"""What of the packages' /etc is kept."""


@dataclass(slots=True)
class Extracted:
    """What became of the packages."""

    copyrights: dict[str, bytes] = field(default_factory=dict)
    """/usr/share/doc/<package>/copyright: not in the image, but what the licences want to accompany it."""
    owners: dict[str, str] = field(default_factory=dict)
    """The package file that each path is from."""


def extract(packages: Iterable[Path], root: Path, *, whole: bool = False) -> Extracted:
    """Unpack packages into an empty directory, in the order given.

    Args:
        packages: The package files.
        root: The directory.
        whole: Leave nothing out.

    Raises:
        ImageError: A package cannot be read, or two hold different files of one name.

    """
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    result = Extracted()
    for package in packages:
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as reader:
            try:
                with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
                    for member in archive:
                        _place(archive, member, root, result, package=package.name, whole=whole)
            except tarfile.TarError as failed:
                raise ImageError(f"{package}: {failed}") from None
        if reader.returncode != 0:
            raise ImageError(f"{package}: dpkg-deb has failed ({reader.returncode})")
    return result


def _place(
    archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path, result: Extracted, *, package: str, whole: bool
) -> None:
    """Write one member of a package to its place."""
    path = _merged(PurePosixPath(member.name))
    if not whole and path.name == "copyright" and path.parts[:3] == ("usr", "share", "doc") and member.isfile():
        with _content(archive, member) as stream:
            result.copyrights[path.parts[3]] = stream.read()
    if not path.parts or not (whole or _wanted(path)):
        return
    if ".." in path.parts:
        raise ImageError(f"{member.name}: leads out of the root")
    target = root / path
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() or target.exists():
        target.unlink()
    result.owners[str(path)] = package
    if member.issym():
        target.symlink_to(member.linkname)
    elif member.islnk():
        target.hardlink_to(root / _merged(PurePosixPath(member.linkname)))
    elif member.isfile():
        with _content(archive, member) as source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
        target.chmod(0o755 if member.mode & 0o111 else 0o644)
    else:
        raise ImageError(f"{member.name}: neither file, link nor directory")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    """Return what reads a file of an archive."""
    content = archive.extractfile(member)
    if content is None:
        raise ImageError(f"{member.name}: nothing to read")
    return content


def _merged(path: PurePosixPath) -> PurePosixPath:
    """Return where a path lands now that /bin, /sbin and /lib are in /usr."""
    parts = [part for part in path.parts if part not in {".", "/"}]
    if parts and parts[0] in _MERGED:
        parts.insert(0, "usr")
    return PurePosixPath(*parts)


def _wanted(path: PurePosixPath) -> bool:
    """Say whether an appliance has this file."""
    if any(path == kept or kept in path.parents for kept in _CONFIGURATION):
        return True
    return not any(path == each or each in path.parents for each in _LEFT_OUT)
