"""Packets that raise the signatures which are not about a protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_LSRR, IPOption_RR, IPOption_SSRR, fragment
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from ids_rules.anomalies import SCAN_PORTS
from netpolicy.topology.model import Topology
from tests.ids.conversations import CLIENT, SERVER
from tests.ids.transcript import Ends, Turn, tcp_session

_CLIENT6, _SERVER6 = "fd6a:756b:6900:1321::10", "fd6a:756b:6900:1322::10"
_ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
_PORT = 40123


def ip(**fields: object) -> Packet:
    """Return a frame from the client to the server, without a payload."""
    return _ETHER / IP(**{"src": CLIENT, "dst": SERVER, **fields})


def syn(port: int, source_port: int = 50001) -> Packet:
    """Return the first packet of a connection."""
    return ip() / TCP(sport=source_port, dport=port, flags="S", seq=1)


def _flags(flags: str) -> Iterator[Packet]:
    yield ip() / TCP(sport=50001, dport=_PORT, flags=flags, seq=1)


def _overlap() -> Iterator[Packet]:
    """Send a part of a stream again, with other bytes, before it was acknowledged."""
    packets = list(tcp_session(Ends(CLIENT, SERVER, 50001, _PORT), [Turn(True, b"A" * 64)]))
    first = packets[3]
    again = first.copy()
    again[Raw].load = b"B" * 64
    del again[IP].chksum, again[TCP].chksum
    yield from (*packets[:4], again, *packets[4:])


def _goes_on(*, client: bool) -> Iterator[Packet]:
    """Let an end reset a connection, and say more."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    yield from list(tcp_session(ends, [Turn(True, b"A" * 8), Turn(False, b"B" * 8)]))[:7]
    mine, other = (1009, 5009) if client else (5009, 1009)
    yield ends.packet(from_client=client, flags="RA", seq=mine, ack=other)
    yield ends.packet(from_client=client, flags="PA", seq=mine, ack=other) / Raw(b"and more")


def _gap() -> Iterator[Packet]:
    """Let a server acknowledge bytes of which the first have not been seen."""
    packets = list(tcp_session(Ends(CLIENT, SERVER, 50001, _PORT), [Turn(True, b"A" * 8), Turn(True, b"B" * 8)]))
    yield from (*packets[:3], *packets[5:])


def _unread(*, ahead: int = 0, acknowledged: int = 5009, window: int = 8192) -> Iterator[Packet]:
    """Let a client say what is not taken for the next of its stream, or acknowledges what it should not."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    yield from list(tcp_session(ends, [Turn(True, b"A" * 8), Turn(False, b"B" * 8)]))[:7]
    tcp = {"flags": "PA", "seq": 1009 + ahead, "ack": acknowledged, "window": window}
    yield ends.packet(from_client=True, **tcp) / Raw(b"and more")


_OPENING = [Turn(True, b"A" * 8), Turn(False, b"B" * 8)]


def opened(*after: dict[str, object], says: bytes = b"") -> Iterator[Packet]:
    """Open a connection, in which each side says eight bytes, and let the client send more."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    yield from list(tcp_session(ends, _OPENING))[:7]
    for each in after:
        segment = ends.packet(from_client=True, **{"seq": 1009, "ack": 5009, **each})
        yield segment / Raw(says) if says else segment


def _answered(*options: tuple[str, object], says: bytes = b"", **answer: object) -> Iterator[Packet]:
    """Send a SYN, and an answer to it that is wrong."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    begun = ends.packet(from_client=True, flags="S", seq=1000, options=list(options))
    yield begun / Raw(says) if says else begun
    yield ends.packet(from_client=False, **{"flags": "SA", "seq": 5000, "ack": 1001, **answer})


def _late() -> Iterator[Packet]:
    """Let a client send a segment whose timestamp is older than that of the one before."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    for client, flags, seq, ack, stamps in (
        (True, "S", 1000, 0, (5000, 0)),
        (False, "SA", 5000, 1001, (700, 5000)),
        (True, "A", 1001, 5001, (5001, 700)),
        (True, "PA", 1001, 5001, (5002, 700)),
        (True, "PA", 1009, 5001, (77, 700)),
    ):
        segment = ends.packet(from_client=client, flags=flags, seq=seq, ack=ack, options=[("Timestamp", stamps)])
        yield segment / Raw(b"A" * 8) if "P" in flags else segment


def _syns() -> Iterator[Packet]:
    """Begin one connection over and over, never with the same number."""
    ends = Ends(CLIENT, SERVER, 50001, _PORT)
    for number in range(16):
        yield ends.packet(from_client=True, flags="S", seq=1000 + 100 * number)


