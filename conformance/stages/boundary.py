"""The edges of every permit: one address, one port, one protocol, one direction or one interface beside it."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.expect import Permitted
from conformance.probe.batch import Probe
from conformance.probe.shape import Shape
from netpolicy.topology.model import Address, Firewall

STAGE = "boundary"


def boundary(firewall: Firewall, permits: list[Permitted]) -> Iterator[Probe]:
    """Yield, for each permit, itself and everything next to it."""
    for permitted in permits:
        ingress, egress, source, destination = permitted.ends
        flow = permitted.flow
        ends = (permitted.source.id, permitted.destination.id)
        for ports in permitted.ports:
            for port in sorted({ports.first, ports.last}):
                yield Probe(
                    STAGE, *ends, f"{flow.id} tcp/{port}", Shape.SYN, ingress, source, destination, port, flow.id
                )
                for each in _beside(source):
                    label = f"source {each} of {flow.id} tcp/{port}"
                    yield Probe(STAGE, *ends, label, Shape.SYN, ingress, each, destination, port, flow.id)
                for each in _beside(destination):
                    label = f"destination {each} of {flow.id} tcp/{port}"
                    yield Probe(STAGE, *ends, label, Shape.SYN, ingress, source, each, port, flow.id)
                label = f"{flow.id} udp/{port}"
                yield Probe(STAGE, *ends, label, Shape.UDP, ingress, source, destination, port, flow.id)
                if egress is not None:
                    back = (ends[1], ends[0])
                    label = f"{flow.id} backwards tcp/{port}"
                    yield Probe(STAGE, *back, label, Shape.SYN, egress, destination, source, port, flow.id)
                for interface in firewall.interfaces:
                    if interface.name != ingress:
                        label = f"{flow.id} tcp/{port} through {interface.name}"
                        yield Probe(STAGE, *ends, label, Shape.SYN, interface.name, source, destination, port, flow.id)
            for port in (ports.first - 1, ports.last + 1):
                if 0 < port < 65536:
                    label = f"beside {flow.id} tcp/{port}"
                    yield Probe(STAGE, *ends, label, Shape.SYN, ingress, source, destination, port, flow.id)


def _beside(address: Address) -> Iterator[Address]:
    yield address - 1
    yield address + 1
