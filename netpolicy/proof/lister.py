"""Run by :mod:`netpolicy.proof.read` in a process of its own: libnftables acts in the namespace it was opened in."""

from __future__ import annotations

import ctypes
import json
import os
import sys

APART = "--apart"
"""The option to act in a network namespace of its own, which is gone with the process."""
_CLONE_NEWNET = 0x40000000


def main() -> int:
    """Read groups of file names as JSON, load each group, and write what the kernel then holds.

    It is written twice: as JSON, and as text with the kernel's own instructions before it.
    """
    try:
        import nftables  # noqa: PLC0415 - its absence is an answer
    except ImportError:
        print("the Debian package python3-nftables is not installed", file=sys.stderr)
        return 3
    # No unshare(1): an appliance has few programs, and os.unshare is there from Python 3.12 on.
    if APART in sys.argv[1:] and ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        print(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return 1
    found = []
    for group in json.load(sys.stdin):
        if group is not None:
            _run(nftables.Nftables(), "flush ruleset")
            for path in group:
                loading = nftables.Nftables()
                failed, _, said = loading.cmd_from_file(path)
                if failed:
                    print(said, file=sys.stderr)
                    return 1
        listing = nftables.Nftables()
        listing.set_handle_output(True)
        listing.set_stateless_output(True)
        listing.set_debug("netlink")
        text = _run(listing, "list ruleset")
        listing.set_debug(0)
        for name in ("json", "numeric_proto", "numeric_prio", "numeric_symbol"):
            getattr(listing, f"set_{name}_output")(True)
        found.append({"json": _run(listing, "list ruleset"), "text": text})
    json.dump(found, sys.stdout)
    return 0


def _run(context: object, command: str) -> str:
    failed, said, complaint = context.cmd(command)  # type: ignore[attr-defined]
    if failed:
        print(complaint, file=sys.stderr)
        raise SystemExit(1)
    return str(said)


if __name__ == "__main__":
    sys.exit(main())
