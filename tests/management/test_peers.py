"""Who may speak with a firewall's management, and who may not: as its relay, as an operator, on the way."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance_image.management.client import connected
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.protocol import Request
from appliance_image.management.tls import Files
from netpolicy.pki.authority import Span
from tests.management.network import OPERATOR, Managed, Network, target
from tests.waiting import until

_STATUS = Request("status", {})
_NOW = datetime.now(UTC)


@pytest.mark.parametrize("firewall", ["hall-fw", "town-fw"])
@pytest.mark.parametrize("version", [4, 6])
def test_operator(network: Network, firewall: str, version: int) -> None:
    """The operator is answered by a firewall beside it and by one behind that, over both families."""
    found = network.managed[firewall]
    found.firewall.records.clear()

    def talk() -> dict[str, object]:
        with connected(target(network.topology, firewall, version), network.console) as connection:
            assert connection.greeting["firewall"] == firewall
            return connection.ask(_STATUS)

    assert network.at("console", talk)["firewall"] == firewall
    (login,) = found.firewall.events("login")
    assert (login["operator"], login["flow"]) == (OPERATOR, "manage")
    assert found.firewall.events("refused") == []


def test_what_is_met_is_the_firewall_itself(network: Network, managed: Managed) -> None:
    """A relay on the way cannot stand for the firewall behind it."""
    wrong = replace(target(network.topology, "town-fw"), name="hall-fw.small.internal")

    def talk() -> dict[str, object]:
        with connected(wrong, network.console):
            return {}

    with pytest.raises(LinkError, match=r"TLS with hall-fw.small.internal itself: .*refused"):
        network.at("console", talk)
    assert until(lambda: bool(managed.firewall.events("refused")))


@pytest.mark.parametrize("field", ["uri", "relay_uri"])
@pytest.mark.usefixtures("managed")
def test_the_uri_of_what_is_met(network: Network, field: str) -> None:
    """A name alone is not enough: in each layer the other end's URI is the topology's."""
    expected = target(network.topology, "town-fw")
    wrong = replace(expected, uri="urn:other") if field == "uri" else replace(expected, relay_uri="urn:other")

    def talk() -> dict[str, object]:
        with connected(wrong, network.console):
            return {}

    with pytest.raises(LinkError, match="and should be urn:other"):
        network.at("console", talk)


@pytest.mark.parametrize("node", ["books", "desk"])
def test_others_are_stopped_at_the_first_relay(network: Network, managed: Managed, node: str) -> None:
    """Another role's certificate, at the operator's own place, does not even reach the endpoint."""

    def talk() -> dict[str, object]:
        with connected(managed.target, Files(network.own(node).directory)):
            return {}

    with pytest.raises(LinkError):
        network.at("console", talk)
    assert managed.firewall.records == []


_FORGED: dict[str, Callable[[Network], Files]] = {
    "expired": lambda network: Files(
        network.identities.forge(
            network.topology.nodes["console"], "expired", span=Span(_NOW - timedelta(3), _NOW - timedelta(1))
        ).directory
    ),
    "not yet valid": lambda network: Files(
        network.identities.forge(
            network.topology.nodes["console"], "early", span=Span(_NOW + timedelta(1), _NOW + timedelta(2))
        ).directory
    ),
    "of another authority of the same name": lambda network: Files(
        network.identities.forge(network.topology.nodes["console"], "foreign", foreign=True).directory
    ),
    "for servers only": lambda network: Files(
        network.identities.forge(
            network.topology.nodes["console"], "server-only", usage=(ExtendedKeyUsageOID.SERVER_AUTH,)
        ).directory
    ),
}
_WORDS = {
    "expired": "expired",
    "not yet valid": "not yet valid",
    "of another authority of the same name": "signature failure|unable to get|self-signed",
    "for servers only": "purpose",
}


@pytest.mark.parametrize("kind", _FORGED)
def test_certificates(network: Network, managed: Managed, kind: str) -> None:
    """A relay that lets anyone through changes nothing: the operator's certificate is verified at the end."""
    files = _FORGED[kind](network)
    with pytest.raises(LinkError, match="inner: the peer refuses"), network.knock("town-fw", files):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))
    (refused,) = managed.firewall.events("refused")
    assert refused["stage"] == "operator"
    assert any(word in str(refused["reason"]) for word in _WORDS[kind].split("|")), refused
    assert managed.firewall.events("login") == []


def test_revoked(network: Network, managed: Managed) -> None:
    """A certificate that is revoked is refused from the next connection on, without a restart."""
    forged = network.identities.forge(network.topology.nodes["console"], "revoked")
    with network.knock("town-fw", Files(forged.directory)) as connection:
        assert connection.ask(_STATUS)["firewall"] == "town-fw"
    network.identities.revoke(forged)
    with pytest.raises(LinkError, match="revoked"), network.knock("town-fw", Files(forged.directory)):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))
    with network.knock("town-fw", network.console) as connection:
        assert connection.ask(_STATUS)["firewall"] == "town-fw"


