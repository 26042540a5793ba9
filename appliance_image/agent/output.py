"""What engines write: in memory, never more than there is room for, and begun anew when it is long."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
from pathlib import Path
from typing import Any

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root

_LONGEST = 16 << 20
"""Bytes of a file, of which there are two for each engine: the one that is written, and the one before."""
_OPTIONS = b"size=192m,nr_inodes=4096,mode=0755"
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_PROTOCOL = "0.2"
"""Of Suricata's command socket (docs.suricata.io, "Interacting via Unix Socket")."""
_SECONDS = 30.0
_EVENTS = "eve.json"


def bound(root: Root) -> None:
    """Give what engines write a file system of its own, so that a flood of alerts takes memory from nothing else.

    Raises:
        AgentError: The kernel refuses.

    """
    place = root.run / "engine"
    place.mkdir(parents=True, exist_ok=True)
    if not root.mounted or place.is_mount():
        return
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if ctypes.CDLL(None, use_errno=True).mount(b"tmpfs", os.fsencode(place), b"tmpfs", flags, _OPTIONS) != 0:
        raise AgentError("output", f"{place} cannot be mounted: {os.strerror(ctypes.get_errno())}")


def rotate(root: Root, longest: int = _LONGEST) -> list[str]:
    """Have engines begin files that are too long anew, and return of which interfaces.

    Raises:
        AgentError: An engine does not answer.

    """
    done = []
    for directory in sorted((root.run / "engine").glob("*/log")):
        events = directory / _EVENTS
        if events.is_file() and events.stat().st_size > longest:
            events.replace(directory / f"{_EVENTS}.1")
            ask(directory.parent / "run" / "command.socket", "reopen-log-files")
            done.append(directory.parent.name)
    return done


def ask(path: Path, command: str) -> Any:
    """Return the answer of an engine to a command.

    Raises:
        AgentError: It refused, or does not answer.

    """
    try:
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as connection:
            connection.settimeout(_SECONDS)
            connection.connect(str(path))
            _exchange(connection, {"version": _PROTOCOL})
            return _exchange(connection, {"command": command})
    except (OSError, ValueError) as failed:
        raise AgentError(
            "engine", f"{path.parent.parent.name}: the engine does not answer {command}: {failed}"
        ) from failed


def _exchange(connection: socket.socket, question: dict[str, str]) -> Any:
    connection.sendall(json.dumps(question).encode() + b"\n")
    received = bytearray()
    while not received.endswith(b"\n") and (part := connection.recv(65536)):
        received += part
    answer = json.loads(received)
    if answer.get("return") != "OK":
        raise ValueError(f"it says {answer.get('message', answer)}")
    return answer.get("message")
