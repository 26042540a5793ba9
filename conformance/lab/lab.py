"""A whole topology, alive."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pyroute2 import NetlinkError

from conformance.lab.apply import apply_build
from conformance.lab.engine import Engine, copy_configuration
from conformance.lab.errors import LabError
from conformance.lab.firewall import TABLE, RunningFirewall
from conformance.lab.hosts import configure, settle, settle_engine, silence
from conformance.lab.namespace import Namespace
from conformance.lab.network import INNER, Wiring
from conformance.lab.reaper import Reaper
from conformance.lab.relay import Relay
from conformance.lab.rooted import Root
from conformance.lab.sysfs import show_devices
from netpolicy.build.pins import pin_certificates
from netpolicy.intent.routing import Routing
from netpolicy.processors import Processors, confine, steer
from netpolicy.topology.model import Interface, Topology

WIRE = "wire"


class Lab:
    """One namespace for each node and firewall, joined as the topology says, firewalls running the files of a build.

    A context manager: up inside, gone after it, and gone as well when the process is killed.
    """

    topology: Topology
    build: Path
    wire: Namespace
    """Holds one bridge for each segment and the other end of every interface."""
    reaper: Reaper
    """The PID namespace of the lab's processes."""
    engines: dict[tuple[str, str], Engine]
    """By firewall and interface; empty in a lab without engines."""
    relays: dict[str, Relay]
    """By firewall; empty in a lab without a root that has one."""
    elsewhere: frozenset[str]
    """Firewalls that run outside: each of their interfaces is a tap device's other end (:attr:`Wiring.taps`), and
    nobody can look into them."""

    def __init__(
        self,
        topology: Topology,
        build: Path,
        root: Root | None = None,
        work: Path | None = None,
        *,
        inline: bool = True,
        elsewhere: Collection[str] = (),
    ) -> None:
        """Prepare a lab.

        Args:
            topology: What to bring up.
            build: What its firewalls run.
            root: From which inline engines and relays run; without one, wires lead straight to the firewalls'
                kernels, and nothing passes of flows that are relayed.
            work: Where the files and logs of engines and relays are, a new directory that is left there; by default
                one that is gone with the lab.
            inline: Whether engines run, where there is a root.
            elsewhere: Firewalls that someone else runs, with the taps of :attr:`wiring` for network cards.

        """
        self.topology = topology
        self.build = build.absolute()
        self.engines: dict[tuple[str, str], Engine] = {}
        self.relays: dict[str, Relay] = {}
        self._root = root
        self._inline = inline and root is not None
        self.elsewhere = frozenset(elsewhere)
        self._given = work
        self._namespaces: dict[str, Namespace] = {}
        self._firewalls: dict[str, RunningFirewall] = {}
        self._engine_namespaces: dict[tuple[str, str], Namespace] = {}
        self._isolated = False
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        """Bring everything up.

        Raises:
            LabError: The build is of another topology, or a firewall or the kernel refused something of it.
            InputError: The topology has no unique routes.

        """
        root = self._root
        with ExitStack() as stack:
            self._check_build()
            try:
                self._make_namespaces(stack)
                self._connect()
                self._start_firewalls(stack)
                if root is not None:
                    self._prepare_work(stack)
                    self._prepare_relays(root)
                    self._start_engines(root)
            except (OSError, NetlinkError) as refused:
                raise LabError(f"the kernel refuses part of the lab: {refused}") from refused
            self.wiring.set_bridges(up=True)
            self._exit = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    def namespace(self, owner: str) -> Namespace:
        """Return the namespace of a node or firewall.

        Raises:
            LabError: There is no such node or firewall.

        """
        found = self._namespaces.get(owner)
        if found is None:
            raise LabError(f"the lab has no node or firewall '{owner}'")
        return found

    @property
    def namespaces(self) -> dict[str, Namespace]:
        """All namespaces of nodes and firewalls by id."""
        return dict(self._namespaces)

    def wire_port(self, owner: str, interface: str) -> str:
        """Return the device in :attr:`wire` at the other end of an owner's interface.

        Raises:
            LabError: There is no such interface.

        """
        found = self.wiring.ports.get((owner, interface))
        if found is None:
            raise LabError(f"the lab has no interface '{interface}' of '{owner}'")
        return found

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Part all interfaces from each other while inside.

        A frame sent on a wire port reaches the interface at its other end and nothing else, and what an interface sends
        reaches its wire port, where AF_PACKET sees it, and nothing else.  Links stay up.

        Raises:
            LabError: The lab is isolated already.

        """
        if self._isolated:
            raise LabError("the lab is isolated already")
        self._isolated = True
        self.wiring.set_bridges(up=False)
        try:
            yield
        finally:
            self.wiring.set_bridges(up=True)
            self._isolated = False

    def load(self, firewall: str, ruleset: Path) -> None:
        """Load an nftables file into a firewall, as one transaction.

        Raises:
            LabError: nft or the kernel refused it; holds nft's message.

        """
        self._firewall(firewall).load(ruleset)

    def renew(self, firewall: str) -> None:
        """Load a firewall's own ruleset again and make it forget every connection, so that no limit remembers anything.

        Raises:
            LabError: nft or the kernel refused it; holds nft's message.

        """
        self.load(firewall, self.build / firewall / "nftables.nft")
        self.flush_conntrack(firewall)

    def counters(self, firewall: str, table: str = TABLE) -> dict[str, int]:
        """Return the packets of every named counter of a table of a firewall."""
        return self._firewall(firewall).counters(table)

    def engine_files(self, firewall: str) -> Path:
        """Return the directory that a firewall's engines read: a copy of the build's, which may be changed."""
        return self._configuration(self._work, firewall)

    def pin(self, certificates: Mapping[str, Iterable[str]]) -> None:
        """Have every engine hold the ends of inspected flows to these certificates (SHA-1, by end).

        Raises:
            LabError: An engine refused.

        """
        for firewall in {firewall for firewall, _ in self.engines}:
            pin_certificates(self.engine_files(firewall), certificates)
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="reload") as pool:
            for done in [pool.submit(engine.reload) for engine in self.engines.values()]:
                done.result()

    def divide(self, processors: Processors) -> None:
        """Keep engines to their processors, and have the others do what kernels do with packets, as an appliance does.

        Raises:
            OSError: The kernel refuses.

        """
        for namespace in self._namespaces.values():
            namespace.call(lambda: _steer(processors.routing))
        for engine in self.engines.values():
            confine(engine.pid, processors.inspecting)

    def start_relays(self, identities: Path) -> None:
        """Start every relay with its firewall's identity: one directory for each firewall, by its id.

        Raises:
            LabError: A relay does not start.
            OSError: An identity is missing.

        """
        for firewall, relay in self.relays.items():
            relay.equip(identities / firewall)
            relay.begin()
        for relay in self.relays.values():
            relay.await_ready(1)

    def renew_relays(self, identities: Path) -> None:
        """Give every relay the certificate and the revocation lists that are there now; living connections go on.

        Raises:
            LabError: A relay refused them.
            OSError: An identity is missing.

        """

        def renew(firewall: str, relay: Relay) -> None:
            relay.equip(identities / firewall)
            relay.reload()

        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="renew") as pool:
            for done in [pool.submit(renew, *each) for each in self.relays.items()]:
                done.result()

    def flush_conntrack(self, firewall: str) -> None:
        """Make a firewall forget every connection."""
        self._firewall(firewall).flush_conntrack()

    def devices(self, namespace: Namespace) -> frozenset[str]:
        """Return the devices that `namespace` may hold: those the lab and the kernel put there."""
        if namespace.name == WIRE:
            return namespace.native_devices | self.wiring.devices
        return namespace.native_devices | {interface.name for interface in self._interfaces(namespace.name)}

    @property
    def firewalls(self) -> tuple[str, ...]:
        """The firewalls that run in the lab."""
        return tuple(each for each in self.topology.firewalls if each not in self.elsewhere)

    def _firewall(self, firewall: str) -> RunningFirewall:
        found = self._firewalls.get(firewall)
        if found is None and firewall in self.elsewhere:
            raise LabError(f"firewall '{firewall}' runs elsewhere: the lab cannot look into it")
        if found is None:
            raise LabError(f"the lab has no firewall '{firewall}'")
        return found

    def _interfaces(self, owner: str) -> tuple[Interface, ...]:
        node = self.topology.nodes.get(owner)
        return (node.interface,) if node is not None else self.topology.firewalls[owner].interfaces

    def _check_build(self) -> None:
        path = self.build / "manifest.json"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LabError(f"{self.build} is no build: {error}") from error
        if manifest.get("topology_sha256") != self.topology.digest:
            raise LabError(f"{self.build} was compiled from another topology, or another version of it: compile again")
        if self._root is not None and manifest.get("suricata") != self._root.suricata:
            raise LabError(
                f"{self.build} was compiled for Suricata {manifest.get('suricata')}, and {self._root.directory} has "
                f"Suricata {self._root.suricata.value}: compile with --suricata {self._root.suricata.value}"
            )

    def _make_namespaces(self, stack: ExitStack) -> None:
        self.reaper = stack.enter_context(Reaper())
        self.wire = self._make_namespace(WIRE, stack)
        engines = self._make_engines(stack) if self._inline else {}
        self.wiring = Wiring(self.topology, self.wire, engines, self.elsewhere)
        stack.callback(self.wiring.close)
        for owner in (*self.topology.nodes, *self.firewalls):
            self._namespaces[owner] = self._make_namespace(owner, stack)
        for node in self.topology.nodes:
            silence(self._namespaces[node])

    def _make_engines(self, stack: ExitStack) -> dict[tuple[str, str], Namespace]:
        """Make the namespace of every engine that the build has a configuration for."""
        found: dict[tuple[str, str], Namespace] = {}
        for firewall in map(self.topology.firewalls.__getitem__, self.firewalls):
            for interface in firewall.interfaces:
                if (self.build / firewall.id / "suricata" / f"engine-{interface.name}.yaml").is_file():
                    name = f"{firewall.id}/{interface.name}"
                    found[firewall.id, interface.name] = self._make_namespace(name, stack)
        self._engine_namespaces = found
        return found

    def _prepare_work(self, stack: ExitStack) -> None:
        if self._given is None:
            self._work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="netpolicy-lab-")))
        else:
            self._work = self._given
            self._work.mkdir()

    def _prepare_relays(self, root: Root) -> None:
        for firewall in self.firewalls:
            configuration = self.build / firewall / "relay"
            if configuration.is_dir() and root.has_relay:
                namespace, place = self._namespaces[firewall], self._work / firewall / "relay"
                self.relays[firewall] = Relay(root, namespace, configuration, place)

    def _start_engines(self, root: Root) -> None:
        work = self._work
        for firewall in {firewall for firewall, _ in self._engine_namespaces}:
            copy_configuration(self.build / firewall / "suricata", self._configuration(work, firewall))
        for (firewall, interface), namespace in self._engine_namespaces.items():
            settle_engine(namespace, (interface, INNER))
            place = work / firewall / interface
            configuration = self._configuration(work, firewall)
            self.engines[firewall, interface] = Engine(root, namespace, interface, configuration, place)
        for engine in self.engines.values():
            engine.begin()
        for engine in self.engines.values():
            engine.await_started()

    @staticmethod
    def _configuration(work: Path, firewall: str) -> Path:
        return work / firewall / "suricata"

    def _make_namespace(self, name: str, stack: ExitStack) -> Namespace:
        namespace = Namespace(name, self.reaper)
        stack.callback(namespace.close)
        return namespace

    def _connect(self) -> None:
        routing = Routing(self.topology)
        self.wiring.build(self._namespaces)
        for owner, namespace in self._namespaces.items():
            settle(namespace, self._interfaces(owner))
        for node in self.topology.nodes.values():
            configure(self.topology, node, routing.node_routes(node), self._namespaces[node.id])

    def _start_firewalls(self, stack: ExitStack) -> None:
        with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="apply") as pool:
            started = [
                pool.submit(apply_build, self._namespaces[firewall], self.build / firewall)
                for firewall in self.firewalls
            ]
            for result in started:
                result.result()
        for firewall in self.firewalls:
            running = RunningFirewall(self._namespaces[firewall])
            stack.callback(running.close)
            self._firewalls[firewall] = running


def _steer(processors: frozenset[int]) -> None:
    """Have `processors` receive for all devices of the calling thread's network namespace."""
    show_devices()
    steer((device for _, device in socket.if_nameindex()), processors)
