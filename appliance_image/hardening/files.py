"""Files of a root that give rights, that others may write, or that run programs of others' making."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance_image.hardening.figures import Figure, Mark, Section

_MOST = 5
"""Files that are named on one line."""
_CAPABILITY = "security.capability"
_PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "usr/local/sbin")
_ELSEWHERE = "x"
"""Of passwd(5): it is in shadow(5)."""
_UNLOGGED = frozenset({"nologin", "false"})

INTERPRETERS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "shell": r"(ba|da|a|k|mk|z|c|tc|fi|r)?sh|busybox|toybox|sash",
        "Python": r"python[0-9.]*|pypy[0-9.]*",
        "Perl": r"perl[0-9.]*(-.*)?",
        "awk": r"[gmon]?awk|original-awk",
        "Lua": r"lua[0-9.]*|luajit.*|texlua",
        "Ruby": r"ruby[0-9.]*",
        "JavaScript": r"node(js)?|qjs|gjs",
        "Tcl": r"(tcl|expect)[0-9.]*(sh[0-9.]*)?",
        "PHP": r"php[0-9.]*",
        "compiler": r"(x86_64-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|clang|tcc|as|ld|go|rustc)(-[0-9.]+)?",
        "debugger": r"gdb(server)?|strace|ltrace|lldb(-[0-9.]+)?",
        "editor": r"[bd]c|ed|sed|ex|vim?",
        "remote access": r"sshd?|telnetd?|in\..*|dropbear|ncat|nc|netcat|socat|curl|wget|ftp|rsync|tftp",
    }.items()
}
"""Names of programs that run what others write, or fetch it."""
EXPECTED: Mapping[str, str] = {"Python": "the agent (appliance_image.agent) is written in it; it runs isolated (-I)"}
"""Kinds that an appliance has, and why."""
TEST_EXPECTED: Mapping[str, str] = {"shell": "a test image's console; no production image has one"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, as an audit sees it."""

    path: str
    """With a slash before it."""
    mode: int
    owner: int
    capability: bool


def section(root: Path, *, test: bool) -> Section:
    """Return the figures of a root's files.

    Args:
        root: The unpacked root; its modes and owners are those of the image.
        test: Whether it is of a test image, which has a console.

    """
    entries = list(walk(root))
    wanted: tuple[tuple[str, Callable[[Entry], bool]], ...] = (
        ("setuid or setgid files", lambda each: bool(each.mode & (stat.S_ISUID | stat.S_ISGID))),
        ("files with capabilities", lambda each: each.capability),
        ("writable for everyone", lambda each: bool(each.mode & stat.S_IWOTH) and not stat.S_ISLNK(each.mode)),
        ("writable for a group", lambda each: bool(each.mode & stat.S_IWGRP) and not stat.S_ISLNK(each.mode)),
        ("device nodes", lambda each: stat.S_ISCHR(each.mode) or stat.S_ISBLK(each.mode)),
        ("not root's own", lambda each: each.owner != 0),
    )
    figures = [_none(name, [each.path for each in entries if holds(each)]) for name, holds in wanted]
    figures.append(_none("accounts with a password", list(_passwords(root))))
    figures.append(_none("accounts with a shell", list(_shells(root))))
    figures.append(_none("sockets that units listen on", list(_socket_units(root))))
    figures += _interpreters(root, {**EXPECTED, **(TEST_EXPECTED if test else {})})
    figures.append(Figure("programs", str(len(programs(root))), Mark.TOLD))
    figures.append(Figure("files", str(sum(stat.S_ISREG(each.mode) for each in entries)), Mark.TOLD))
    return Section("files", "Files", tuple(figures))


def walk(root: Path) -> Iterator[Entry]:
    """Yield every file below a root, links not followed."""
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as found:
            for each in sorted(found, key=lambda entry: entry.name):
                status = each.stat(follow_symlinks=False)
                path = "/" + str(Path(each.path).relative_to(root))
                yield Entry(path, status.st_mode, status.st_uid, _has_capability(each.path))
                if each.is_dir(follow_symlinks=False):
                    waiting.append(Path(each.path))


def programs(root: Path) -> list[str]:
    """Return the programs of a root by their paths; directories that are links count once."""
    found: dict[str, None] = {}
    for directory in _PROGRAMS:
        place = root / directory
        if place.is_symlink() or not place.is_dir():
            continue
        for each in place.iterdir():
            if each.is_symlink() or (each.is_file() and each.stat().st_mode & 0o111):
                found[f"/{directory}/{each.name}"] = None
    return sorted(found)


def _interpreters(root: Path, expected: Mapping[str, str]) -> Iterator[Figure]:
    found = programs(root)
    for kind, pattern in INTERPRETERS.items():
        names = [each for each in found if pattern.fullmatch(each.rpartition("/")[2])]
        if names and kind in expected:
            yield Figure(f"interpreter: {kind}", _some(names), Mark.EXCEPTED, "0", expected[kind])
        else:
            yield _none(f"interpreter: {kind}", names)


def _none(name: str, found: list[str]) -> Figure:
    return Figure(name, str(len(found)), Mark.OVER if found else Mark.HOLDS, "0", _some(found))


def _some(found: list[str]) -> str:
    rest = len(found) - _MOST
    return ", ".join(found[:_MOST]) + (f" and {rest} more" if rest > 0 else "")


def _has_capability(path: str) -> bool:
    try:
        os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError as none:
        if none.errno in {errno.ENODATA, errno.ENOTSUP, errno.EPERM}:
            return False
        raise
    return True


def _passwords(root: Path) -> Iterator[str]:
    """Yield accounts that a password opens: one that is there, or none at all (shadow(5))."""
    for file in ("etc/shadow", "etc/passwd"):
        path = root / file
        for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
            name, _, rest = line.partition(":")
            password = rest.partition(":")[0]
            if not password.startswith(("!", "*")) and not (file == "etc/passwd" and password == _ELSEWHERE):
                yield f"{name} ({file})"


def _shells(root: Path) -> Iterator[str]:
    path = root / "etc/passwd"
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        words = line.split(":")
        # passwd(5): an empty field is /bin/sh.
        if len(words) == 7 and words[6].rpartition("/")[2] not in _UNLOGGED:
            yield f"{words[0]} ({words[6] or '/bin/sh'})"


def _socket_units(root: Path) -> Iterator[str]:
    """Yield what socket units of a root listen on, other than paths and netlink (systemd.socket(5))."""
    for directory in ("usr/lib/systemd/system", "etc/systemd/system"):
        for path in sorted((root / directory).glob("*.socket")):
            if path.is_symlink():
                continue
            for line in path.read_text("utf-8").splitlines():
                key, _, value = (part.strip() for part in line.partition("="))
                if key in {"ListenStream", "ListenDatagram", "ListenSequentialPacket"} and value[:1] not in {
                    "/",
                    "@",
                    "",
                }:
                    yield f"{path.name}: {value}"
