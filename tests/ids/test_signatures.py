"""Each kind of signature is raised by traffic that it is for, and by none that it is not for.

Every kind has a capture of its own that must raise it; every other capture must not, unless it is said here.  They
are written and run in the form of suricata-verify; ``NETPOLICY_IDS_CASES=DIR`` keeps them in a new directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scapy.packet import Packet

from conformance.pki import issue_identities
from ids_rules.emit import signatures
from ids_rules.lock import SidLock
from netpolicy.build import compile_files
from netpolicy.build.pins import pin_certificates
from netpolicy.intent.derive import derive_intents
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.ids.conversations import CONVERSATIONS
from tests.ids.oddities import ODDITIES, attempts
from tests.ids.sessions import Sessions
from tests.ids.verify import CONFIGURATION, run_case, write_case

ROOT = Path(__file__).parents[2]
FIREWALL, INTERFACE = "tachikawa-municipal-fw", "office"
Cases = dict[str, Callable[[], Iterator[Packet]]]

_ALSO = {
    "protocol-http2": {"protocol-http"},  # its preface reads as a request of HTTP/1
    "protocol-smb": {"protocol-dcerpc-tcp"},
    "protocol-telnet": {"protocol-telnet-negotiation"},
    "fragment-offset": {"fragment"},
    "tunnel-ipip": {"spoofed-unknown", "attempt-dns-udp"},
    "tunnel-ipv6": {"spoofed-unknown", "attempt-dns-udp"},
    "tls-client-certificate": set(),
    "tls-version": {"tls-client-certificate", "tls-server-certificate", "tls-cipher-suite"},
    "tls-other-protocol-client": {"protocol-http", "tls-first-bytes"},
    "tls-other-protocol-server": {"protocol-ssh", "tls-server-first", "tls-first-bytes", "tls-other-protocol-client"},
    "tls-client-hello": {"tls-version", "tls-other-protocol-client", "tls-renegotiation-hello"},
}
"""What a case may raise beside its own kind, apart from attempts at the port that it uses."""


@pytest.fixture(scope="module")
def topology() -> Topology:
    """Return the network of the repository."""
    return load_topology(ROOT / "topology.yaml").topology


@pytest.fixture(scope="module")
def work(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cases]:
    """Return a tree of cases with the configuration of one engine, certificates pinned, and a capture for each kind."""
    tree = Path(os.environ.get("NETPOLICY_IDS_CASES") or tmp_path_factory.mktemp("signatures") / "cases").absolute()
    configuration = tree / CONFIGURATION
    configuration.mkdir(parents=True)
    for name, text in compile_files(topology, SidLock()).items():
        if name.startswith(f"{FIREWALL}/suricata/"):
            (configuration / Path(name).name).write_text(text, encoding="utf-8")
    identities = issue_identities(topology, tmp_path_factory.mktemp("identities") / "i", now=datetime.now(UTC))
    pin_certificates(configuration, identities.fingerprints(topology.nodes.values()))
    ends = [identities.of(topology.nodes[f"{name}"]) for name in ("tachikawa-registry", "tachikawa-cs", "shinagawa-cs")]
    cases: Cases = {f"protocol-{name}": each.packets for name, each in CONVERSATIONS.items()}
    cases |= ODDITIES | attempts(topology) | Sessions(*ends).cases()
    return tree, cases


def _kinds() -> list[str]:
    topology = load_topology(ROOT / "topology.yaml").topology
    return sorted({signature.id for signature in signatures(derive_intents(topology)[FIREWALL])})


def test_every_kind_has_cases(work: tuple[Path, Cases], topology: Topology) -> None:
    """No signature anywhere in the network without a capture for it, and no capture for nothing."""
    everywhere = {each.id for intent in derive_intents(topology).values() for each in signatures(intent)}
    assert everywhere == set(work[1]) - {""}


@pytest.mark.parametrize("kind", ["", *_kinds()])
def test_signature(kind: str, work: tuple[Path, Cases]) -> None:
    """Its own capture raises it, and only what may be raised; the good session raises nothing at all."""
    tree, cases = work
    also = _ALSO.get(kind, set()) | {
        each for each in cases if each.startswith("attempt-") and kind.startswith("protocol-")
    }
    case = tree / (kind or "permitted")
    write_case(case, cases[kind](), INTERFACE, raised=kind, silent=set(cases) - also - {kind, ""})
    assert run_case(case) == []
