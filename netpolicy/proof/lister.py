"""Run by :mod:`netpolicy.proof.read` in a process of its own: libnftables acts in the namespace it was opened in."""

from __future__ import annotations

import json
import sys


def main() -> int:
    """Read groups of file names as JSON, load each group, and write what the kernel then holds.

    It is written twice: as JSON, and as text with the kernel's own instructions before it.
    """
    try:
        import nftables  # noqa: PLC0415 - its absence is an answer
    except ImportError:
        print("the Debian package python3-nftables is not installed", file=sys.stderr)
        return 3
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
