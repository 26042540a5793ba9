"""What TLS must look like in each permitted flow; everything else on its ports is dropped.

With `inspect` (TLS 1.2, RFC 5246) both certificates are visible: each must be one that is pinned for the end at that
address.  With `terminate` (TLS 1.3, RFC 8446) they are not: the relay verifies them, and the engine holds the flow to
version, name, application protocol and cipher suite, and to being TLS at all.
"""

from __future__ import annotations

from collections.abc import Iterator

from ids_rules.signature import SILENT, Action, Classtype, Signature, content
from netpolicy.intent.model import FirewallIntent, FlowIntent, Peer
from netpolicy.topology.model import Address, Assurance

_RFC = "www.rfc-editor.org/rfc/"
_VERSIONS = {Assurance.INSPECT: ("tls1.2", "TLS 1.2"), Assurance.TERMINATE: ("tls1.3", "TLS 1.3")}
_SUITES = {
    # ECDHE with ECDSA or RSA and AES-GCM or ChaCha20-Poly1305 (RFC 9325, 4.2): forward secrecy and AEAD only.
    Assurance.INSPECT: ("771,49195,", "771,49196,", "771,49199,", "771,49200,", "771,52392,", "771,52393,"),
    Assurance.TERMINATE: ("771,4865,", "771,4866,", "771,4867,"),
}
"""How the JA3S string of an acceptable ServerHello begins: legacy version, then the chosen suite (IANA number)."""

HELLO_BYTES = 2048
"""Of a ClientHello, and so of what reaches a server from somebody without a certificate: one with a hybrid key share of
ML-KEM-768 has some 1,700."""

EARLY_SEGMENTS = 32
"""With bytes, of both ends together, before the client has shown a certificate. A handshake takes some 18 at an MSS of
536 bytes; lost ones are sent again."""
EARLY_BYTES = 8192
"""Of either end, until both have shown certificates, which are judged as they are shown: whoever has none says no more.
A chain of three RSA certificates of 4,096 bits has some 5,000."""
_EARLY, _EARLY_SERVER = "netpolicy.early", "netpolicy.early.server"


def flow_group(flow: str, what: str) -> str:
    """Return the name of a variable of a flow: CLIENTS, SERVERS or PORTS."""
    return f"FLOW_{flow.replace('-', '_').upper()}_{what}"


def pinned_list(end: str) -> str:
    """Return the dataset of the certificates that are pinned for an end."""
    return f"certificates-{end}"


def name_list(flow: str) -> str:
    """Return the dataset of the names that may be asked for in a flow."""
    return f"names-{flow}"


def address_list(addresses: tuple[Address, ...]) -> str:
    """Return addresses as Suricata writes them."""
    return f"[{','.join(map(str, addresses))}]"


def clients_and_servers(intent: FirewallIntent, flow: FlowIntent) -> tuple[tuple[Peer, ...], tuple[Peer, ...]]:
    """Return the ends that open and that take connections of a flow across a firewall, in the topology's order."""
    permits = [permit for permit in intent.permits if permit.flow == flow.id]
    sources = {address for permit in permits for address in permit.sources}
    destinations = {address for permit in permits for address in permit.destinations}
    return (
        tuple(peer for peer in intent.peers if sources.intersection(peer.addresses)),
        tuple(peer for peer in intent.peers if destinations.intersection(peer.addresses)),
    )


def tls_policy(intent: FirewallIntent) -> Iterator[Signature]:
    """Yield the signatures of every flow that crosses a firewall."""
    for flow in intent.flows:
        rules = _Flow(intent, flow)
        yield from rules.before_tls()
        yield from rules.hello()
        if flow.assurance is Assurance.INSPECT:
            yield from rules.early()
            yield from rules.certificates()
            yield from rules.renegotiation()


