"""What no honest host of such a network sends: forged addresses, scans, tunnels, fragments.

The kernel's rules drop all of it by themselves and count why; these signatures only say what it was.
"""

from __future__ import annotations

from collections.abc import Iterator

from ids_rules.signature import Action, Classtype, Signature

SCAN_PORTS, SCAN_SECONDS = 30, 10
"""So many connections begun by one source in so many seconds, beyond what flows permit, are a scan."""

_RFC = "www.rfc-editor.org/rfc/"


def _alert(
    kind: str,
    header: str,
    message: str,
    match: tuple[str, ...],
    *,
    classtype: Classtype,
    technique: str,
    rfc: str = "",
    reference: str = "",
) -> Signature:
    return Signature(kind, Action.ALERT, header, message, match, classtype, technique, reference or _RFC + rfc)


_SPOOFED = (
    _alert(
        "spoofed-inside",
        "ip $BEYOND any -> $BEYOND any",
        "source and destination are both on the other side of this wire",
        (),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc3704",
    ),
    _alert(
        "spoofed-unknown",
        "ip !$KNOWN any -> any any",
        "source is on no network that there is",
        (),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc3704",
    ),
)

_SCANS = (
    _alert(
        "scan-syn",
        "tcp any any -> any $UNPERMITTED",
        "many connections are begun in a short time to ports of no flow",
        (
            "flow:to_server",
            "flags:S,12",
            f"threshold:type both, track by_src, count {SCAN_PORTS}, seconds {SCAN_SECONDS}",
        ),
        classtype=Classtype.NETWORK_SCAN,
        technique="T1046",
        reference="nmap.org/book/synscan.html",
    ),
    _alert(
        "scan-udp",
        "udp any any -> any any",
        "many datagrams are sent in a short time",
        (f"threshold:type both, track by_src, count {SCAN_PORTS}, seconds {SCAN_SECONDS}",),
        classtype=Classtype.NETWORK_SCAN,
        technique="T1046",
        reference="nmap.org/book/scan-methods-udp-scan.html",
    ),
    _alert(
        "scan-null",
        "tcp any any -> any any",
        "segment without any flag",
        ("flags:0",),
        classtype=Classtype.NETWORK_SCAN,
        technique="T1046",
        reference="nmap.org/book/scan-methods-null-fin-xmas-scan.html",
    ),
    _alert(
        "ping",
        "icmp any any -> any any",
        "ICMP echo request",
        ("itype:8",),
        classtype=Classtype.ATTEMPTED_RECON,
        technique="T1018",
        rfc="rfc792",
    ),
    _alert(
        "ping6",
        "icmpv6 any any -> any any",
        "ICMPv6 echo request",
        ("itype:128",),
        classtype=Classtype.ATTEMPTED_RECON,
        technique="T1018",
        rfc="rfc4443",
    ),
)

# FIN, Xmas and SYN-FIN scans have no signature: stream.midstream-policy drops such segments before rules are looked at.

_TUNNELS = (
    (4, "ipip", "IPv4 in IP", "rfc2003"),
    (41, "ipv6", "IPv6 in IP", "rfc4213"),
    (47, "gre", "GRE", "rfc2784"),
    (50, "esp", "ESP", "rfc4303"),
    (51, "ah", "AH", "rfc4302"),
    (115, "l2tp", "L2TPv3", "rfc3931"),
    (132, "sctp", "SCTP", "rfc9260"),
)
"""Protocol number, id, name, RFC."""

_UDP_TUNNELS = (
    (3544, "teredo", "Teredo", "rfc4380"),
    (4789, "vxlan", "VXLAN", "rfc7348"),
    (6081, "geneve", "Geneve", "rfc8926"),
    (2152, "gtp", "GTP-U", "rfc9433"),
    (1701, "l2tp-udp", "L2TP", "rfc2661"),
)
"""Port, id, name, RFC."""

_SHAPES = (
    _alert(
        "fragment",
        "ip any any -> any any",
        "IPv4 fragment with more to come",
        ("fragbits:M",),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc1858",
    ),
    _alert(
        "fragment-offset",
        "ip any any -> any any",
        "IPv4 fragment that is not the first",
        ("fragoffset:>0",),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc1858",
    ),
    _alert(
        "fragment6",
        "ip any any -> any any",
        "IPv6 fragment",
        ("ipv6.hdr", 'content:"|2c|"; offset:6; depth:1'),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc5722",
    ),
    _alert(
        "source-route-loose",
        "ip any any -> any any",
        "loose source route",
        ("ipopts:lsrr",),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc7126",
    ),
    _alert(
        "source-route-strict",
        "ip any any -> any any",
        "strict source route",
        ("ipopts:ssrr",),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1599",
        rfc="rfc7126",
    ),
    _alert(
        "record-route",
        "ip any any -> any any",
        "record route",
        ("ipopts:rr",),
        classtype=Classtype.BAD_UNKNOWN,
        technique="T1018",
        rfc="rfc7126",
    ),
)


def anomalies() -> Iterator[Signature]:
    """Yield the signatures of what is odd by its shape or addresses."""
    yield from (*_SPOOFED, *_SCANS, *_SHAPES)
    yield from _tunnels()


def _tunnels() -> Iterator[Signature]:
    said = "tunnel attempt with"
    for number, name, title, rfc in _TUNNELS:
        yield Signature(
            id=f"tunnel-{name}",
            action=Action.ALERT,
            header="ip any any -> any any",
            message=f"{said} {title}",
            match=(f"ip_proto:{number}",),
            classtype=Classtype.POLICY_VIOLATION,
            technique="T1572",
            reference=_RFC + rfc,
        )
    for port, name, title, rfc in _UDP_TUNNELS:
        yield Signature(
            id=f"tunnel-{name}",
            action=Action.ALERT,
            header=f"udp any any -> any {port}",
            message=f"{said} {title}",
            match=(),
            classtype=Classtype.POLICY_VIOLATION,
            technique="T1572",
            reference=_RFC + rfc,
        )