@pytest.mark.parametrize("name", ["books", "hall-fw", "town-fw"])
def test_roles(network: Network, managed: Managed, name: str) -> None:
    """A sound certificate of the network is not enough: not another node's, not the relays'."""
    with (
        pytest.raises(RefusedError, match="is no operator") as refused,
        network.knock("town-fw", Files(network.own(name).directory)),
    ):
        pass
    assert refused.value.code == "identity"
    assert until(lambda: bool(managed.firewall.events("refused")))
    (record,) = managed.firewall.events("refused")
    assert str(record["operator"]).endswith(f":{name}")
    assert managed.firewall.events("login") == []


@pytest.mark.parametrize("name", ["console", "hall-fw"])
def test_only_the_own_relay(network: Network, managed: Managed, name: str) -> None:
    """Nobody speaks with the endpoint but this firewall's relay: not the operator directly, not another relay."""
    with (
        pytest.raises((LinkError, RefusedError)),
        network.knock("town-fw", network.console, outer=Files(network.own(name).directory)),
    ):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))
    assert managed.firewall.events("refused")[0]["code"] == "relay"


@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_tls_1_2(network: Network, managed: Managed, layer: str) -> None:
    """TLS 1.2 is refused in each layer."""

    def tweak(which: str, context: object) -> None:
        assert isinstance(context, ssl.SSLContext)
        if which == layer:
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(LinkError, match="protocol version"), network.knock("town-fw", network.console, tweak=tweak):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))


@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_another_protocol(network: Network, managed: Managed, layer: str) -> None:
    """Who agrees on no protocol, or on another one, is refused in each layer."""

    def tweak(which: str, context: object) -> None:
        assert isinstance(context, ssl.SSLContext)
        if which == layer:
            context.set_alpn_protocols(["app/1"])

    with pytest.raises((LinkError, RefusedError)), network.knock("town-fw", network.console, tweak=tweak):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))
    assert managed.firewall.events("login") == []


def test_no_certificate(network: Network, managed: Managed) -> None:
    """Who shows no certificate is refused."""

    def knock() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(network.own("town-fw").trust)
        context.set_alpn_protocols(["netpolicy-management/1"])
        with (
            socket.create_connection(("127.0.0.1", 17100), 5) as plain,
            context.wrap_socket(plain, server_hostname="town-fw.small.internal") as tls,
        ):
            tls.send(b"JUKI")
            tls.recv(4)

    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        network.lab.namespace("town-fw").call(knock)
    assert until(lambda: bool(managed.firewall.events("refused")))


@pytest.mark.parametrize("prologue", [b"HTTP", b"JUKX", b"\x16\x03\x01\x00"])
def test_prologue(network: Network, managed: Managed, prologue: bytes) -> None:
    """A connection that does not begin as the flow says goes no further."""
    with pytest.raises((LinkError, RefusedError)), network.knock("town-fw", network.console, prologue=prologue):
        pass
    assert until(lambda: bool(managed.firewall.events("refused")))
    assert managed.firewall.events("refused")[0]["code"] == "prologue"


def test_garbage_instead_of_tls(network: Network, managed: Managed) -> None:
    """What is no TLS ends at once."""

    def knock() -> bytes:
        with socket.create_connection(("127.0.0.1", 17100), 5) as plain:
            plain.send(b"GET / HTTP/1.1\r\n\r\n" * 100)
            plain.settimeout(5)
            try:
                return plain.recv(100)
            except ConnectionResetError:
                return b""

    network.lab.namespace("town-fw").call(knock)
    assert until(lambda: bool(managed.firewall.events("refused")))


def test_nothing_but_the_loopback_device(network: Network) -> None:
    """The endpoint has no socket that a network reaches: without the relay nobody answers."""

    def sockets() -> list[str]:
        text = "".join(Path("/proc/thread-self/net", name).read_text(encoding="ascii") for name in ("tcp", "tcp6"))
        rows = [line.split() for line in text.splitlines() if ":" in line.split()[0]]
        return sorted({row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1][-4:], 16) == 17100})

    assert network.lab.namespace("town-fw").call(sockets) == ["00000000000000000000000001000000", "0100007F"]


def test_a_full_journal_lets_nobody_in(network: Network, managed: Managed) -> None:
    """A session that cannot be recorded is not held; the operator is told why."""
    managed.firewall.full = True
    with pytest.raises(RefusedError) as refused, network.knock("town-fw", network.console):
        pass
    assert refused.value.code == "journal-full"
