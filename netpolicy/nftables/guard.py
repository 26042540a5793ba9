"""The guard table: a second, independent closed door."""

from __future__ import annotations

from netpolicy.nftables.names import ACCEPTED_MARK, GUARD_TABLE, MARK_MASK
from netpolicy.nftables.text import block


def emit_guard() -> str:
    """Return ``guard.nft``, the same for every firewall.

    Loaded before anything else it drops all, which is the state of a booting firewall.  Later it stands behind the main
    table: whatever that table did not mark as accepted is dropped, also while it is being replaced and if it is gone.
    """
    body: list[str] = []
    for hook, loopback in (("input", 'iifname "lo" accept'), ("forward", None), ("output", 'oifname "lo" accept')):
        rules = [f"type filter hook {hook} priority 10; policy drop;"]
        if loopback is not None:
            rules.append(loopback)
        rules.append(f"meta mark & {MARK_MASK:#x} == {ACCEPTED_MARK:#x} accept")
        rules.append(f"counter name guard_{hook} drop")
        body.extend(block(f"chain {hook}", rules))
    counters = [f"counter guard_{hook} {{ }}" for hook in ("input", "forward", "output")]
    lines = [
        "#!/usr/sbin/nft -f",
        "# Closed until the main table accepts. Load first; loading it again changes nothing.",
        "",
        f"table inet {GUARD_TABLE}",
        f"delete table inet {GUARD_TABLE}",
        *block(f"table inet {GUARD_TABLE}", [*counters, *body]),
        "",
    ]
    return "\n".join(lines)
