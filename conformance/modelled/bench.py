"""A kernel to try rulesets on: one namespace that routes, and one that holds the other ends of its wires.

Nothing of the surroundings speaks: what the kernel itself would send (answers, errors, resets) is dropped before any
chain of the ruleset, and what it accepts for itself right behind them.  Settings that differ from those of
:mod:`netpolicy.host`: no reverse path filter, its own addresses as sources allowed, and connection tracking looks at
neither checksums nor windows, so that a packet of any fields comes to the hooks.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from pyroute2 import IPRoute

from conformance.lab.namespace import Namespace
from conformance.lab.network import write_settings
from conformance.lab.nfnetlink import NetfilterSocket
from conformance.lab.reaper import Reaper
from conformance.modelled.frames import build, number_of
from conformance.modelled.netlink import RuleCounters, connect, counted, put_counters, rule_counters
from conformance.modelled.plan import LISTENED, NEIGHBOUR, Plan, mac_of
from conformance.modelled.settle import OUTWARD, Sendable
from netpolicy.proof import fields
from netpolicy.proof.fields import Family
from netpolicy.proof.model import ChainId, Ruleset
from netpolicy.proof.read import read_live

OWN_TABLE = "netpolicy_bench"
_OWN = f"""
table inet {OWN_TABLE} {{
    chain arrived {{ type filter hook prerouting priority -2147483648; counter; }}
    chain sent {{ type filter hook output priority -2147483648; meta skuid 0 counter accept; drop; }}
    chain delivered {{ type filter hook input priority 2147483647; counter drop; }}
}}
"""
_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/all/accept_source_route": "0",
    "net/ipv6/conf/default/accept_source_route": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    # Fragments are for ever alone here.
    "net/ipv4/ipfrag_time": "1",
    "net/ipv6/ip6frag_time": "1",
    "net/netfilter/nf_conntrack_frag6_timeout": "1",
    "net/netfilter/nf_conntrack_tcp_loose": "0",
    "net/netfilter/nf_conntrack_tcp_be_liberal": "1",
    "net/netfilter/nf_conntrack_checksum": "0",
    **{
        f"net/ipv4/conf/{scope}/{key}": value
        for scope in ("all", "default")
        for key, value in (("rp_filter", "0"), ("accept_local", "1"), ("send_redirects", "0"), ("arp_ignore", "0"))
    },
}
_SILENT = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1", "net/ipv4/ip_forward": "0"}
_ETH_P_ALL, _SOL_PACKET, _IGNORE_OUTGOING, _STATISTICS = 3, 263, 23, 6
_SO_RCVBUFFORCE, _BUFFER = 33, 64 << 20
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_PATIENCE = 5.0
_CHUNK = 200
_TIMEOUT = 20.0


class BenchError(RuntimeError):
    """The bench does not work as it must, so that nothing that was seen on it counts."""


class RulesetError(RuntimeError):
    """The kernel, or nft, does not take a ruleset; holds what it said."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A ruleset on the bench, with a counter before each rule and at the end of each chain."""

    ruleset: Ruleset
    counted: frozenset[tuple[ChainId, int]]
    """Rules that count, as the last thing before their verdict, what matches; by chain and number."""


@dataclass(slots=True)
class Seen:
    """What became of a batch."""

    left: dict[int, str] = field(default_factory=dict)
    """By number, the interface that a packet came out of."""
    delivered: int = 0
    """To the kernel itself."""
    counts: dict[tuple[ChainId, int], int] = field(default_factory=dict)
    """How often each rule that counts has matched, if it has."""


