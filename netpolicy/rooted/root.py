"""The root that the inline engine and the relay run from: the packages of an appliance, made by ``make setup``."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ids_rules.version import Suricata

_LAUNCH = Path(__file__).with_name("launch.py")
_VARIABLE = "NETPOLICY_ROOT"
_PACKAGE = re.compile(r"^Package: suricata$(?:\n.+)*?\nVersion: (?:[0-9]+:)?([0-9]+)\.", re.MULTILINE)
_PLACES = (Path(__file__).parents[2] / ".engine/root", Path("/usr/lib/netpolicy/root"))


class RootError(Exception):
    """A root has not what is needed of it; says what."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of this machine that is seen inside the root."""

    source: Path
    target: str
    """Absolute, and there in the root."""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """A Debian root: of 13, with both, or of 12, with Suricata 7 and no relay."""

    directory: Path

    @classmethod
    def find(cls) -> Self | None:
        """Return the root named by ``NETPOLICY_ROOT``, or the one that ``make setup`` has made; None without one."""
        named = os.environ.get(_VARIABLE)
        places = (Path(named),) if named else _PLACES
        return next((cls(place.resolve()) for place in places if (place / "usr/bin/suricata").exists()), None)

    @property
    def suricata(self) -> Suricata:
        """The major version of its inline engine, by its list of packages.

        Raises:
            RootError: There are no rules for it.

        """
        status = self.directory / "var/lib/dpkg/status"
        found = _PACKAGE.search(status.read_text(encoding="utf-8")) if status.is_file() else None
        if found is None or int(found[1]) not in list(Suricata):
            valid = " or ".join(str(version.value) for version in Suricata)
            said = f"Suricata {found[1]}" if found else "no package of Suricata"
            raise RootError(f"{self.directory} has {said}; expected {valid}")
        return Suricata(int(found[1]))

    @property
    def has_relay(self) -> bool:
        """Whether relays can run from it; the HAProxy of Debian 12 is too old, so its root has none."""
        return (self.directory / "usr/sbin/haproxy").exists()

    def user(self, name: str) -> tuple[int, int]:
        """Return the numbers of a user of the root and its group.

        Raises:
            RootError: The root has no such user.

        """
        for line in (self.directory / "etc/passwd").read_text(encoding="utf-8").splitlines():
            entry = line.split(":")
            if entry[0] == name:
                return int(entry[2]), int(entry[3])
        raise RootError(f"{self.directory} has no user '{name}': make setup")

    def command(self, argv: Sequence[str], mounts: Sequence[Mount]) -> list[str]:
        """Return the command that runs `argv` inside the root, which it sees read-only but for writable mounts."""
        places = [part for each in mounts for part in (str(each.source), each.target, str(int(each.writable)))]
        return [sys.executable, "-I", "-S", str(_LAUNCH), str(self.directory), str(len(mounts)), *places, *argv]
