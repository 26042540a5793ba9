"""The tree of cases of one firewall's signatures, for one version of Suricata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from scapy.layers.l2 import Ether
from scapy.packet import Packet

from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from ids_rules.events import decoder_kind
from ids_rules.lock import SidLock
from ids_rules.version import Suricata
from netpolicy.build import compile_files
from netpolicy.build.pins import pin_certificates
from netpolicy.topology.model import Topology
from tests.ids.conversations import CONVERSATIONS
from tests.ids.malformed import MALFORMED, NO_CAPTURE
from tests.ids.oddities import ODDITIES, attempts
from tests.ids.sessions import Sessions
from tests.ids.verify import CONFIGURATION, run_case, write_case

FIREWALL, INTERFACE = "tachikawa-municipal-fw", "office"
Cases = dict[str, Callable[[], Iterator[Packet]]]

TOGETHER = frozenset(map(decoder_kind, MALFORMED)) | frozenset(NO_CAPTURE)
"""Kinds whose captures are run as one (test_events), and those that have none."""
ALSO = {
    "protocol-http2": {"protocol-http"},  # its preface reads as a request of HTTP/1
    "protocol-smb": {"protocol-dcerpc-tcp"},
    "protocol-telnet": {"protocol-telnet-negotiation"},
    "fragment-offset": {"fragment"},
    "tunnel-ipip": {"spoofed-unknown", "attempt-dns-udp"},
    "tunnel-ipv6": {"spoofed-unknown", "attempt-dns-udp"},
    "stream-3whs-synack-tfo-data-ignored": {"stream-fast-open", "stream-unestablished"},
    "tls-client-certificate": set(),
    "tls-early-segments": {"tls-client-certificate"},
    "tls-early-again": {"tls-client-certificate"},
    "tls-version": {"tls-client-certificate", "tls-server-certificate", "tls-cipher-suite"},
    "tls-other-protocol-client": {"protocol-http", "tls-first-bytes"},
    "tls-other-protocol-server": {"protocol-ssh", "tls-server-first", "tls-first-bytes", "tls-other-protocol-client"},
    "tls-client-hello-length": {"tls-client-certificate", "tls-client-goes-on"},
    "tls-early-length": {"tls-client-certificate"},
    "tls-client-hello": {"tls-version", "tls-other-protocol-client", "tls-renegotiation-hello"},
}
"""What a case may raise beside its own kind, apart from attempts at the port that it uses."""


def prepare(tree: Path, topology: Topology, identities: Path, version: Suricata) -> tuple[Cases, Sessions]:
    """Write the configuration of one engine, certificates pinned; return a capture for each kind.

    Args:
        tree: Of the cases, new.
        topology: Of the repository.
        identities: A new directory for them.
        version: Of Suricata.

    """
    configuration = tree / CONFIGURATION
    configuration.mkdir(parents=True)
    for name, text in compile_files(topology, SidLock(), version).items():
        if name.startswith(f"{FIREWALL}/suricata/"):
            (configuration / Path(name).name).write_text(text, encoding="utf-8")
    issued = issue_identities(topology, identities, now=datetime.now(UTC))
    pin_certificates(configuration, issued.fingerprints(topology.nodes.values()))
    ends = [issued.of(topology.nodes[name]) for name in ("tachikawa-registry", "tachikawa-cs", "shinagawa-cs")]
    cases: Cases = {f"protocol-{name}": each.packets for name, each in CONVERSATIONS.items()}
    sessions = Sessions(*ends)
    malformed: Cases = {decoder_kind(event): partial(_frames, frames) for event, frames in MALFORMED.items()}
    return cases | ODDITIES | malformed | attempts(topology) | sessions.cases(), sessions


def _frames(frames: Iterable[bytes]) -> Iterator[Packet]:
    yield from map(Ether, frames)


def failed_checks(
    root: Root, tree: Path, cases: Cases, kind: str, also: dict[str, set[str]] | None = None
) -> list[str]:
    """Return what fails of a case: its own capture raises its kind, and only what may be raised."""
    may = (also or {}).get(kind, ALSO.get(kind, set())) | {
        each for each in cases if each.startswith("attempt-") and kind.startswith("protocol-")
    }
    case = tree / (kind or "permitted")
    write_case(case, cases[kind](), INTERFACE, raised=kind, silent=set(cases) - may - {kind, ""}, version=root.suricata)
    return run_case(root, case)
