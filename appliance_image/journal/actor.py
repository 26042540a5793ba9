"""Who uses this host."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

from appliance_image.journal.record import Fields

_LOGIN = Path("/proc/self/loginuid")
_NOBODY = 2**32 - 1
"""What the kernel says of a process that no login began."""


def actor() -> Fields:
    """Return who does something: user name, number, who logged in where the kernel knows it, and the host."""
    user = os.getuid()
    fields: dict[str, str | int] = {"actor": _name(user), "uid": user}
    try:
        login = int(_LOGIN.read_text(encoding="ascii"))
    except (OSError, ValueError):
        login = _NOBODY
    if login not in {_NOBODY, user}:
        fields["login"] = _name(login)
    return {**fields, "host": socket.gethostname()}


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
