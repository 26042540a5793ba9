"""Files that give rights, and programs that run what others write."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance_image.hardening.figures import Figure, Mark
from appliance_image.hardening.files import section


def _over(root: Path, *, test: bool = False) -> list[Figure]:
    return list(section(root, test=test).over)


def _program(root: Path, name: str, mode: int = 0o755) -> Path:
    path = root / "usr/bin" / name
    path.write_bytes(b"\x7fELF")
    path.chmod(mode)
    return path


def test_clean_root(root: Path) -> None:
    """A root like an appliance's has nothing over a limit; its one interpreter is told with its reason."""
    found = section(root, test=False)
    assert found.over == ()
    (python,) = [each for each in found.figures if each.name == "interpreter: Python"]
    assert (python.mark, python.value) == (Mark.EXCEPTED, "/usr/bin/python3.13")
    assert "agent" in python.reason


def _capability(root: Path) -> None:
    # linux/capability.h: VFS_CAP_REVISION_2 with the effective bit; permitted and inheritable, low and high.
    os.setxattr(_program(root, "ping"), "security.capability", struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0))


def _socket_unit(root: Path) -> None:
    (root / "usr/lib/systemd/system/door.socket").write_text("[Socket]\nListenStream=/run/x\nListenStream=22\n")


_LOOSENED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "setuid": (lambda root: _program(root, "su", 0o4755), "setuid or setgid files", "/usr/bin/su"),
    "setgid": (lambda root: _program(root, "wall", 0o2755), "setuid or setgid files", "/usr/bin/wall"),
    "capability": (_capability, "files with capabilities", "/usr/bin/ping"),
    "world": (lambda root: _program(root, "x", 0o757), "writable for everyone", "/usr/bin/x"),
    "sticky": (lambda root: (root / "usr").chmod(0o1757), "writable for everyone", "/usr"),
    "group": (lambda root: _program(root, "x", 0o775), "writable for a group", "/usr/bin/x"),
    "device": (
        lambda root: os.mknod(root / "etc/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)),
        "device nodes",
        "/etc/mem",
    ),
    "owner": (lambda root: os.chown(_program(root, "x"), 1000, 0), "not root's own", "/usr/bin/x"),
    "password": (
        lambda root: (root / "etc/shadow").write_text("root:$y$j9T$x:::::::\n"),
        "accounts with a password",
        "root (etc/shadow)",
    ),
    "empty": (
        lambda root: (root / "etc/shadow").write_text("root::::::::\n"),
        "accounts with a password",
        "root (etc/shadow)",
    ),
    "shell": (
        lambda root: (root / "etc/passwd").write_text("root:x:0:0::/root:\n"),
        "accounts with a shell",
        "root (/bin/sh)",
    ),
    "listens": (_socket_unit, "sockets that units listen on", "door.socket: 22"),
    "dash": (lambda root: _program(root, "dash"), "interpreter: shell", "/usr/bin/dash"),
    "perl": (lambda root: _program(root, "perl5.40-x86_64-linux-gnu"), "interpreter: Perl", "perl5.40"),
    "link": (lambda root: (root / "usr/bin/awk").symlink_to("mawk"), "interpreter: awk", "/usr/bin/awk"),
    "compiler": (lambda root: _program(root, "gcc-14"), "interpreter: compiler", "/usr/bin/gcc-14"),
    "ssh": (lambda root: _program(root, "sshd"), "interpreter: remote access", "/usr/bin/sshd"),
}


@pytest.mark.parametrize("name", _LOOSENED)
def test_loosened_root(root: Path, name: str) -> None:
    """Whatever gives rights or runs others' programs is over its limit, and named."""
    loosen, figure, what = _LOOSENED[name]
    loosen(root)
    (found,) = _over(root)
    assert (found.name, found.value, found.limit) == (figure, "1", "0")
    assert what in found.reason


def test_console_of_a_test_image(root: Path) -> None:
    """A shell is excepted in a test image, and nowhere else."""
    _program(root, "busybox")
    assert _over(root, test=True) == []
    assert [each.name for each in _over(root)] == ["interpreter: shell"]


def test_many_are_counted(root: Path) -> None:
    """The figure counts all of them, though only some are named."""
    for number in range(8):
        _program(root, f"x{number}", 0o4755)
    (found,) = _over(root)
    assert found.value == "8"
    assert found.reason.endswith("and 3 more")
