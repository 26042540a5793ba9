"""Settings of the whole machine that a bundle asks for, ``machine.conf``: each is held to be at least so much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from appliance_image.agent import kernel
from appliance_image.agent.errors import AgentError
from netpolicy.proof.settings import read, settings

_FILE = "machine.conf"
_ENTRIES = "net/netfilter/nf_conntrack_max"
_ENTRY_BYTES = 512
"""Of a tracked connection, with its extensions and its place in the hash (struct nf_conn is 256)."""
_SHARE = 4
"""Of memory, this part at most."""
_MEMORY = Path("/proc/meminfo")


def wanted(place: Path) -> dict[str, int]:
    """Return what a bundle asks for; nothing if it was compiled before there was such a file.

    Raises:
        AgentError: The file is none.

    """
    path = place / _FILE
    if not path.exists():
        return {}
    try:
        return {key: int(value) for key, value in settings(path.read_text(encoding="utf-8"))}
    except ValueError as wrong:
        raise AgentError("kernel", f"{_FILE}: {wrong}") from wrong


def check(place: Path) -> None:
    """Refuse a bundle whose connections this machine has no room for.

    Raises:
        AgentError: It has not.

    """
    needed, there = wanted(place).get(_ENTRIES, 0) * _ENTRY_BYTES, _memory()
    if needed * _SHARE > there:
        text = f"connections would take {needed >> 20} MiB, and this machine has {there >> 20}: at most a quarter of it"
        raise AgentError("memory", text)


def load(place: Path) -> None:
    """Have this machine's settings at least as large as a bundle asks for; none is made smaller.

    Raises:
        AgentError: There is no room, or the kernel refuses.

    """
    check(place)
    for key, value, _ in differences(place):
        kernel.write(f"{key} = {value}\n", at_least=True)


def differences(place: Path) -> Iterator[tuple[str, int, str]]:
    """Yield key, wanted and present value of every setting that is less."""
    for key, value in wanted(place).items():
        try:
            found = read(key)
        except OSError:
            found = "missing"
        if not found.isdigit() or int(found) < value:
            yield key, value, found


def _memory() -> int:
    """Return the bytes of this machine's memory."""
    for line in _MEMORY.read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name == "MemTotal":
            return int(rest.split()[0]) << 10
    raise AgentError("memory", "the kernel does not tell how much memory there is")
