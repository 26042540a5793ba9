"""The edges of every permit: one address, one port, one protocol, one direction or one interface beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from conformance.expect import Permitted
from conformance.probe.batch import Probe
from conformance.probe.shape import Shape
from netpolicy.topology.model import Address, Firewall

STAGE = "boundary"


def boundary(firewall: Firewall, permits: list[Permitted]) -> Iterator[Probe]:
    """Yield, for each permit, itself and everything next to it."""
    for permitted in permits:
        for ports in permitted.ports:
            for port in sorted({ports.first, ports.last}):
                yield from _around(firewall, permitted, port)
            for port in (ports.first - 1, ports.last + 1):
                if 0 < port < 65536:
                    yield _probe(permitted, f"beside {permitted.flow.id} tcp/{port}", port)


def _around(firewall: Firewall, permitted: Permitted, port: int) -> Iterator[Probe]:
    ingress, egress, source, destination = permitted.ends
    name = f"{permitted.flow.id} tcp/{port}"
    exact = _probe(permitted, name, port)
    yield exact
    for each in _beside(source):
        yield replace(exact, label=f"source {each} of {name}", source_address=each)
    for each in _beside(destination):
        yield replace(exact, label=f"destination {each} of {name}", destination_address=each)
    yield replace(exact, label=f"{permitted.flow.id} udp/{port}", shape=Shape.UDP)
    if egress is not None:
        yield replace(
            exact,
            source=exact.destination,
            destination=exact.source,
            label=f"{name} backwards",
            ingress=egress,
            source_address=destination,
            destination_address=source,
        )
    for interface in firewall.interfaces:
        if interface.name != ingress:
            yield replace(exact, label=f"{name} through {interface.name}", ingress=interface.name)


def _probe(permitted: Permitted, label: str, port: int) -> Probe:
    ingress, _, source, destination = permitted.ends
    ends = (permitted.source.id, permitted.destination.id)
    return Probe(STAGE, *ends, label, Shape.SYN, ingress, source, destination, port, permitted.flow.id)


def _beside(address: Address) -> Iterator[Address]:
    yield address - 1
    yield address + 1
