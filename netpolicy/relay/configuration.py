"""``haproxy.cfg`` (HAProxy 3.0): one listener for each flow, and nothing that is not said in it passes."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.intent.model import FirewallIntent, FlowIntent, RelayedFlow
from netpolicy.relay.text import quoted

DIRECTORY = "/etc/haproxy"
"""Where the firewall has the files."""
CONFIGURATION = "haproxy.cfg"
IDENTITY = "identity.lua"

_TLS = f"{DIRECTORY}/tls"
_SUITES = "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"
_CURVES = "X25519:P-256:P-384"
_PATIENCE = "3s"
"""For a handshake, for the first bytes after it, and for a connection onward."""
_IDLE = "60s"
_VERIFIED = f"ca-file {_TLS}/trust.pem crl-file {_TLS}/crl.pem verify required"
_OWN = f"crt {_TLS}/chain.pem"
_SAID = (
    "client=%ci:%cp flow=%f server=%[dst]:%[dst_port] state=%ts "
    "uri=%{+Q}[var(sess.uri)] deny=%{+Q}[var(sess.deny)] verify=%[ssl_c_err]/%[ssl_c_ca_err] "
    "error=%{+Q}[fc_err_str] tls=%{+Q}[ssl_fc_err_str] onward=%{+Q}[bc_err_str] sent=%U received=%B"
)
"""Of every connection, when it has ended; nothing of what was said."""


def client_map(flow: str) -> str:
    """Return the file of the identities (URIs) of a flow's clients, by address."""
    return f"{flow}.clients.map"


def server_map(flow: str) -> str:
    """Return the file of the DNS names of a flow's servers, by address."""
    return f"{flow}.servers.map"


def emit_configuration(intent: FirewallIntent) -> str:
    """Return ``haproxy.cfg``; HAProxy is started as root, and after that has no right but to bind foreign addresses."""
    flows = {flow.id: flow for flow in intent.flows}
    lines = [
        f"# Relay of firewall {intent.id} of network {intent.network}; managed by {intent.managed_by}.",
        "# Compiled by netpolicy from the topology: change that, not this.",
        "",
        *_global(intent, flows),
        "",
        *_defaults(intent),
    ]
    for relayed in intent.relayed:
        lines += ["", *_frontend(flows[relayed.flow], relayed)]
        lines += _backends(flows[relayed.flow], relayed)
    return "\n".join([*lines, ""])


def _global(intent: FirewallIntent, flows: dict[str, FlowIntent]) -> Iterator[str]:
    most = sum(flows[relayed.flow].limits.connections for relayed in intent.relayed)
    yield "global"
    yield "    log stderr format raw local0 info"
    yield "    user haproxy"
    yield "    group haproxy"
    yield "    chroot /var/lib/haproxy"
    yield "    # To speak from the client's own address; the kernel holds it to the pairs of the topology."
    yield "    setcap cap_net_raw"
    yield f"    maxconn {most}"
    yield "    # After a reload, how long connections that began before it may last."
    yield "    hard-stop-after 1h"
    yield f"    lua-load {DIRECTORY}/{IDENTITY}"
    yield "    # Nothing is resumed: a session would outlive the revocation of its certificate."
    yield "    tune.ssl.cachesize 0"
    yield "    ssl-server-verify required"
    for side in ("bind", "server"):
        yield f"    ssl-default-{side}-ciphersuites {_SUITES}"
        yield f"    ssl-default-{side}-curves {_CURVES}"
        yield f"    ssl-default-{side}-options ssl-min-ver TLSv1.3 no-tls-tickets"


def _defaults(intent: FirewallIntent) -> Iterator[str]:
    yield "defaults"
    yield "    mode tcp"
    yield "    log global"
    yield f'    log-format "netpolicy relay={intent.id} stage=session {_SAID}"'
    yield f'    error-log-format "netpolicy relay={intent.id} stage=handshake {_SAID}"'
    yield "    backlog 4096"
    yield "    retries 0"
    yield f"    timeout connect {_PATIENCE}"
    yield f"    timeout client-hs {_PATIENCE}"
    yield f"    timeout client {_IDLE}"
    yield f"    timeout server {_IDLE}"
    yield "    timeout client-fin 5s"
    yield "    timeout server-fin 5s"