def _tunnels() -> dict[str, Callable[[], Iterator[Packet]]]:
    numbers = {"ipip": 4, "ipv6": 41, "gre": 47, "esp": 50, "ah": 51, "l2tp": 115, "sctp": 132}
    ports = {"teredo": 3544, "vxlan": 4789, "geneve": 6081, "gtp": 2152, "l2tp-udp": 1701}
    inner = {4: bytes(IP(src="192.0.2.1", dst="192.0.2.2") / UDP()), 41: bytes(IPv6() / UDP())}
    found: dict[str, Callable[[], Iterator[Packet]]] = {}
    for name, number in numbers.items():
        found[f"tunnel-{name}"] = partial(_one, ip(proto=number) / Raw(inner.get(number, bytes(40))))
    for name, port in ports.items():
        found[f"tunnel-{name}"] = partial(_one, ip() / UDP(sport=50001, dport=port) / Raw(bytes(20)))
    return found


def _one(packet: Packet) -> Iterator[Packet]:
    yield packet


def attempts(topology: Topology) -> dict[str, Callable[[], Iterator[Packet]]]:
    """Return a first packet for each forbidden protocol and transport of a topology."""
    found: dict[str, Callable[[], Iterator[Packet]]] = {}
    for protocol in topology.forbidden.values():
        if protocol.tcp:
            found[f"attempt-{protocol.id}-tcp"] = partial(_one, syn(protocol.tcp[0].first))
        if protocol.udp:
            datagram = ip() / UDP(sport=50001, dport=protocol.udp[0].first) / Raw(bytes(8))
            found[f"attempt-{protocol.id}-udp"] = partial(_one, datagram)
    return found


ODDITIES: dict[str, Callable[[], Iterator[Packet]]] = {
    "spoofed-inside": lambda: iter([ip(src="10.13.2.74", dst="10.13.210.10") / UDP(sport=1, dport=2)]),
    "spoofed-unknown": lambda: iter([ip(src="198.51.100.7") / UDP(sport=1, dport=2)]),
    "scan-syn": lambda: iter([syn(20000 + number, 50000 + number) for number in range(SCAN_PORTS + 2)]),
    "scan-udp": lambda: iter(
        [ip() / UDP(sport=50001, dport=20000 + number) / Raw(b"x") for number in range(SCAN_PORTS + 2)]
    ),
    "scan-null": lambda: _flags(""),
    "ping": lambda: iter([ip() / ICMP()]),
    "ping6": lambda: iter([_ETHER / IPv6(src=_CLIENT6, dst=_SERVER6) / ICMPv6EchoRequest()]),
    "fragment": lambda: iter(fragment(ip() / UDP(sport=1, dport=2) / Raw(bytes(64)), fragsize=32)[:1]),
    "fragment-offset": lambda: iter(fragment(ip() / UDP(sport=1, dport=2) / Raw(bytes(64)), fragsize=32)[1:2]),
    "fragment6": lambda: iter(
        [_ETHER / IPv6(src=_CLIENT6, dst=_SERVER6) / IPv6ExtHdrFragment(m=1, nh=17, id=7) / Raw(bytes(16))]
    ),
    "source-route-loose": lambda: iter([ip(options=[IPOption_LSRR(routers=["10.13.2.1"])]) / UDP(sport=1, dport=2)]),
    "source-route-strict": lambda: iter([ip(options=[IPOption_SSRR(routers=["10.13.2.1"])]) / UDP(sport=1, dport=2)]),
    "record-route": lambda: iter([ip(options=[IPOption_RR(routers=["0.0.0.0"])]) / UDP(sport=1, dport=2)]),
    "stream-reassembly-overlap-different-data": _overlap,
    "stream-reassembly-seq-gap": _gap,
    "stream-est-packet-out-of-window": partial(_unread, ahead=100_000),
    "stream-pkt-invalid-ack": partial(_unread, acknowledged=5009 - 100_000 + (1 << 32)),
    "stream-pkt-bad-window-update": partial(_unread, ahead=100, acknowledged=5019, window=10),
    "stream-3whs-syn-flood": _syns,
    "stream-3whs-synack-tfo-data-ignored": lambda: _answered(("TFO", b"12345678"), says=b"A" * 8),
    "stream-pkt-broken-ack": lambda: opened({"flags": "P", "ack": 7}, says=b"C" * 8),
    "stream-rst-with-data": lambda: opened({"flags": "RA"}, says=b"C" * 8),
    "stream-pkt-invalid-timestamp": _late,
    "stream-goes-on-client": partial(_goes_on, client=True),
    "stream-goes-on-server": partial(_goes_on, client=False),
    "stream-fast-open": lambda: iter(
        [ip() / TCP(sport=50001, dport=_PORT, seq=1, options=[("NOP", None), ("TFO", b"")])]
    ),
    "stream-unestablished": partial(_one, syn(_PORT) / Raw(b"GET / HTTP/1.1")),
    "rate": lambda: iter([syn(17013, 50000 + number) for number in range(45)]),
    **_tunnels(),
}
"""By kind of signature."""
