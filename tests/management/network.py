"""Two firewalls in a row, their operator behind the one, and management of both."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance_image.agent.records import Field
from appliance_image.management import renewal
from appliance_image.management.client import Connection, Target
from appliance_image.management.errors import RefusedError
from appliance_image.management.privileged import Privileged
from appliance_image.management.protocol import ALPN, MOST_REPLY, Document
from appliance_image.management.recorder import Recorder
from appliance_image.management.server import Server
from appliance_image.management.session import Bounds, Patience
from appliance_image.management.tls import Files
from appliance_image.management.transport import Lines, Plain, Secured
from conformance.lab import Lab
from conformance.pki import Identities
from conformance.pki.identities import Identity
from netpolicy.intent.reach import reach
from netpolicy.topology.identity import identity_uri
from netpolicy.topology.model import Topology

TOPOLOGY = """\
network: {id: small, title: Small, as_of: 2026-11-01, timezone: Asia/Tokyo}
tiers: {town: {title: Town}, state: {title: State}}
sites:
  ash: {title: Ash, tier: town, parent: capital}
  capital: {title: Capital, tier: state}
roles:
  clerk: {title: Clerk, tier: town}
  operator: {title: Operator, tier: state}
  registry: {title: Registry, tier: state}
managers: {agency: {title: Agency, segment: hall}}
segments:
  town-lan: {title: Town, tier: town, site: ash, prefixes: [10.1.0.0/24, "fd00:1::/64"]}
  line: {title: Line, kind: dedicated_line, prefixes: [10.9.0.0/24, "fd00:9::/64"]}
  hall: {title: Hall, tier: state, site: capital, prefixes: [10.2.0.0/24, "fd00:2::/64"]}
nodes:
  desk: {title: Desk, role: clerk, segment: town-lan, addresses: [10.1.0.10, "fd00:1::10"]}
  console: {title: Console, role: operator, segment: hall, addresses: [10.2.0.10, "fd00:2::10"]}
  books: {title: Books, role: registry, segment: hall, addresses: [10.2.0.11, "fd00:2::11"]}
firewalls:
  town-fw:
    title: Town firewall
    site: ash
    managed_by: agency
    interfaces:
      lan: {segment: town-lan, addresses: [10.1.0.1, "fd00:1::1"]}
      line: {segment: line, addresses: [10.9.0.1, "fd00:9::1"]}
  hall-fw:
    title: Hall firewall
    site: capital
    managed_by: agency
    interfaces:
      line: {segment: line, addresses: [10.9.0.2, "fd00:9::2"]}
      hall: {segment: hall, addresses: [10.2.0.1, "fd00:2::1"]}
services:
  management: {title: Management, ports: 17100, alpn: netpolicy-management/1, prologue: JUKI}
  app: {title: App, ports: 17000, alpn: app/1, prologue: JUKI}
forbidden: {smtp: {title: SMTP, tcp: 25}}
flows:
  manage:
    title: Management
    from: {role: operator}
    to: {managed_by: agency}
    service: management
    assurance: terminate
    basis: {act: Registry Act, article: "5", as_of: 2026-01-01, confirmed: true}
    affair: management
    owner: Agency
    review: 2030-03-31
  notice:
    title: Notice
    from: {role: clerk}
    to: {role: registry}
    service: app
    assurance: terminate
    basis: {act: Registry Act, article: "6", as_of: 2026-01-01, confirmed: true}
    affair: notices
    owner: Town clerk
    review: 2030-03-31
