"""Run by :mod:`netpolicy.proof.read` in a process of its own: libnftables acts in the namespace it was opened in."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # started apart from whatever else is installed
    sys.path.insert(0, str(Path(__file__).parents[2]))

from netpolicy.proof.netlink import DUMP, NETLINK_NETFILTER, ChangedError, Netlink, attribute, attributes, number

APART = "--apart"
"""The option to act in a network namespace of its own, which is gone with the process."""
AGAIN = "--again"
"""The option to load what nft lists, in another namespace if it is what was there, and to tell what then is held."""
MOST_BYTES = 1 << 28
"""Of one listing."""
CLONE_NEWNET = 0x40000000
_MEMORY = 6 << 30
"""That this process may take."""
_TRIES = 5
"""To read a ruleset that changes meanwhile."""

# linux/netfilter/nfnetlink.h and nf_tables.h.
_SUBSYSTEM = 10 << 8
_GENERATION, _ELEMENTS = 16, 13
_KINDS = {"table": 1, "chain": 4, "rule": 7, "set": 10, "object": 19, "flowtable": 23}
_GENERATION_NUMBER = 1
_RELOADED = ("ip", "ip6", "inet")

Message = tuple[int, str]
"""A family, and the attributes in hexadecimal digits."""


def main() -> int:
    """Read groups of rulesets as JSON, load each group, and write what the kernel then holds.

    It is written three times: as the kernel tells it over netlink, as JSON, and as text for people.
    """
    try:
        import nftables  # noqa: PLC0415 - its absence is an answer
    except ImportError:
        lacking = f"{sys.executable} has no module 'nftables'"
        remedy = "install Debian's python3-nftables, and use Debian's Python: 'python3 -m venv --system-site-packages'"
        print(f"{lacking}: {remedy}", file=sys.stderr)
        return 3
    bound()
    # No unshare(1): an appliance has few programs, and os.unshare is there from Python 3.12 on.
    if APART in sys.argv[1:]:
        _apart()
    found = []
    for group in json.load(sys.stdin):
        if group is not None:
            run(nftables.Nftables(), "flush ruleset")
            for name, commands in group:
                load(nftables, name, commands)
        each = _listed(nftables)
        if AGAIN in sys.argv[1:]:
            if group is None:
                _apart()
            else:
                run(nftables.Nftables(), "flush ruleset")
            failed, _, complaint = nftables.Nftables().cmd(each.pop("reloaded"))
            each["again"] = {"refused": complaint} if failed else _held()
        found.append(each)
    json.dump(found, sys.stdout)
    return 0


def _apart() -> None:
    """Go on in a network namespace of one's own."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        print(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        raise SystemExit(1)


def bound() -> None:
    """Take no more memory than rulesets need, and leave no core behind."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = _MEMORY if most == resource.RLIM_INFINITY else min(_MEMORY, most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(nftables: Any, name: str, commands: str) -> None:
    """Load the text of a file; complaints are about the file."""
    with os.fdopen(os.memfd_create("ruleset"), "wb") as file:
        file.write(commands.encode())
        file.flush()
        place = f"/proc/self/fd/{file.fileno()}"
        failed, _, complaint = nftables.Nftables().cmd_from_file(place)
    if failed:
        print(complaint.replace(place, name), file=sys.stderr)
        raise SystemExit(1)


def _listed(nftables: Any) -> dict[str, Any]:
    """Return a ruleset of one moment."""
    for _ in range(_TRIES):
        before = _generation()
        try:
            held = _held()
        except InterruptedError:
            continue
        listing = nftables.Nftables()
        listing.set_handle_output(True)
        listing.set_stateless_output(True)
        text = run(listing, "list ruleset")
        # What is at devices, which other namespaces do not have, is read by netpolicy.proof.frame_lister.
        again = "".join(run(listing, f"list ruleset {family}") for family in _RELOADED)
        for name in ("json", "numeric_proto", "numeric_prio", "numeric_symbol"):
            getattr(listing, f"set_{name}_output")(True)
        told = run(listing, "list ruleset")
        if _generation() == before:
            return {"json": told, "text": text, "reloaded": again, "held": held}
    print("the rules do not stay the same while they are read", file=sys.stderr)
    raise SystemExit(1)


def _held() -> dict[str, list[Message]]:
    """Return what the kernel holds, kind by kind.

    Raises:
        InterruptedError: It has changed meanwhile.

    """
    try:
        with Netlink(NETLINK_NETFILTER) as kernel:
            found = {kind: list(_asked(kernel, asked)) for kind, asked in _KINDS.items()}
            elements: list[Message] = []
            for family, content in found["set"]:
                parts = dict(attributes(bytes.fromhex(content)))
                elements += _asked(kernel, _ELEMENTS, family, attribute(1, parts[1]) + attribute(2, parts[2]))
    except ChangedError as changed:
        raise InterruptedError from changed
    return {**found, "elements": elements}


def _asked(kernel: Netlink, kind: int, family: int = 0, content: bytes = b"") -> Iterator[Message]:
    header = struct.pack("!BBH", family, 0, 0)
    for _, body in kernel.ask(_SUBSYSTEM | kind, DUMP, header + content):
        yield body[0], body[len(header) :].hex()


def _generation() -> int:
    """Return the number that changes with every change of the ruleset."""
    with Netlink(NETLINK_NETFILTER) as kernel:
        for _, body in kernel.ask(_SUBSYSTEM | _GENERATION, 0, struct.pack("!BBH", 0, 0, 0)):
            return number(dict(attributes(body[4:]))[_GENERATION_NUMBER])
    return 0


def run(context: object, command: str) -> str:
    """Return what libnftables says to a command; end with its complaint, or if it says too much."""
    failed, said, complaint = context.cmd(command)  # type: ignore[attr-defined]
    if failed or len(said) > MOST_BYTES:
        print(complaint or "the listing is too long", file=sys.stderr)
        raise SystemExit(1)
    return str(said)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MemoryError:
        print("the rules take more memory than reading them may", file=sys.stderr)
        sys.exit(1)