class _Flow:
    """The rules of one flow."""

    def __init__(self, intent: FirewallIntent, flow: FlowIntent) -> None:
        self._intent = intent
        self._flow = flow
        self._clients, self._servers, self._ports = (
            f"${flow_group(flow.id, what)}" for what in ("CLIENTS", "SERVERS", "PORTS")
        )
        self._to_server = f"{self._clients} any -> {self._servers} {self._ports}"
        self._to_client = f"{self._servers} {self._ports} -> {self._clients} any"

    def before_tls(self) -> Iterator[Signature]:
        """Yield what keeps anything but TLS out, from the first byte on."""
        yield self._signature(
            "tls-first-bytes",
            f"tcp {self._to_server}",
            "the first bytes are not those of a TLS handshake",
            # Until the protocol is known: the engine calls it another one only after some kilobytes have passed.
            ("flow:established,to_server", "dsize:>0", "app-layer-protocol:unknown", 'content:!"|16 03|"; startswith'),
            "T1095",
        )
        yield self._signature(
            "tls-client-hello",
            f"tcp {self._to_server}",
            "what begins like a TLS handshake is not a ClientHello",
            (
                "flow:established,to_server",
                "stream_size:server,<,2",
                "dsize:>10",
                'content:"|16 03|"; startswith',
                r'pcre:!"/^\x16\x03[\x00-\x04]..\x01\x00..\x03[\x00-\x04]/s"',
            ),
            "T1095",
        )
        # Whatever a hello holds goes on to the server, and no certificate has been asked for yet.
        yield self._signature(
            "tls-client-hello-length",
            f"tcp {self._to_server}",
            f"the client has said more than {HELLO_BYTES} bytes before the server answers",
            ("flow:established,to_server", f"stream_size:client,>,{HELLO_BYTES}", "stream_size:server,<,2"),
            "T1572",
        )
        yield self._signature(
            "tls-client-goes-on",
            f"tcp {self._to_server}",
            "the client has said more than its ClientHello before the server answers",
            (
                "flow:established,to_server,only_stream",
                "stream_size:server,<,2",
                'content:"|16 03|"; startswith',
                "byte_jump:2,1,relative",
                "isdataat:1,relative",
            ),
            "T1095",
        )
        yield self._signature(
            "tls-server-first",
            f"tcp {self._to_client}",
            "the server speaks first",
            ("flow:established,to_client", "stream_size:client,<,3", "dsize:>0"),
            "T1571",
        )
        for direction, header in (("client", self._to_server), ("server", self._to_client)):
            yield self._signature(
                f"tls-other-protocol-{direction}",
                f"tcp {header}",
                f"what the {direction} says is another protocol than TLS",
                ("flow:established", "app-layer-protocol:!tls"),
                "T1071",
            )

    def hello(self) -> Iterator[Signature]:
        """Yield what both hellos are held to."""
        keyword, version = _VERSIONS[self._flow.assurance]
        yield self._signature(
            "tls-version",
            f"tls {self._to_client}",
            f"the server does not take {version}",
            ("flow:established,to_client", f"ssl_version:!{keyword}"),
            "T1562.010",
        )
        suites = "; ".join(f'content:!"{suite}"; startswith' for suite in _SUITES[self._flow.assurance])
        yield self._signature(
            "tls-cipher-suite",
            f"tls {self._to_client}",
            "the cipher suite is not one of forward secrecy and authenticated encryption",
            ("flow:established,to_client", f"ja3s.string; {suites}"),
            "T1600.001",
        )
        yield self._signature(
            "tls-name",
            f"tls {self._to_server}",
            "the client asks for a server that is not one of this flow",
            ("flow:established,to_server", f"tls.sni; absent:or_else; {not_in(name_list(self._flow.id))}"),
            "T1090.004",
        )
        yield self._signature(
            "tls-alpn",
            f"tls {self._to_server}",
            "the client does not offer the application protocol of this flow",
            ("flow:established,to_server", f'tls.alpn; absent:or_else; content:!"{content(self._flow.alpn)}"'),
            "T1071",
        )

    def early(self) -> Iterator[Signature]:
        """Yield what bounds what two ends without certificates tell each other, in a handshake and beside the stream.

        No certificate is judged before it is there, so that a handshake without one could go on and on.

        Segments behind a gap that nobody fills, and before the stream's first byte, are handed on unread: no TCP gives
        them to an application, but a pair of ends that play together reads them.  Where memory is lost (a reload), the
        connection passes for one whose certificates were seen.
        """
        to_server, both = f"tcp {self._to_server}", f"tcp {self._clients} any <> {self._servers} {self._ports}"
        early, bytes_ = ("flow:established", f"flowbits:isset,{_EARLY}"), "dsize:>0"
        begins = ("flow:to_server", "flags:S,CE", f"flowbits:set,{_EARLY}", f"flowbits:set,{_EARLY_SERVER}")
        silent = (
            ("tls-early", to_server, "a connection begins", begins),
            (
                "tls-early-over-server",
                f"tls {self._to_client}",
                "the server has shown a certificate",
                ("flow:established,to_client", "tls.cert_fingerprint; bsize:59", f"flowbits:unset,{_EARLY_SERVER}"),
            ),
            (
                "tls-early-over",
                f"tls {self._to_server}",
                "the client has shown a certificate",
                ("flow:established,to_server", "tls.cert_fingerprint; bsize:59", f"flowbits:unset,{_EARLY}"),
            ),
            ("tls-early-count", both, "bytes before a certificate", (*early, bytes_, f"flowint:{_EARLY},+,1")),
        )
        for kind, header, message, match in silent:
            yield self._signature(kind, header, message, (*match, SILENT), "T1572", action=Action.ALERT)
        yield self._signature(
            "tls-early-segments",
            both,
            f"more than {EARLY_SEGMENTS} segments before the client has shown a certificate",
            (*early, bytes_, f"flowint:{_EARLY},>=,{EARLY_SEGMENTS}"),
            "T1572",
        )
        yield self._signature(
            "tls-early-length",
            both,
            f"more than {EARLY_BYTES} bytes before both ends have shown certificates",
            (
                "flow:established",
                f"flowbits:isset,{_EARLY}|{_EARLY_SERVER}",
                f"stream_size:either,>,{EARLY_BYTES}",
            ),
            "T1572",
        )
        yield self._signature(
            "tls-early-again",
            both,
            "bytes from before what was acknowledged, before the client has shown a certificate",
            (*early, bytes_, "stream-event:pkt_spurious_retransmission"),
            "T1572",
        )

    def certificates(self) -> Iterator[Signature]:
        """Yield what both certificates are held to; who shows none is dropped before any application byte."""
        clients, servers = clients_and_servers(self._intent, self._flow)
        for peer in clients:
            yield self._signature(
                "tls-client-certificate",
                f"tls {address_list(peer.addresses)} any -> {self._servers} {self._ports}",
                f"the client has no certificate that is pinned for {peer.id}",
                ("flow:established,to_server", _certificate(peer)),
                "T1078",
                end=peer.id,
            )
        for peer in servers:
            yield self._signature(
                "tls-server-certificate",
                f"tls {address_list(peer.addresses)} {self._ports} -> {self._clients} any",
                f"the server has no certificate that is pinned for {peer.id}",
                ("flow:established,to_client", _certificate(peer)),
                "T1557",
                end=peer.id,
            )

    def renegotiation(self) -> Iterator[Signature]:
        """Yield what stops a second handshake on a connection: it is encrypted, and so are its certificates."""
        yield self._signature(
            "tls-renegotiation-hello",
            f"tls {self._to_server}",
            "an encrypted handshake record of the client is not a Finished",
            (
                "flow:established,to_server",
                "frame:tls.pdu",
                'content:"|16|"; startswith',
                # Neither as long as a Finished of the suites above, nor beginning like a message in clear: ClientHello,
                # Certificate, ClientKeyExchange, CertificateVerify (RFC 5246, 7.4), none of 64 KiB.
                r'pcre:"/^...(?!\x00[\x20\x28])..(?:[^\x01\x0b\x0f\x10]|.[^\x00])/s"',
            ),
            "T1557",
            rfc="rfc5746",
        )
        yield self._signature(
            "tls-renegotiation",
            f"tls {self._clients} any <> {self._servers} {self._ports}",
            "a second handshake changes the keys",
            # The first ChangeCipherSpec is one byte in clear (RFC 5246, 7.1); any later one is encrypted, and longer.
            ("flow:established", "frame:tls.hdr", 'content:"|14|"; startswith', "byte_test:2,>,1,3"),
            "T1557",
            rfc="rfc5746",
        )

    def _signature(
        self,
        kind: str,
        header: str,
        message: str,
        match: tuple[str, ...],
        technique: str,
        *,
        end: str | None = None,
        rfc: str | None = None,
        action: Action = Action.DROP,
    ) -> Signature:
        rfc = rfc or ("rfc5246" if self._flow.assurance is Assurance.INSPECT else "rfc8446")
        return Signature(
            id=kind,
            action=action,
            header=header,
            message=message,
            match=match,
            classtype=Classtype.POLICY_VIOLATION,
            technique=technique,
            reference=_RFC + rfc,
            flow=self._flow.id,
            end=end,
            basis=self._flow.basis,
        )


def _certificate(peer: Peer) -> str:
    return f"tls.cert_fingerprint; absent:or_else; {not_in(pinned_list(peer.id))}"


def not_in(dataset: str) -> str:
    """Return the condition that a value is not in a dataset."""
    return f"dataset:isnotset,{dataset},type string,load {dataset}.lst"
