"""Configuration of the engine: closed on every failure, small, and the same on every machine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from ids_rules.attempts import port_list
from ids_rules.protocols import RECOGNISED
from ids_rules.signature import Action, Classtype, Signature
from ids_rules.tls_policy import address_list, clients_and_servers, flow_group
from ids_rules.version import Suricata
from netpolicy.intent.model import FirewallIntent
from netpolicy.intent.routing import collapse
from netpolicy.topology.model import Prefix

DIRECTORY = "/etc/suricata"
"""Where the files lie when the engine runs."""
INNER = "inner"
"""The engine's own end of the wire to the kernel that routes; its other end has the interface's name."""

RULE_FILES = "rule-files: [netpolicy.rules]"
"""The line of the configuration that names them."""

_NOBODY = ("fe80::/10", "::/128")
"""Sources of neighbour discovery and multicast reports (RFC 4861, RFC 3810), beside those of the topology."""

_PRIORITIES = {
    Classtype.POLICY_VIOLATION: ("Violation of the network's policy", 1),
    Classtype.ATTEMPTED_USER: ("Attempt to pass for somebody else", 1),
    Classtype.MISC_ATTACK: ("Attack of another kind", 2),
    Classtype.ATTEMPTED_DOS: ("Attempt to exhaust a service", 2),
    Classtype.ATTEMPTED_RECON: ("Attempt to find out what is there", 2),
    Classtype.BAD_UNKNOWN: ("Traffic that no honest host sends", 2),
    Classtype.NON_STANDARD_PROTOCOL: ("Protocol in an unusual place", 2),
    Classtype.NETWORK_SCAN: ("Scan of the network", 3),
    Classtype.PROTOCOL_COMMAND_DECODE: ("Packet that cannot be decoded", 3),
}

_STOCK_SERVERS = ("HTTP", "SMTP", "SQL", "DNS", "TELNET", "AIM", "DC")
_STOCK_PEERS = ("DNP3_SERVER", "DNP3_CLIENT", "MODBUS_CLIENT", "MODBUS_SERVER", "ENIP_CLIENT", "ENIP_SERVER")
_STOCK_PORTS = {
    "HTTP_PORTS": "80",
    "SHELLCODE_PORTS": "!80",
    "ORACLE_PORTS": "1521",
    "SSH_PORTS": "22",
    "DNP3_PORTS": "20000",
    "MODBUS_PORTS": "502",
    "FTP_PORTS": "21",
    "FILE_DATA_PORTS": "[80,110,143]",
    "GENEVE_PORTS": "6081",
    "VXLAN_PORTS": "4789",
    "TEREDO_PORTS": "3544",
}
"""Variables of Suricata's stock configuration, which rules of vendors rest on."""

_WINDOW = "WINDOW"
"""Where :attr:`ids_rules.version.Suricata.window` belongs."""
_SETTINGS = """\
classification-file: /etc/suricata/classification.config
reference-config-file: /etc/suricata/reference.config
threshold-file: /etc/suricata/threshold.config
default-log-dir: /var/log/suricata

# Whatever cannot be inspected is not passed on.
exception-policy: drop-flow
stream:
  midstream: false # a connection begins with SYN, never in the middle
  midstream-policy: drop-flow
  inline: yes
  checksum-validation: yes
  drop-invalid: yes
  memcap: 64mb
  memcap-policy: drop-flow
  prealloc-sessions: 1024
  reassembly:
    memcap: 128mb
    memcap-policy: drop-flow
    urgent:
      policy: drop # TLS has no use for it, and two stacks read it as two streams (RFC 6093)
    depth: 0 # to the end: a second handshake may come late
    toserver-chunk-size: WINDOW
    toclient-chunk-size: 2560
    randomize-chunk-size: no
    segment-prealloc: 1024
flow:
  memcap: 64mb
  memcap-policy: drop-packet # the only policy Suricata takes here
  hash-size: 16384
  prealloc: 2048
defrag:
  memcap: 8mb
  memcap-policy: drop-packet
  hash-size: 4096
  trackers: 4096
  max-frags: 4096
  prealloc: yes
  timeout: 30
host: {hash-size: 4096, prealloc: 256, memcap: 16mb}

# No tunnel is looked into: all of them are forbidden.
decoder:
  teredo: {enabled: false}
  vxlan: {enabled: false}
  geneve: {enabled: false}
vlan: {use-for-tracking: true}
runmode: workers
max-pending-packets: 1024
detect: {profile: medium, sgh-mpm-context: auto, prefilter: {default: mpm}}
mpm-algo: auto
spm-algo: auto
unix-command: {enabled: yes, filename: /run/suricata/command.socket}
pcre: {match-limit: 3500, match-limit-recursion: 1500}
logging:
  default-log-level: notice
  outputs:
    - console: {enabled: yes}
stats: {enabled: yes, interval: 30}
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types:
        - alert: {metadata: {app-layer: true, flow: true, rule: {metadata: true, raw: false}}, verdict: yes}
        - drop: {alerts: no, flows: start, verdict: yes}
        - tls: {extended: yes, session-resumption: yes}
        - stats: {totals: yes, threads: no}
asn1-max-frames: 256
default-packet-size: 1522
"""


