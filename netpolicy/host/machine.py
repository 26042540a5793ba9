"""Kernel settings of a firewall that are the whole machine's, and no network namespace's: ``machine.conf``.

What is permitted must fit into connection tracking: the kernel drops whatever begins when its table is full, so that
those who may open connections of one flow would close all others. Its own default goes by the machine's memory.
"""

from __future__ import annotations

import math

from netpolicy.intent.model import FirewallIntent

MACHINE = "machine.conf"
CLOSING_SECONDS = 40
"""How long at most a connection that no limit counts any more keeps its place: 30 s in TIME_WAIT after 10 s of the last
acknowledgement, both in ``sysctl.conf``."""
_ROOM = 1.25
_LEAST = 4096
_STEP = 1024
"""Bucket lists are whole pages: 512 pointers each."""


def tracked(intent: FirewallIntent) -> int:
    """Return how many entries of connection tracking the flows of a firewall may take, all of them at their limits.

    A relay has two connections for each that it takes, and one more to the firewall's own endpoint.
    """
    entries = {relayed.flow: 3 if relayed.local else 2 for relayed in intent.relayed}
    return sum(
        (flow.limits.connections + CLOSING_SECONDS * flow.limits.rate) * entries.get(flow.id, 1)
        for flow in intent.flows
    )


def emit_machine(intent: FirewallIntent) -> str:
    """Return ``machine.conf``: what the machine must have at least."""
    most = tracked(intent)
    entries = max(_LEAST, math.ceil(most * _ROOM / _STEP) * _STEP)
    return (
        f"# Kernel settings of the machine that is firewall {intent.id}: at least these. Compiled by netpolicy.\n"
        "# A network namespace has no such settings, and the lab does not apply them.\n"
        "\n"
        f"# its flows take {most} entries of connection tracking when each is at its limits; a quarter more\n"
        f"net/netfilter/nf_conntrack_max = {entries}\n"
        "# as many lists as entries: none is long, whoever chooses the ports\n"
        f"net/netfilter/nf_conntrack_buckets = {entries}\n"
    )
