"""SMTP, HTTP, FTP and Telnet are forbidden whatever a topology says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from conformance.expect import Expectation, Packet
from ids_rules.lock import SidLock
from netpolicy.build import compile_files, compile_topology
from netpolicy.intent.routing import Routing
from netpolicy.proof.prove import prove
from netpolicy.reasons import DenyReason
from netpolicy.topology.forbidden import begun, named
from tests.topology.writing import SERVICE_LINE, refusals, topology, write

_SECTIONS = {
    "no section": "",
    "others only": "forbidden: {dns: {title: DNS, udp: 53}}",
    "with other ports only": "forbidden: {smtp: {title: Mail, tcp: 2525}, telnet: {title: Terminals}}",
}
_PORTS = (25, 465, 587, 80, 8080, 20, 21, 990, 23, 992)


@pytest.mark.parametrize("section", _SECTIONS.values(), ids=list(_SECTIONS))
@pytest.mark.parametrize("port", [*_PORTS, "22-24", "1-65535"])
def test_ports(tmp_path: Path, section: str, port: int | str) -> None:
    """No service has one of their ports."""
    path = tmp_path / "topology.yaml"
    write(path, section, ports=port)
    (found,) = (each for each in refusals(path) if "no network may let pass" in each)
    assert found.startswith(f"{path}:{SERVICE_LINE}:")
    assert f"port '{port}' of service 'app' is one of" in found


@pytest.mark.parametrize("section", _SECTIONS.values(), ids=list(_SECTIONS))
@pytest.mark.parametrize(
    "alpn",
    [
        "http/0.9",
        "http/1.0",
        "http/1.1",
        "HTTP/1.1",
        "http",
        "h2",
        "h2c",
        "h3",
        "h3-29",
        "hq-interop",
        "spdy/1",
        "spdy/3.1",
        "grpc-exp",
        "smtp",
        "SMTP",
        "submission",
        "lmtp",
        "imap",
        "IMAP",
        "imaps",
        "pop3",
        "managesieve",
        "ftp",
        "FTP",
        "ftps",
        "ftp-data",
        "telnet",
        "telnets",
        "http-1",
        "ftp/2",
        "imap4",
    ],
)
def test_names(tmp_path: Path, section: str, alpn: str) -> None:
    """No service speaks one of them by its name, in either service and both assurances."""
    path = tmp_path / "topology.yaml"
    write(path, section, alpn=alpn)
    found = [each for each in refusals(path) if "no network may let pass" in each]
    assert [each.removeprefix(f"{path}:").split(":")[0] for each in found] == [str(SERVICE_LINE), str(SERVICE_LINE + 1)]
    assert "did you mean 'app/1'?" in found[0]


@pytest.mark.parametrize(
    "prologue",
    [
        "EHLO",
        "HELO",
        "ehlo",
        "MAIL",
        "QUIT",
        "USER",
        "USE",
        "U",
        "PASS",
        "RETR",
        "GET",
        "GE",
        "G",
        "get",
        "POST",
        "PRI",
        "HTTP/1.1",
        "HTTP/",
        "HTTP",
        "H",
        "OPTIONS",
        "CONNECT",
        "220",
        "22",
        "2",
        "220-",
        "354",
        "login",
        "LO",
        "GET/",
        "PUT-x",
    ],
)
def test_first_bytes(tmp_path: Path, prologue: str) -> None:
    """No service begins as one of them could."""
    path = tmp_path / "topology.yaml"
    write(path, prologue=prologue)
    (found,) = refusals(path)
    assert found.startswith(f"{path}:{SERVICE_LINE}:")
    assert f"'{prologue}' of service 'app' lets" in found


def test_own_protocols_are_free() -> None:
    """A name or a beginning that only looks a little like one of theirs is the network's own."""
    for alpn in ("juki/1", "juki-record/1", "app/1", "hub/2", "hr", "poplar/1", "transfer", "netpolicy-management/1"):
        assert named(alpn) is None, alpn
    for prologue in ("JUKI", "GETTER", "USERS1", "2200", "6", "0", "MAILBOX", "JUKI/1.0"):
        assert begun(prologue) is None, prologue


@pytest.mark.parametrize("section", _SECTIONS.values(), ids=list(_SECTIONS))
def test_rules_signatures_expectations_and_proof(tmp_path: Path, section: str) -> None:
    """All four are in everything that is compiled and in everything that judges it."""
    network = topology(tmp_path / "topology.yaml", section)
    files = compile_files(network, SidLock())
    for firewall in network.firewalls:
        ruleset = files[f"{firewall}/nftables.nft"]
        for protocol, ports in (("smtp", "25"), ("http", "80"), ("ftp", "20-21"), ("telnet", "23")):
            assert f"counter deny_forbidden_{protocol} {{ }}" in ruleset
            assert f'tcp . {ports} comment "{protocol}" : goto deny_forbidden_{protocol}' in ruleset
        rules = [text for name, text in files.items() if name.startswith(firewall) and name.endswith("netpolicy.rules")]
        for text in rules:
            for protocol in ("smtp", "http", "http2", "ftp", "telnet"):
                assert f"; app-layer-protocol:{protocol}; " in text
                drop = next(line for line in text.splitlines() if f"; app-layer-protocol:{protocol}; " in line)
                assert drop.startswith("drop tcp any any -> any any ")
            for protocol in ("smtp", "http", "ftp", "telnet"):
                assert f"signature attempt-{protocol}-tcp" in text
    assert any(name.endswith("netpolicy.rules") for name in files)
    judge = Expectation(network, Routing(network), datetime.now(UTC)).judge("town-fw")
    desk, books = (network.nodes[name].interface.addresses[0] for name in ("desk", "books"))
    for port in _PORTS:
        expected, _ = judge.judge(Packet("lan", desk, books, "tcp", port))
        assert expected.reason is DenyReason.FORBIDDEN
    compile_topology(network, tmp_path / "build")
    assert prove(network, tmp_path / "build").holds


def test_entries_add(tmp_path: Path) -> None:
    """An entry of the same name adds ports and gives a title; none are taken away."""
    network = topology(tmp_path / "topology.yaml", _SECTIONS["with other ports only"])
    assert [str(port) for port in network.forbidden["smtp"].tcp] == ["25", "465", "587", "2525"]
    assert str(network.forbidden["smtp"].title) == "Mail"
    assert [str(port) for port in network.forbidden["telnet"].tcp] == ["23", "992"]
    assert list(network.forbidden) == ["smtp", "http", "ftp", "telnet"]
