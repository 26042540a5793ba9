"""The root that the inline engine and the relay run from: the packages of an appliance, made by ``make setup``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from conformance.lab.errors import LabError

_LAUNCH = Path(__file__).with_name("launch.py")
_VARIABLE = "NETPOLICY_ROOT"
_PLACES = (Path(__file__).parents[2] / ".engine/root", Path("/usr/lib/netpolicy/root"))


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of this machine that is seen inside the root."""

    source: Path
    target: str
    """Absolute, and there in the root."""
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Root:
    """A Debian 13 root."""

    directory: Path

    @classmethod
    def find(cls) -> Self | None:
        """Return the root named by ``NETPOLICY_ROOT``, or the one that ``make setup`` has made; None without one."""
        named = os.environ.get(_VARIABLE)
        places = (Path(named),) if named else _PLACES
        return next((cls(place.resolve()) for place in places if (place / "usr/bin/suricata").exists()), None)

    def user(self, name: str) -> tuple[int, int]:
        """Return the numbers of a user of the root and its group.

        Raises:
            LabError: The root has no such user.

        """
        for line in (self.directory / "etc/passwd").read_text(encoding="utf-8").splitlines():
            entry = line.split(":")
            if entry[0] == name:
                return int(entry[2]), int(entry[3])
        raise LabError(f"{self.directory} has no user '{name}': make setup")

    def command(self, argv: Sequence[str], mounts: Sequence[Mount]) -> list[str]:
        """Return the command that runs `argv` inside the root, which it sees read-only but for writable mounts."""
        plan = {
            "root": str(self.directory),
            "mounts": [[str(each.source), each.target, each.writable] for each in mounts],
            "argv": list(argv),
        }
        return [sys.executable, "-I", "-S", str(_LAUNCH), json.dumps(plan)]