class Bench:
    """A kernel, with interfaces of some names."""

    plan: Plan
    numbers: Iterator[int]
    """For packets: no two may have the same, so that no two fragments are taken for parts of one packet."""

    def __init__(self, plan: Plan, reaper: Reaper, stack: ExitStack) -> None:
        os.environ["TZ"] = "UTC"  # libnftables reads and prints hours of the day in the zone of its process
        time.tzset()
        self.plan = plan
        self.numbers = count(1)
        self._stack = stack
        self._kernel = _namespace("kernel", reaper, stack)
        self._wire = _namespace("wire", reaper, stack)
        self._build()
        self._netfilter = self._kernel.call(NetfilterSocket)
        stack.callback(self._netfilter.close)
        self._ends = {name: self._opened(place) for place, name in enumerate(plan.interfaces)}
        self._raw = {family: self._raw_socket(family) for family in Family}
        self._listen()
        self._before: RuleCounters = {}

    def load(self, text: str) -> Loaded:
        """Load a ruleset in place of the one before, put counters into it, and read it back.

        Raises:
            RulesetError: nft or the kernel refuses it.
            LoadError: nft cannot list it.
            RefusedError: It has something that the proof does not know.

        """
        # Programs of their own: nft 1.0.6 aborts on some rulesets that it has itself accepted.
        self._nft(f"flush ruleset\n{text}\n")
        try:
            put_counters(self._netfilter)
        except OSError as refused:
            self._kernel.call(partial(read_live, again=False))  # which may name what is in the way
            raise RulesetError(f"no counters can be put into it: {refused.strerror}") from refused
        ruleset = self._kernel.call(partial(read_live, again=False))
        self._nft(_OWN)
        self._netfilter.flush_conntrack()
        self._before = rule_counters(self._netfilter)
        return Loaded(ruleset, counted(self._netfilter))

    def _nft(self, script: str) -> None:
        try:
            done = self._kernel.run(["nft", "-f", "-"], timeout=_TIMEOUT, input=script)
        except subprocess.TimeoutExpired as late:
            raise RulesetError(f"nft takes more than {_TIMEOUT:.0f} s") from late
        if done.returncode < 0:
            raise RulesetError(f"nft was ended by signal {-done.returncode}")
        if done.returncode:
            raise RulesetError(done.stderr.strip())

    def send(self, loaded: Loaded, batch: Sequence[tuple[Sendable, int]]) -> Seen:
        """Send packets, with the connections there that they need, and return what became of them.

        Args:
            loaded: What :meth:`load` returned last.
            batch: Packets, each with the zone that its connection is in.

        Raises:
            BenchError: Not all that was sent arrived, or a capture lost something.

        """
        for end in self._ends.values():
            for _ in _frames(end):
                pass  # what the kernel said while it had no ruleset
        self._netfilter.flush_conntrack()
        connect(self._netfilter, [(each.connection, zone) for each, zone in batch if each.connection is not None])
        seen = Seen()
        arrived = sent = 0
        for begin in range(0, len(batch), _CHUNK):
            for each, _ in batch[begin : begin + _CHUNK]:
                if each.hooks == OUTWARD:
                    self._send_outward(each)
                    sent += 1
                else:
                    self._send_inward(each)
                    arrived += 1
            self._settle(seen)
        after = rule_counters(self._netfilter)
        self._account(loaded, after, seen, arrived, sent)
        self._before = after
        return seen

    def _account(self, loaded: Loaded, after: RuleCounters, seen: Seen, arrived: int, sent: int) -> None:
        for chain, rules in after.items():
            for number, ((handle, now), (handle_before, before)) in enumerate(
                zip(rules, self._before[chain], strict=True), start=1
            ):
                if handle != handle_before:
                    raise BenchError(f"the rules of {chain} have changed")
                if chain.table == OWN_TABLE and now:
                    found = now[0] - before[0]
                    wanted = {"arrived": arrived, "sent": sent}.get(chain.name)
                    if wanted is None:
                        seen.delivered = found
                    elif found != wanted:
                        raise BenchError(f"{found} of {wanted} packets are in chain '{chain.name}'")
                elif (chain, number) in loaded.counted and now[-1] != before[-1]:
                    seen.counts[chain, number] = now[-1] - before[-1]

    def _send_inward(self, each: Sendable) -> None:
        interface = str(each.packet[fields.IIF])
        to = {1: b"\xff" * 6, 2: bytes.fromhex("01005e000001")}.get(
            each.packet.number(fields.PACKET_TYPE), mac_of(self.plan.interfaces.index(interface))
        )
        kind = b"\x08\x00" if each.packet.family is Family.IPV4 else b"\x86\xdd"
        self._ends[interface].send(to + NEIGHBOUR + kind + build(each.packet, each.form))

    def _send_outward(self, each: Sendable) -> None:
        raw = self._raw[each.packet.family]
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("@I", each.packet.number(fields.MARK)))
        destination = each.packet.number(fields.DADDR)
        kind = socket.AF_INET if each.packet.family is Family.IPV4 else socket.AF_INET6
        address = socket.inet_ntop(kind, destination.to_bytes(each.packet.family.bits // 8, "big"))
        try:
            raw.sendto(build(each.packet, each.form), (address, 0))
        except PermissionError:
            return  # a chain has dropped it

    def _settle(self, seen: Seen) -> None:
        """Wait until everything that was sent has been dealt with: questions behind it have been answered."""
        waiting = set(self._ends)
        for name, end in self._ends.items():
            end.send(_question(self.plan, name))
        deadline = time.monotonic() + _PATIENCE
        while waiting:
            waiting -= {name for name, end in self._ends.items() if _gather(name, end, seen)}
            if time.monotonic() > deadline:
                raise BenchError(f"no answer at {', '.join(sorted(waiting))}")
        for end in self._ends.values():
            _, lost = struct.unpack("@II", end.getsockopt(_SOL_PACKET, _STATISTICS, 8))
            if lost:
                raise BenchError(f"a capture lost {lost} frames")

    def _build(self) -> None:
        self._kernel.call(lambda: write_settings(_SETTINGS))
        self._wire.call(lambda: write_settings(_SILENT))
        self._wire.call(self._add_pairs)
        script = "\n".join(self.plan.commands())
        done = self._kernel.run(["ip", "-batch", "-"], timeout=_TIMEOUT, input=script)
        if done.returncode:
            raise BenchError(done.stderr.strip())

    def _add_pairs(self) -> None:
        with IPRoute() as route:
            for place, name in enumerate(self.plan.interfaces):
                peer = {"ifname": name, "address": mac_of(place).hex(":"), "net_ns_fd": self._kernel.fd}
                route.link("add", ifname=f"end{place}", kind="veth", peer=peer)
                route.link("set", index=route.link_lookup(ifname=f"end{place}")[0], state="up")

    def _opened(self, place: int) -> socket.socket:
        def opened() -> socket.socket:
            found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            found.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            found.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
            found.bind((f"end{place}", _ETH_P_ALL))
            found.setblocking(False)
            return found

        return self._stack.enter_context(self._wire.call(opened))

    def _raw_socket(self, family: Family) -> socket.socket:
        kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        found = self._kernel.call(lambda: socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW))
        return self._stack.enter_context(found)

    def _listen(self) -> None:
        for port in LISTENED:
            for family, level, option in (
                (socket.AF_INET, socket.IPPROTO_IP, _IP_TRANSPARENT),
                (socket.AF_INET6, socket.IPPROTO_IPV6, _IPV6_TRANSPARENT),
            ):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    found = self._kernel.call(_Socket(family, kind))
                    self._stack.enter_context(found)
                    if family == socket.AF_INET6:
                        found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    found.setsockopt(level, option, 1)
                    found.bind(("", port))
                    if kind == socket.SOCK_STREAM:
                        found.listen()


@dataclass(frozen=True, slots=True)
class _Socket:
    family: int
    kind: int

    def __call__(self) -> socket.socket:
        return socket.socket(self.family, self.kind)


@contextmanager
def benches(plan: Plan) -> Iterator[Bench]:
    """Yield a bench that is gone afterwards."""
    with Reaper() as reaper, ExitStack() as stack:
        yield Bench(plan, reaper, stack)


def _namespace(name: str, reaper: Reaper, stack: ExitStack) -> Namespace:
    found = Namespace(name, reaper)
    stack.callback(found.close)
    return found


def _question(plan: Plan, interface: str) -> bytes:
    """Return an ARP request (RFC 826) for an interface's own address."""
    place = plan.interfaces.index(interface)
    asked, asker = (plan.address(Family.IPV4, interface, host).packed for host in (1, 2))
    header = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return mac_of(place) + NEIGHBOUR + b"\x08\x06" + header + NEIGHBOUR + asker + bytes(6) + asked


def _gather(name: str, end: socket.socket, seen: Seen) -> bool:
    """Take what has come out at one end, and tell whether the answer was there."""
    answered = False
    for frame in _frames(end):
        if frame[12:14] == b"\x08\x06":
            answered = True
        elif (number := number_of(frame)) is not None:
            if number in seen.left:
                raise BenchError(f"packet {number} came out twice")
            seen.left[number] = name
    return answered


def _frames(source: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield source.recv(2048)
        except BlockingIOError:
            return
