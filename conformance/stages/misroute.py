"""Anti-spoofing on the way out: a route that leads astray must not lead a permitted packet out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute

from conformance.expect import Permitted
from conformance.lab import Lab
from conformance.lab.network import index_of
from conformance.probe.batch import FirewallProber, Probe
from conformance.probe.shape import Shape
from netpolicy.topology.model import Address

STAGE = "attack"


def misroute(prober: FirewallProber) -> int:
    """Send one permitted packet astray for each crossing and family; return how many."""
    chosen: dict[tuple[str, int], Permitted] = {}
    for permitted in prober.permits:
        if permitted.egress is not None:
            chosen.setdefault((permitted.ends[0], permitted.ends[2].version), permitted)
    count = 0
    for (ingress, _), permitted in chosen.items():
        source, destination = permitted.ends[2:]
        port = permitted.ports[0].first
        with _astray(prober.lab, prober.firewall.id, destination, ingress):
            count += prober.run(
                [
                    Probe(
                        stage=STAGE,
                        source=permitted.source.id,
                        destination=permitted.destination.id,
                        label=f"{permitted.flow.id} tcp/{port} routed back out of {ingress}",
                        shape=Shape.SYN,
                        ingress=ingress,
                        source_address=source,
                        destination_address=destination,
                        port=port,
                        about=permitted.flow.id,
                        misrouted=True,
                    )
                ]
            )
    return count


@contextmanager
def _astray(lab: Lab, firewall: str, destination: Address, interface: str) -> Iterator[None]:
    """Have a firewall route one address out of an interface while inside."""
    target = f"{destination}/{destination.max_prefixlen}"

    def change(command: str) -> None:
        with IPRoute() as route:
            route.route(command, dst=target, oif=index_of(route, [interface])[interface])

    namespace = lab.namespace(firewall)
    namespace.call(lambda: change("add"))
    try:
        yield
    finally:
        namespace.call(lambda: change("del"))
