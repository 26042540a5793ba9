"""A small network with one appliance between two ends, its operator, and bundles for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from appliance_image.bundle import Bundle, Held, Manifest, Step, Trust, read_bytes
from appliance_image.bundle.archive import write
from appliance_image.bundle.authorities import Authorities
from appliance_image.signing.key import SigningKey
from appliance_image.signing.sign import add_signature
from conformance.pki import Identities
from ids_rules import emit_ids
from ids_rules.lock import SidLock
from netpolicy.build.compile import firewall_files
from netpolicy.build.manifest import APPLY
from netpolicy.intent.derive import derive_intents
from netpolicy.pki.authority import Authority, Span, new_key
from netpolicy.relay import emit_relay
from netpolicy.topology.model import Assurance, Flow, PortRange, Service, Topology
from tests.lab.small import PORT, small_topology

FIREWALL, MANAGER, NETWORK = "edge", "operator", "small"
MANAGEMENT = 17100
"""The port of the flow over which bundles are confirmed."""
ALPHA, GAMMA = "10.77.1.10", "10.77.3.10"
LAN, WAN = "02:77:00:00:01:01", "02:77:00:00:02:01"
INTERFACES = {"lan": LAN, "wan": WAN}
_DAY = timedelta(days=1)


def topology(*flows: str, assurance: Assurance = Assurance.INSPECT) -> Topology:
    """Return the small topology with these flows of ``notice`` and ``manage``."""
    plain = small_topology(assurance=assurance)
    notice = plain.flows["notice"]
    manage = replace(notice, id="manage", service="management")
    service = replace(plain.services["app"], id="management", ports=(PortRange(MANAGEMENT, MANAGEMENT),))
    known: dict[str, Flow] = {"notice": notice, "manage": manage}
    services: dict[str, Service] = {**plain.services, "management": service}
    return replace(plain, flows={name: known[name] for name in flows}, services=services)


def files_of(*flows: str, engine: bool = False, relay: Identities | None = None) -> dict[str, bytes]:
    """Return the files of the appliance that permits these flows: inspected, or relayed for these ends."""
    assurance = Assurance.INSPECT if relay is None else Assurance.TERMINATE
    intent = derive_intents(topology(*flows, assurance=assurance))[FIREWALL]
    found = dict(firewall_files(intent))
    found |= {f"relay/{name}": text for name, text in emit_relay(intent).items()}
    if engine:
        emitted = emit_ids(intent, SidLock(), date(2026, 11, 24))
        found |= {f"suricata/{name}": text for name, text in emitted.items()}
    encoded = {name: text.encode() for name, text in found.items()}
    return encoded if relay is None else encoded | authorities_of(relay)


def authorities_of(identities: Identities) -> dict[str, bytes]:
    """Return the files of a bundle that say whose certificates and lists count."""
    return Authorities.of(identities.authorities(), datetime.now(UTC)).files()


@dataclass
class Operator:
    """Who may sign, and the directory with those who are trusted."""

    authority: Authority
    key: SigningKey
    trust: Trust

    @classmethod
    def make(cls, trust: Path) -> Operator:
        """Make one, and trust them."""
        now = datetime.now(UTC)
        authority = Authority.root(NETWORK, now - 30 * _DAY, life=400 * _DAY, title="operators")
        key = new_key()
        span = Span(now - _DAY, now + 300 * _DAY)
        certificate = authority.operator("An operator", "operator-1", key.public_key(), span)
        trust.mkdir(parents=True, exist_ok=True)
        (trust / f"{MANAGER}.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        return cls(authority, SigningKey(key, certificate, "memory"), Trust(trust))

    def bundle(self, files: Mapping[str, bytes], serial: int, **changes: object) -> Bundle:
        """Return a signed bundle; `changes` are made to its manifest before it is signed."""
        now = datetime.now(UTC).replace(microsecond=0)
        crl = self.authority.crl(now - timedelta(minutes=1)).public_bytes(Encoding.PEM)
        steps = tuple(Step(str(each["file"]), tuple(each["command"])) for each in APPLY)
        manifest = Manifest(
            network=NETWORK,
            topology_sha256="0" * 64,
            firewall=FIREWALL,
            managed_by=MANAGER,
            signatures=1,
            serial=serial,
            not_before=now - timedelta(hours=1),
            not_after=now + 100 * _DAY,
            interfaces=INTERFACES,
            apply=steps,
            crl=Held.of(crl),
            files={path: Held.of(content) for path, content in files.items()},
        )
        plain = read_bytes(write(replace(manifest, **changes), None, crl, files))  # type: ignore[arg-type]
        signed, _ = add_signature(plain, self.key, self.trust, now)
        return signed


__all__ = [
    "ALPHA",
    "FIREWALL",
    "GAMMA",
    "INTERFACES",
    "MANAGEMENT",
    "PORT",
    "Operator",
    "authorities_of",
    "files_of",
    "topology",
]