"""
OPERATOR = "urn:netpolicy:small:operator:console"
SETTLE = 1.0
PATIENCE = Patience(handshake=4.0, request=5.0, upload=10.0, stall=3.0, word=0.5, work=8.0, farewell=0.3)
BOUNDS = Bounds(connections=6, of_one=3, requests=8, patience=PATIENCE)
RESTART = 3.0
SCALE = 10
"""Trials of this network last a tenth of what is asked for."""


class Firewall:
    """Operations as an agent has them, on a firewall of the lab: a bundle is a ruleset."""

    def __init__(self, lab: Lab, name: str, work: Path) -> None:
        """Run `name`; uploads are put into `work`."""
        self._lab = lab
        self._name = name
        self._work = work
        self._lock = threading.Lock()
        self._file = lab.build / name / "management.json"
        self.records: list[tuple[str, dict[str, Field]]] = []
        self.calls: list[str] = []
        self.trial: str | None = None
        self.hold = threading.Event()
        """While clear, an apply takes its time."""
        self.hold.set()
        self.full = False
        """Whether the journal is."""
        self.renewed: dict[str, bytes] = {}
        self.boots = 1

    def endpoint(self) -> bytes:
        """Return the compiled file."""
        return self._file.read_bytes()

    def record(self, event: str, **fields: Field) -> None:
        """Keep a record."""
        if self.full:
            raise RefusedError("journal-full", "no room")
        self.records.append((event, fields))

    def on_trial(self) -> str | None:
        """Return what is on trial."""
        return self.trial

    def status(self) -> Document:
        """Tell it."""
        rows = [["firewall", self._name]]
        return {
            "firewall": self._name,
            "on_trial": self.trial,
            "enforcing": True,
            "boot": str(self.boots),
            "rows": rows,
        }

    def drift(self) -> Document:
        """Tell it."""
        return {"none": True, "serial": 1, "lines": [f"{self._name}: no drift"]}

    def journal(self, since: int, most: int) -> Document:
        """Return numbers."""
        found = [f'{{"seq":{number}}}' for number in range(since, 1201)][: min(most, 500)]
        return {"records": found, "next": since + len(found), "more": since + len(found) <= 1200}

    def apply(self, bundle: Path, seconds: int) -> Document:
        """Load a ruleset, and the old one again after a tenth of the time."""
        self.calls.append("apply")
        text = bundle.read_bytes()
        assert self.hold.wait(30)
        if not text.startswith(b"#!"):
            raise RefusedError("malformed", "no bundle")
        ruleset = self._work / "loaded.nft"
        ruleset.write_bytes(text)
        self._lab.load(self._name, ruleset)
        with self._lock:
            self.trial = secrets.token_hex(8)
        threading.Timer(seconds / SCALE, self._expire, [self.trial]).start()
        return {"serial": 2, "sha256": "0" * 64, "confirm_seconds": seconds, "details": ["loaded"]}

    def confirm(self) -> Document:
        """Keep it."""
        self.calls.append("confirm")
        with self._lock:
            if self.trial is None:
                raise RefusedError("nothing", "no bundle is on trial")
            self.trial = None
        return {"serial": 2, "sha256": "0" * 64}

    def rollback(self) -> Document:
        """Load the compiled rules."""
        self.calls.append("rollback")
        self.restore()
        return {"serial": 1, "sha256": "0" * 64}

    def image_update(self, update: Path) -> Document:
        """Count its bytes."""
        return {"bytes": update.stat().st_size}

    def renew(self, upload: Path) -> Document:
        """Keep its files."""
        self.renewed = renewal.unpack(upload.read_bytes())
        return {"certificate": "1f", "certificate_until": "2027-01-01T00:00:00Z", "lists_until": "2026-12-01T00:00:00Z"}

    def restart(self) -> Document:
        """Be another boot a little later."""
        self.calls.append("restart")
        threading.Timer(RESTART, self._start_again).start()
        return {}

    def _start_again(self) -> None:
        self.boots += 1

    def spool(self, _command: str) -> Path:
        """Return the test's directory."""
        return self._work

    def restore(self) -> None:
        """Have the compiled rules run, and nothing on trial."""
        self._lab.load(self._name, self._lab.build / self._name / "nftables.nft")
        with self._lock:
            self.trial = None

    def _expire(self, transaction: str | None) -> None:
        if self.trial == transaction:
            self.restore()
            self.record("rollback", reason="not confirmed in time")

    def events(self, event: str) -> list[dict[str, Field]]:
        """Return the fields of all records of one kind."""
        return [fields for name, fields in self.records if name == event]


@dataclass
class Managed:
    """A firewall of the lab and its management."""

    name: str
    firewall: Firewall
    server: Server
    target: Target


@dataclass
class Network:
    """All of it."""

    topology: Topology
    file: Path
    lab: Lab
    identities: Identities
    managed: dict[str, Managed] = field(default_factory=dict)

    @property
    def console(self) -> Files:
        """The operator's identity."""
        return Files(self.identities.of(self.topology.nodes["console"]).directory)

    def at(self, node: str, function: Callable[[], Document]) -> Document:
        """Call a function where a node is."""
        return self.lab.namespace(node).call(function)

    def own(self, name: str) -> Identity:
        """Return the identity of an end."""
        end = self.topology.nodes.get(name) or self.topology.firewalls[name]
        return self.identities.of(end)

    @contextmanager
    def knock(
        self,
        firewall: str,
        inner: Files | None,
        *,
        outer: Files | None = None,
        prologue: bytes = b"JUKI",
        tweak: Callable[[str, object], None] = lambda _layer, _context: None,
    ) -> Iterator[Connection]:
        """Speak with an endpoint as its own relay would, or as anything that has got there."""
        own = outer or Files(self.own(firewall).directory)
        namespace = self.lab.namespace(firewall)
        connection = namespace.call(lambda: socket.create_connection(("127.0.0.1", 17100), 5))
        name = f"{firewall}.small.internal"
        with connection:
            plain = Plain(connection, 8)
            context = own.context(server=False)
            tweak("outer", context)
            outside = Secured(plain, context, server=False, name=name, layer="outer")
            outside.handshake()
            outside.send(prologue)
            if not outside.receive(len(prologue) or 1):
                raise RefusedError("ended", "after the prologue")
            context = (inner or own).context(server=False)
            tweak("inner", context)
            inside = Secured(outside, context, server=False, name=name, layer="inner")
            inside.handshake()
            yield Connection(plain, inside, Lines(inside, MOST_REPLY))


def target(topology: Topology, firewall: str, version: int = 4) -> Target:
    """Return a firewall as its operator sees it."""
    found = reach(topology, firewall, identity_uri(topology, topology.nodes["console"]), ALPN)
    address = next(str(each) for each in found.addresses if each.version == version)
    return Target(
        found.firewall, address, found.port, b"JUKI", found.first_name, found.first_uri, found.name, found.uri
    )


def manage(network: Network, name: str, work: Path) -> Managed:
    """Start both halves of a firewall's management, which run until the process ends."""
    work.mkdir()
    firewall = Firewall(network.lab, name, work)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(work / "socket"))
    listening.listen(32)
    privileged = Privileged(firewall, work, settle=SETTLE, recorder=Recorder(firewall.record, per_second=1e6))
    threading.Thread(target=privileged.serve, args=(listening, frozenset({0})), daemon=True).start()
    server = Server(Files(network.own(name).directory), work / "socket", BOUNDS)
    threading.Thread(target=lambda: network.lab.namespace(name).call(server.serve), daemon=True).start()
    assert server.ready.wait(10)
    return Managed(name, firewall, server, target(network.topology, name))
