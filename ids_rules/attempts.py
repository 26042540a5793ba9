"""Attempts at forbidden protocols, visible in their first packet, which the kernel then drops."""

from __future__ import annotations

from collections.abc import Iterator

from ids_rules.signature import Action, Classtype, Signature
from netpolicy.topology.model import ForbiddenProtocol, PortRange

_TECHNIQUES = {
    "smtp": "T1071.003",
    "http": "T1071.001",
    "ftp": "T1071.002",
    "telnet": "T1021",
    "ssh": "T1021.004",
    "rdp": "T1021.001",
    "smb": "T1021.002",
    "database": "T1213.006",
    "dns": "T1071.004",
}
_OTHER = "T1071"


def attempts(forbidden: tuple[ForbiddenProtocol, ...]) -> Iterator[Signature]:
    """Yield a signature for each transport of each forbidden protocol of the topology."""
    for protocol in forbidden:
        for transport, ports in (("tcp", protocol.tcp), ("udp", protocol.udp)):
            if ports:
                technique = _TECHNIQUES.get(protocol.id, _OTHER)
                yield Signature(
                    id=f"attempt-{protocol.id}-{transport}",
                    action=Action.ALERT,
                    header=f"{transport} any any -> any {port_list(ports)}",
                    message=f"attempt at {protocol.title.en} over {transport.upper()}",
                    match=("flow:to_server", "flags:S,12") if transport == "tcp" else (),
                    classtype=Classtype.ATTEMPTED_RECON,
                    technique=technique,
                    reference="attack.mitre.org/techniques/" + technique.replace(".", "/"),
                )


def port_list(ports: tuple[PortRange, ...]) -> str:
    """Return ports as Suricata writes them."""
    written = [str(each.first) if each.first == each.last else f"{each.first}:{each.last}" for each in ports]
    return written[0] if len(written) == 1 else f"[{','.join(written)}]"
