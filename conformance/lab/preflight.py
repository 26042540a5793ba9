"""What the lab and the conformance run need of the machine, tried out rather than guessed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from conformance.lab.errors import LabError
from conformance.lab.namespace import Namespace
from conformance.lab.reaper import Reaper
from conformance.lab.rooted import Root
from conformance.lab.syscalls import kernel_timezone
from netpolicy.environment import ENVIRONMENT
from netpolicy.rooted import RootError
from netpolicy.topology.model import Assurance, Topology

NFT_OLDEST = (1, 0, 6)
_TIMEOUT = 10.0

LAB, CONFORM, CLIENTS, ENGINES = "lab", "conform", "conform, stage client", "conform, stage inspect"
RELAYS = "flows with assurance terminate"


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that this machine lacks."""

    capability: str
    reason: str
    """What was tried and how it failed."""
    needed_for: str
    """The command, or the stage of it, that cannot run without."""

    def __str__(self) -> str:
        return f"{self.capability} (needed for {self.needed_for}): {self.reason}"


class _LackError(Exception):
    """A trial failed; says how."""


@dataclass(frozen=True, slots=True)
class _Trial:
    capability: str
    needed_for: str
    run: Callable[[Namespace], None]


def missing() -> tuple[Missing, ...]:
    """Return what the kernel, the rights of this process and the installed tools lack, most basic first.

    Trials run in a namespace of their own, which is gone when this returns.
    """
    absent = [*_missing_tools(), *_missing_modules(), *_missing_root(), *_wrong_clock()]
    try:
        with Reaper() as reaper:
            namespace = Namespace("preflight", reaper)
            try:
                absent.extend(_failed(_TRIALS, namespace))
            finally:
                namespace.close()
    except (OSError, LabError) as refused:
        what = "namespaces (root, or CAP_SYS_ADMIN and CAP_NET_ADMIN)"
        absent.insert(0, Missing(what, f"the kernel refuses new ones: {refused}", LAB))
    return tuple(absent)


def unneeded(topology: Topology) -> frozenset[str]:
    """Return what a machine may lack for this topology, of :attr:`Missing.needed_for`."""
    relayed = any(flow.assurance is Assurance.TERMINATE for flow in topology.flows.values())
    return frozenset() if relayed else frozenset({RELAYS})


def _failed(trials: tuple[_Trial, ...], namespace: Namespace) -> Iterator[Missing]:
    for trial in trials:
        try:
            trial.run(namespace)
        except (_LackError, OSError, subprocess.SubprocessError) as failed:
            yield Missing(trial.capability, str(failed), trial.needed_for)


def _missing_tools() -> Iterator[Missing]:
    for tool, package, needed_for in _TOOLS:
        if shutil.which(tool, path=ENVIRONMENT["PATH"]) is None:
            yield Missing(f"program {tool}", f"not on PATH; Debian package {package}", needed_for)
        elif tool == "nft":
            yield from _old_nft()


def _old_nft() -> Iterator[Missing]:
    said = subprocess.run(
        ["nft", "--version"], capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=ENVIRONMENT
    ).stdout
    found = re.search(r"v(\d+)\.(\d+)(?:\.(\d+))?", said)
    version = tuple(int(part or 0) for part in found.groups()) if found else ()
    if version < NFT_OLDEST:
        oldest = ".".join(map(str, NFT_OLDEST))
        yield Missing(f"nft {oldest} or later", f"'nft --version' says {said.strip()!r}", LAB)


def _missing_modules() -> Iterator[Missing]:
    for module, source, needed_for in _MODULES:
        if find_spec(module) is None:
            yield Missing(f"Python module {module}", f"{sys.executable} does not find it; {source}", needed_for)


def _missing_root() -> Iterator[Missing]:
    root = Root.find()
    if root is None:
        yield Missing(
            "root of the inline engine and the relay (Suricata 8.0, HAProxy 3.0)",
            "make setup, or name one in NETPOLICY_ROOT",
            ENGINES,
        )
        return
    try:
        root.suricata  # noqa: B018 - whether there are rules for it
    except RootError as unknown:
        yield Missing("Suricata 8.0, or 7.0", str(unknown), ENGINES)
    if not root.has_relay:
        yield Missing("relay (HAProxy 3.0)", f"{root.directory} has none: it is no Debian 13", RELAYS)


def _wrong_clock() -> Iterator[Missing]:
    """Service hours are computed by the kernel in its own zone, which must be UTC as the rules are."""
    try:
        west = kernel_timezone()
    except OSError as unknown:
        yield Missing("kernel time zone UTC", f"cannot be read: {unknown}", CONFORM)
        return
    if west != 0:
        yield Missing("kernel time zone UTC", f"the kernel's clock is {west} minutes west of it (hwclock --utc)", LAB)


