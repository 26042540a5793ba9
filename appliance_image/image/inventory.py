"""Who is who: by which network cards an appliance knows which firewall it is. Signed, being in the image."""

from __future__ import annotations

import json

from netpolicy.topology.model import Topology


def inventory(topology: Topology) -> str:
    """Return inventory.json, which the appliance's agent reads.

    ``{"network": …, "firewalls": {NAME: {"managed_by": …, "signatures": 1|2, "interfaces": {NAME: MAC}}}}``

    """
    firewalls = {
        name: {
            "managed_by": firewall.managed_by,
            # How many different operators must sign; a topology of before there was a choice has none.
            "signatures": getattr(firewall, "signatures", 1),
            "interfaces": {each.name: each.mac for each in firewall.interfaces},
        }
        for name, firewall in sorted(topology.firewalls.items())
    }
    return json.dumps({"network": topology.id, "firewalls": firewalls}, indent=1, sort_keys=True) + "\n"
