"""A small topology as text, with values put in where a test wants them."""

from __future__ import annotations

import json
from pathlib import Path

from netpolicy.intent.check import check_topology
from netpolicy.topology.load import examine
from netpolicy.topology.model import Topology

_TEXT = """\
network: {{id: small, title: {title}, as_of: 2026-11-01, timezone: Asia/Tokyo}}
tiers: {{town: {{title: {title}}}, state: {{title: {title}}}}}
sites:
  ash: {{title: {title}, tier: town, parent: capital}}
  capital: {{title: {title}, tier: state}}
roles: {{clerk: {{title: {title}, tier: town}}, registry: {{title: {title}, tier: state}}}}
managers: {{agency: {{title: {title}, segment: hall}}}}
segments:
  town-lan: {{title: {title}, tier: town, site: ash, prefixes: [10.1.0.0/24, "fd00:1::/64"]}}
  line: {{title: {title}, kind: dedicated_line, prefixes: [10.9.0.0/24, "fd00:9::/64"]}}
  hall: {{title: {title}, tier: state, site: capital, prefixes: [10.2.0.0/24, "fd00:2::/64"]}}
nodes:
  desk: {{title: {title}, role: clerk, segment: town-lan, addresses: [10.1.0.10, "fd00:1::10"], interface: {interface}}}
  books: {{title: {title}, role: registry, segment: hall, addresses: [10.2.0.10, "fd00:2::10"], identity: {identity}}}
firewalls:
  town-fw:
    title: {title}
    site: ash
    managed_by: agency
    identity: {own_identity}
    interfaces:
      lan: {{segment: town-lan, addresses: [10.1.0.1, "fd00:1::1"]}}
      line: {{segment: line, addresses: [10.9.0.1, "fd00:9::1"]}}
  hall-fw:
    title: {title}
    site: capital
    managed_by: agency
    interfaces:
      line: {{segment: line, addresses: [10.9.0.2, "fd00:9::2"]}}
      hall: {{segment: hall, addresses: [10.2.0.1, "fd00:2::1"]}}
services:
  app: {{title: {title}, ports: {ports}, alpn: {alpn}, prologue: {prologue}}}
  seen: {{title: {title}, ports: 17001, alpn: {alpn}}}
{forbidden}
flows:
  notice: &
    title: {title}
    from: {{role: clerk}}
    to: {{role: registry, site: parent}}
    service: app
    assurance: terminate
    basis: {{act: {act}, article: {act}, as_of: 2026-01-01, confirmed: true}}
    affair: {affair}
    owner: {owner}
    review: 2027-03-31
  look:
    title: {title}
    from: {{role: clerk}}
    to: {{role: registry, site: parent}}
    service: seen
    assurance: inspect
    basis: {{act: {act}, article: {act}, as_of: 2026-01-01, confirmed: true}}
    affair: {affair}
    owner: {owner}
    review: 2027-03-31
""".replace(": &", ":")
SERVICE_LINE = next(number for number, line in enumerate(_TEXT.splitlines(), 1) if line.startswith("  app:"))
"""Where the service of the relayed flow stands; the next line has the one that is inspected."""
_VALUES: dict[str, object] = {
    "title": "Title",
    "interface": "eth0",
    "identity": "urn:small:books",
    "own_identity": "urn:small:town-fw",
    "ports": 17000,
    "alpn": "app/1",
    "prologue": "JUKI",
    "act": "Registry Act",
    "affair": "notices",
    "owner": "Town clerk",
}


def write(path: Path, forbidden: str = "", **values: object) -> None:
    """Write the topology; `values` are written as YAML's double-quoted scalars, `forbidden` is a whole section."""
    written = {name: json.dumps(value) for name, value in (_VALUES | values).items()}
    path.write_text(_TEXT.format(forbidden=forbidden, **written), encoding="utf-8")


def refusals(path: Path) -> list[str]:
    """Return what is said against a topology, with places."""
    return [str(found) for found in examine(path).errors]


def topology(path: Path, forbidden: str = "", **values: object) -> Topology:
    """Return what is written.

    Raises:
        InputError: It is refused.

    """
    write(path, forbidden, **values)
    return check_topology(path).topology