def _frontend(flow: FlowIntent, relayed: RelayedFlow) -> Iterator[str]:
    yield f"# {' '.join(str(flow.title).split())}"
    yield f"frontend {flow.id}"
    for family in sorted({peer.address.version for peer in relayed.clients}):
        address = "127.0.0.1" if family == 4 else "[::1]"
        yield (f"    bind {address}:{relayed.port} transparent ssl {_OWN} {_VERIFIED} strict-sni alpn {_alpn(flow)}")
    yield f"    maxconn {flow.limits.connections}"
    if (most := flow.per_source.connections) is not None:
        # The kernel holds each source to the same; one that finds no room in the table is refused as well.
        yield f"    stick-table type ipv6 size {2 * len(relayed.clients)} expire {_IDLE} store conn_cur"
        yield "    tcp-request connection track-sc0 src"
        yield f"    tcp-request connection reject unless {{ sc0_conn_cur le {most} }}"
    yield f"    tcp-request inspect-delay {_PATIENCE}"
    yield "    tcp-request content set-var(sess.uri) ssl_c_der,hex,lua.certificate_uri"
    yield f"    tcp-request content set-var(sess.client) src,map_ip({DIRECTORY}/{client_map(flow.id)})"
    yield f"    tcp-request content set-var(sess.server) dst,map_ip({DIRECTORY}/{server_map(flow.id)})"
    for reason, unless in (
        ("identity", "{ var(sess.uri),strcmp(sess.client) eq 0 }"),
        ("destination", "{ var(sess.server) -m found }"),
        ("alpn", f"{{ ssl_fc_alpn -m str {_alpn(flow)} }}"),
    ):
        yield f"    tcp-request content set-var(sess.deny) str({reason}) unless {unless}"
    yield "    tcp-request content reject if { var(sess.deny) -m found }"
    if flow.prologue is not None:
        yield f"    tcp-request content accept if {_begins('req', flow.prologue)}"
        yield "    tcp-request content set-var(sess.deny) str(prologue)"
        yield "    tcp-request content reject"
    for version, name in _local(relayed):
        addresses = " ".join(str(address) for address in relayed.local if address.version == version)
        yield f"    use_backend {flow.id}-{name} if {{ dst {addresses} }}"
    yield f"    default_backend {flow.id}"


def _backends(flow: FlowIntent, relayed: RelayedFlow) -> Iterator[str]:
    onward = f"ssl {_OWN} {_VERIFIED} sni var(sess.server) alpn {_alpn(flow)} no-ssl-reuse"
    yield ""
    yield f"backend {flow.id}"
    # From the same address and port: one connection is known by its ends all the way.
    yield "    source 0.0.0.0 usesrc client"
    yield from _answers(flow)
    yield f"    server next 0.0.0.0 {onward}"
    for family, name in _local(relayed):
        yield ""
        yield f"backend {flow.id}-{name}"
        yield from _answers(flow)
        yield f"    server {name} {'127.0.0.1' if family == 4 else '[::1]'} {onward}"


def _alpn(flow: FlowIntent) -> str:
    """Return the one protocol's name of a flow, as a word.

    Raises:
        ValueError: It is a list to HAProxy, whatever the quotes; the language has no such name.

    """
    if "," in flow.alpn:
        raise ValueError(f"not one protocol's name: {flow.alpn!r}")
    return quoted(flow.alpn)


def _answers(flow: FlowIntent) -> Iterator[str]:
    if flow.prologue is not None:
        yield f"    tcp-response inspect-delay {_IDLE}"
        yield f"    tcp-response content accept if {_begins('res', flow.prologue)}"
        yield "    tcp-response content set-var(sess.deny) str(answer) if { res.len gt 0 }"
        yield "    tcp-response content reject"


def _begins(side: str, prologue: str) -> str:
    return f"{{ {side}.payload(0,{len(prologue)}) -m bin {prologue.encode().hex()} }}"


def _local(relayed: RelayedFlow) -> Iterator[tuple[int, str]]:
    for family in sorted({address.version for address in relayed.local}):
        yield family, f"self{family}"