def emit_suricata(intent: FirewallIntent, version: Suricata) -> str:
    """Return ``suricata.yaml``: what all engines of a firewall share."""
    lines = [
        "%YAML 1.1",
        "---",
        f"# Inline engine of firewall {intent.id} of network {intent.network}. For Suricata {version.release}.",
        "# Compiled by netpolicy from the topology: change that, not this.",
        "# suricata -c suricata.yaml --include engine-INTERFACE.yaml --af-packet",
        f'suricata-version: "{version.release}"',
        f"sensor-name: {intent.id}",
        *_variables(intent, intent.engines[0]),
        "app-layer:",
        "  error-policy: drop-flow",
        "  protocols:",
        "    tls: {enabled: yes, ja3-fingerprints: yes, ja4-fingerprints: no, encryption-handling: full}",
        *(f"    {name}: {{enabled: yes}}" for name in _parsers()),
        "    quic: {enabled: no} # its parser would drop without a word; protocol-quic says so",
    ]
    settings = _SETTINGS.replace(_WINDOW, str(version.window))
    return "\n".join([*lines, "default-rule-path: /etc/suricata", RULE_FILES, settings])


def emit_engine(intent: FirewallIntent, interface: str) -> str:
    """Return ``engine-INTERFACE.yaml``: the two wires of one engine, and what lies on either side of it."""
    (own,) = (each for each in intent.interfaces if each.name == interface)
    families = {address.version for address in own.addresses}
    lines = [
        "%YAML 1.1",
        "---",
        f"# The engine of firewall {intent.id} between its interface {interface} and its kernel.",
        *_variables(intent, interface),
        "af-packet:",
        *_pair(interface, INNER, frame_filter(families, asking=True)),
        *_pair(INNER, interface, frame_filter(families, asking=False)),
        "",
    ]
    return "\n".join(lines)


def emit_threshold(limited: Iterable[tuple[int, Signature]]) -> str:
    """Return ``threshold.config``: how often one source is reported, so that a flood does not fill a disk."""
    lines = ["# Signatures that one pair of hosts can raise with every packet: five times in ten seconds at most."]
    lines.extend(
        f"threshold gen_id 1, sig_id {sid}, type limit, track by_both, count 5, seconds 10"
        for sid, signature in limited
        if signature.action is Action.ALERT and not any(each.startswith("threshold:") for each in signature.match)
    )
    return "\n".join([*lines, ""])


def emit_classification() -> str:
    """Return ``classification.config``."""
    return "".join(
        f"config classification: {classtype},{title},{priority}\n"
        for classtype, (title, priority) in _PRIORITIES.items()
    )


def _variables(intent: FirewallIntent, interface: str) -> Iterator[str]:
    """Yield all variables; a file that is included replaces them as a whole."""
    yield "vars:"
    yield "  address-groups:"
    yield from (f'    {name}: "{value}"' for name, value in _address_groups(intent, interface))
    yield "  port-groups:"
    ports = ",".join(port_list(flow.ports) for flow in intent.flows)
    yield f'    UNPERMITTED: "{f"![{ports}]" if ports else "any"}"'
    yield from (f'    {flow_group(flow.id, "PORTS")}: "{port_list(flow.ports)}"' for flow in intent.flows)
    yield from (f'    {name}: "{ports}"' for name, ports in _STOCK_PORTS.items())


def _address_groups(intent: FirewallIntent, interface: str) -> Iterator[tuple[str, str]]:
    beyond = [prefix for each in intent.interfaces if each.name != interface for prefix in each.behind]
    yield "BEYOND", _prefixes(collapse(beyond))
    known = collapse([prefix for each in intent.interfaces for prefix in each.behind])
    yield "KNOWN", f"[{','.join([*map(str, known), *_NOBODY])}]"
    yield "HOME_NET", "$KNOWN"
    yield "EXTERNAL_NET", "any"  # attackers are inside, too
    yield from ((name, "$HOME_NET") for name in (*(f"{each}_SERVERS" for each in _STOCK_SERVERS), *_STOCK_PEERS))
    for flow in intent.flows:
        clients, servers = clients_and_servers(intent, flow)
        for what, peers in (("CLIENTS", clients), ("SERVERS", servers)):
            yield flow_group(flow.id, what), address_list(tuple(a for peer in peers for a in peer.addresses))


def _parsers() -> list[str]:
    """Return the names of the parsers in the configuration."""
    return sorted({protocol.name for protocol in RECOGNISED})


def _prefixes(prefixes: Iterable[Prefix]) -> str:
    return f"[{','.join(map(str, prefixes))}]"


def frame_filter(families: Collection[int], *, asking: bool) -> str:
    """Return which frames an engine copies, as pcap-filter(7) has it; the others are dropped.

    What an engine does not decode it would hand on as it is, and what it decodes otherwise than the kernel it would
    judge as something else.  So it meets plain IP of the families that the interface has, and ARP.  libpcap's own
    ``vlan`` looks for tags in the frame, where there are those behind the first; that one the kernel has taken off, and
    tells of it by an extension of the packet filter (linux/filter.h, SKF_AD_VLAN_TAG_PRESENT), at -4048.

    Args:
        families: 4, 6 or both.
        asking: Whether who is on that side asks for neighbours by ARP, or answers.

    """
    kinds = [kind for version, kind in ((4, "ip"), (6, "ip6")) if version in families]
    if 4 in families:
        kinds.append(f"(arp and arp[6:2] = {1 if asking else 2})")
    return f"({' or '.join(kinds)}) and ether[-4048] = 0"


def _pair(interface: str, copy: str, frames: str) -> Iterator[str]:
    cluster = {INNER: 98}.get(interface, 99)
    yield f"  - interface: {interface}"
    yield f"    copy-iface: {copy}"
    yield "    copy-mode: ips"
    yield f'    bpf-filter: "{frames}"'
    yield "    threads: 1"
    yield f"    cluster-id: {cluster}"
    yield "    cluster-type: cluster_flow"
    yield "    defrag: no"
    yield "    use-mmap: yes"
    yield "    ring-size: 2048"
    yield "    buffer-size: 1048576"
