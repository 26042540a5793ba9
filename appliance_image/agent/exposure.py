"""What this appliance shows of itself: sockets in every network namespace, and how its kernel is locked.

Read from /proc, as ``ss`` and ``sysctl`` do. ``netpolicy image audit --report`` judges it.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from appliance_image.agent.namespaces import call_in
from appliance_image.agent.root import Root
from netpolicy.proof.settings import read

_NAMESPACES = Path("/run/netns")
_PLACES = (Path("/usr/lib/sysctl.d"), Path("/etc/sysctl.d"))
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_LISTENS, _UNCONNECTED = 0x0A, 0x07
"""TCP_LISTEN and TCP_CLOSE (linux/tcp_states.h): what is open to whoever sends."""
_KINDS = {"tcp": _LISTENS, "tcp6": _LISTENS, "udp": _UNCONNECTED, "udp6": _UNCONNECTED, "udplite": _UNCONNECTED,
          "udplite6": _UNCONNECTED, "raw": _UNCONNECTED, "raw6": _UNCONNECTED}  # fmt: skip
_ALWAYS = ("kernel/modules_disabled",)
_CHOSEN = re.compile(r"\[(\w+)\]")


@dataclass(frozen=True, slots=True)
class Socket:
    """A socket that takes what comes."""

    kind: str
    """``tcp``, ``udp6``, ``raw``, ``packet`` and the like."""
    address: str
    port: int
    """The protocol of a raw or packet socket."""
    namespace: str
    """Of the network; empty for the one that routes."""
    program: str
    """Empty if it cannot be told."""

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.kind} {self.address or '*'} {self.port}{where} ({self.program or 'unknown'})"


def exposure(root: Root) -> dict[str, Any]:
    """Return what there is, ready for JSON.

    Raises:
        OSError: /proc does not tell.

    """
    return {
        "sockets": [asdict(each) for each in sockets(root)],
        "settings": settings(),
        "command_line": Path("/proc/cmdline").read_text("utf-8").strip(),
        "lockdown": lockdown(),
    }


def sockets(root: Root) -> list[Socket]:
    """Return the sockets of this network namespace and of all engines'.

    Raises:
        OSError: /proc does not tell.

    """
    owners = _owners()
    found = list(_sockets("", owners))
    for each in sorted(_NAMESPACES.glob(f"{root.wire}*")):
        found += call_in(each, lambda name=each.name: list(_sockets(name, owners)))  # type: ignore[misc]
    return found


def settings() -> dict[str, str]:
    """Return the values of all settings that the image's files name, keys with slashes."""
    keys = set(_ALWAYS)
    for place in _PLACES:
        for path in place.glob("*.conf"):
            for line in path.read_text("utf-8").splitlines():
                key, equals, _ = line.partition("=")
                if equals and not line.startswith(("#", ";")):
                    keys.add(key.strip().removeprefix("-").replace(".", "/"))
    found = {}
    for key in sorted(keys):
        with contextlib.suppress(OSError):
            found[key] = read(key)
    return found


def lockdown() -> str:
    """Return how far the kernel is locked against root: ``none``, ``integrity`` or ``confidentiality``."""
    try:
        chosen = _CHOSEN.search(_LOCKDOWN.read_text("ascii"))
    except OSError:
        return "unknown"
    return chosen[1] if chosen else "unknown"


def _sockets(namespace: str, owners: Mapping[int, str]) -> Iterator[Socket]:
    # /proc/net is of the process; a thread in another namespace has its own.
    place = Path("/proc/thread-self/net")
    for kind, state in _KINDS.items():
        with contextlib.suppress(FileNotFoundError):
            for line in (place / kind).read_text("ascii").splitlines()[1:]:
                words = line.split()
                address, port = words[1].split(":")
                if int(words[3], 16) == state:
                    program = owners.get(int(words[9]), "")
                    yield Socket(kind, _address(address), int(port, 16), namespace, program)
    with contextlib.suppress(FileNotFoundError):
        for line in (place / "packet").read_text("ascii").splitlines()[1:]:
            words = line.split()
            yield Socket("packet", "", int(words[3], 16), namespace, owners.get(int(words[8]), ""))


def _address(text: str) -> str:
    """Return an address that the kernel prints as words of this machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)


def _owners() -> dict[int, str]:
    """Return the names of programs by the inodes of their sockets, as far as this process may see them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text("utf-8", errors="replace").strip()
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(descriptor.readlink())
                    if target.startswith("socket:["):
                        found[int(target[8:-1])] = name
    return found