def _device(*arguments: str) -> Callable[[Namespace], None]:
    return lambda namespace: _demand(namespace, ["ip", "link", "add", *arguments])


def _rule(rule: str, declarations: str = "") -> Callable[[Namespace], None]:
    """Try a rule in a base chain of an inet table; the kernel judges it when it is loaded, not when checked."""
    chain = f"chain trial {{\n type filter hook forward priority 0; policy drop;\n {rule}\n }}"
    head = "table inet preflight\ndelete table inet preflight\n"
    script = f"{head}table inet preflight {{\n{declarations}\n{chain}\n}}\n"
    return lambda namespace: _demand(namespace, ["nft", "-f", "-"], script)


def _relaying(namespace: Namespace) -> None:
    """Try what hands packets to a relay: rules before routing, and policy routing."""
    chains = (
        ("zone", "raw", ("socket transparent 1 ct zone set 1",)),
        (
            "divert",
            "mangle",
            (
                "meta nfproto ipv4 meta l4proto tcp tproxy ip to 127.0.0.1:61001 accept",
                "meta nfproto ipv6 meta l4proto tcp tproxy ip6 to [::1]:61001 accept",
            ),
        ),
    )
    body = "\n".join(
        f"chain {name} {{\n type filter hook prerouting priority {priority}; policy accept;\n"
        + "\n".join(rules)
        + "\n}"
        for name, priority, rules in chains
    )
    head = "table inet preflight\ndelete table inet preflight\n"
    _demand(namespace, ["nft", "-f", "-"], f"{head}table inet preflight {{\n{body}\n}}\n")
    for family in ("-4", "-6"):
        _demand(namespace, ["ip", family, "rule", "add", "fwmark", "0x4e000001", "lookup", "100", "priority", "100"])


def _demand(namespace: Namespace, argv: list[str], script: str | None = None) -> None:
    done = namespace.run(argv, timeout=_TIMEOUT, input=script)
    if done.returncode != 0:
        raise _LackError(f"{' '.join(argv)}: {' '.join(done.stderr.split())}")


def _packet_socket(namespace: Namespace) -> None:
    namespace.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close())


def _conntrack_settings(namespace: Namespace) -> None:
    _demand(namespace, ["sysctl", "-n", "net.netfilter.nf_conntrack_tcp_loose"])


_TOOLS = (
    ("nft", "nftables", LAB),
    ("ip", "iproute2", LAB),
    ("sysctl", "procps", LAB),
    ("openssl", "openssl", ENGINES),
)

_MODULES = (
    ("pyroute2", "pip install 'netpolicy[conformance]'", LAB),
    ("cryptography", "pip install 'netpolicy[conformance]'", LAB),
    ("rich", "pip install 'netpolicy[conformance]'", LAB),
    ("scapy", "pip install 'netpolicy[conformance]'", CONFORM),
    ("aiosmtpd", "pip install 'netpolicy[conformance]'", CLIENTS),
    ("pyftpdlib", "pip install 'netpolicy[conformance]'", CLIENTS),
    ("telnetlib3", "pip install 'netpolicy[conformance]'", CLIENTS),
)

_SET = (
    "set trial { type ipv4_addr . inet_service; flags interval; counter; "
    'elements = { 192.0.2.0/24 . 1-1023 comment "trial" }; }'
)

_TRIALS = (
    _Trial("veth devices", LAB, _device("trial0", "type", "veth", "peer", "name", "trial1")),
    _Trial("bridge devices", LAB, _device("trial2", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")),
    _Trial("packet sockets (CAP_NET_RAW)", CONFORM, _packet_socket),
    _Trial("nf_tables, family inet", LAB, _rule("counter drop")),
    _Trial("nftables connection tracking", LAB, _rule("ct state invalid drop")),
    _Trial("connection tracking settings", LAB, _conntrack_settings),
    _Trial("nftables limit", LAB, _rule("limit rate over 10/second burst 10 packets drop")),
    _Trial("nftables ct count", LAB, _rule("ct state new ct count over 10 drop")),
    _Trial(
        "nftables time, day and hour",
        LAB,
        _rule('meta time < "2037-01-01 00:00:00" meta day "Monday" meta hour "08:00"-"17:00" accept'),
    ),
    _Trial("nftables concatenated interval sets with counters", LAB, _rule("ip saddr . tcp dport @trial accept", _SET)),
    _Trial("nftables log", LAB, _rule('limit rate 1/second log prefix "preflight " drop')),
    _Trial("nftables header matches", LAB, _rule("ip frag-off & 0x3fff != 0 drop; exthdr frag exists drop")),
    _Trial("nft tproxy, socket and ct zone, and policy routing", ENGINES, _relaying),
)
