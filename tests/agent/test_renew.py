"""A renewed certificate and newer lists are taken while the relay runs; what is wrong with them changes nothing."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from conformance.pki import Identities
from conformance.pki.identities import Identity
from netpolicy.pki.authority import CLIENT_AND_SERVER, Span
from netpolicy.topology.identity import server_name
from netpolicy.topology.model import Firewall
from tests.agent.making import FIREWALL, PORT, files_of
from tests.agent.world import World
from tests.waiting import until

_DAY = timedelta(days=1)
_TAKEN = ("chain.pem", "crl.pem", "key.pem")
Usage = tuple[x509.ObjectIdentifier, ...]


def _edge(identities: Identities) -> Firewall:
    return identities.topology.firewalls[FIREWALL]


def _renew(world: World, directory: Path) -> tuple[int, dict[str, object]]:
    done = world.agent("renew", str(directory), "--json")
    assert done.returncode in {0, 2}, done.stderr
    return done.returncode, json.loads(done.stdout)


def _shown(world: World, identities: Identities) -> int:
    """Return the serial number of the certificate that the relay shows to a client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = identities.of(identities.topology.nodes["alpha"])
    context.load_cert_chain(client.chain, client.key)
    context.set_alpn_protocols(["app/1"])
    name = server_name(identities.topology, _edge(identities))
    with world.connect(PORT) as plain, context.wrap_socket(plain, server_hostname=name) as secured:
        found = secured.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found).serial_number


def _serial(identity: Identity) -> int:
    return x509.load_pem_x509_certificates(identity.chain.read_bytes())[0].serial_number


def _files(world: World) -> dict[str, bytes]:
    return {name: (world.root.identity / name).read_bytes() for name in _TAKEN}


def test_renewed(relaying: World, identities: Identities) -> None:
    """The relay shows the new certificate without having been away; status, journal and drift know of it."""
    edge = identities.of(_edge(identities))
    before = _serial(edge)
    assert _shown(relaying, identities) == before
    relay = relaying.place / "units" / "netpolicy-haproxy.service"
    process = relay.read_text()
    identities.renew(_edge(identities), now=datetime.now(UTC))
    code, found = _renew(relaying, edge.directory)
    assert code == 0, found
    assert found["certificate"] == f"{_serial(edge):x}"
    assert until(lambda: _shown(relaying, identities) != before, 30.0)
    assert _shown(relaying, identities) == _serial(edge)
    assert relay.read_text() == process
    assert _files(relaying) == {name: (edge.directory / name).read_bytes() for name in _TAKEN}
    assert all((relaying.root.identity / name).stat().st_mode & 0o777 == 0o600 for name in _TAKEN)
    (record,) = [each["fields"] for each in relaying.records() if each["event"] == "renew"]
    assert (record["certificate"], record["source"]) == (found["certificate"], "operator")
    assert not (relaying.root.run / "renewal").exists()
    assert relaying.agent("drift").returncode == 0
    status = json.loads(relaying.agent("status", "--json").stdout)
    # The lab's certificates and lists live for a day.
    assert status["validity"]["due"] == ["certificate", "lists"]
    relaying.power_on()
    assert relaying.boot(), relaying.console()
    assert _shown(relaying, identities) == _serial(edge)


def test_lists_alone(relaying: World, identities: Identities) -> None:
    """Lists may come without a new certificate, and without the key: a client that they name is refused."""
    client = identities.of(identities.topology.nodes["alpha"])
    place = relaying.place / "renewed"
    place.mkdir()
    identities.revoke(client, now=datetime.now(UTC))
    for name in ("chain.pem", "crl.pem"):
        shutil.copy(identities.of(_edge(identities)).directory / name, place / name)
    code, found = _renew(relaying, place)
    assert code == 0, found
    assert (relaying.root.identity / "crl.pem").read_bytes() == (place / "crl.pem").read_bytes()


@dataclass
class Offers:
    """What is wrong with what is offered."""

    identities: Identities
    kept: dict[str, bytes]
    """What the appliance has."""
    now: datetime
    made: int = 0

    def forged(self, span: Span | None = None, *, foreign: bool = False, usage: Usage = CLIENT_AND_SERVER) -> Identity:
        """Return another certificate of the firewall."""
        self.made += 1
        edge = _edge(self.identities)
        return self.identities.forge(edge, f"forged-{self.made}", span=span, foreign=foreign, usage=usage)

    def revoked(self) -> Identity:
        """Return one that its own lists name."""
        found = self.forged()
        self.identities.revoke(found, now=self.now)
        return found

    def changed(self, **contents: bytes) -> dict[str, bytes]:
        """Return another certificate with other contents of some files."""
        return _read(self.forged().directory) | {f"{name}.pem": content for name, content in contents.items()}

    def lists(self, at: datetime) -> bytes:
        """Return all authorities' first lists, as of another time."""
        found = b""
        for each in (self.identities.root, *self.identities.issuers.values()):
            first = replace(each, revoked=[], _dates={}, _crl_number=0, _crl_time=None)
            found += first.crl(at).public_bytes(Encoding.PEM)
        return found

    def all(self) -> dict[str, dict[str, bytes]]:
        """Return them by the code of their refusal."""
        now, alpha = self.now, self.identities.of(self.identities.topology.nodes["alpha"])
        first = b"".join(self.kept["crl.pem"].partition(b"-----END X509 CRL-----\n")[:2])
        return {
            "same": self.kept,
            "expired": _read(self.forged(Span(now - 2 * _DAY, now - _DAY)).directory),
            "not-yet-valid": _read(self.forged(Span(now + _DAY, now + 2 * _DAY)).directory),
            "wrong-authority": _read(self.forged(foreign=True).directory),
            "wrong-purpose": _read(self.forged(usage=(ExtendedKeyUsageOID.CLIENT_AUTH,)).directory),
            "other-names": _read(alpha.directory),
            "other-key": self.changed(key=self.kept["key.pem"]),
            "no-crl": self.changed(crl=first),
            "stale-crl": self.changed(crl=self.lists(now - 3 * _DAY)),
            "false-crl": self.changed(crl=_altered(self.kept["crl.pem"])),
            "malformed": self.changed(crl=b"nonsense"),
            "oversize": self.changed(chain=b" " * (1 << 19)),
            "revoked": _read(self.revoked().directory),
        }


def _read(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in _TAKEN}


def _altered(crl: bytes) -> bytes:
    """Return lists with a changed byte in the signature of each."""
    found = []
    for each in crl.split(b"-----END X509 CRL-----\n")[:-1]:
        head, _, body = each.partition(b"-----\n")
        der = bytearray(base64.b64decode(body))
        der[-1] ^= 1
        found.append(head + b"-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n")
    return b"".join(found)


def _refused(world: World, code: str, files: dict[str, bytes]) -> None:
    """Offer files, and hold that they are refused with this code, recorded, and that nothing has changed."""
    kept, place = _files(world), world.place / code
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    assert (_renew(world, place)[1]["code"], code) == (code, code)
    assert _files(world) == kept, code
    last = [each["fields"] for each in world.records() if each["event"] == "refused"][-1]
    assert (last["code"], last["source"]) == (code, "renew")


def test_refused(relaying: World, identities: Identities) -> None:
    """Each by its own code, recorded; what was there is there, and the relay goes on with it."""
    offers = Offers(identities, _files(relaying), datetime.now(UTC))
    for code, files in offers.all().items():
        _refused(relaying, code, files)
    # The lists that came with the revoked one are newer: once they are here, the first ones are taken no more.
    assert _renew(relaying, offers.forged().directory)[0] == 0
    _refused(relaying, "older-crl", offers.kept)
    assert "PRIVATE" not in json.dumps([each["fields"] for each in relaying.records()])
    with relaying.connect(PORT):
        pass


def test_a_relay_that_does_not_take_it(relaying: World, identities: Identities) -> None:
    """A relay that cannot go on with its files is begun again with those that there were before."""
    edge = identities.of(_edge(identities))
    kept = _files(relaying)
    identities.renew(_edge(identities), now=datetime.now(UTC))
    with (relaying.root.run / "relay/haproxy.cfg").open("a") as configuration:
        configuration.write("nonsense\n")
    done = relaying.agent("renew", str(edge.directory), "--json")
    assert json.loads(done.stdout)["code"] == "relay"
    assert "Reload failed!" in done.stderr
    assert _files(relaying) == kept
    with relaying.connect(PORT):
        pass
    assert relaying.agent("drift").returncode == 0


def test_not_while_on_trial(relaying: World, identities: Identities) -> None:
    """What a trial is of stays as it is until it is decided; without an identity there is nothing to renew."""
    done = relaying.agent(
        "apply", str(relaying.write(relaying.operator.bundle(files_of("manage"), 2))), "--confirm", "60s"
    )
    assert done.returncode == 0, done.stderr
    directory = identities.of(_edge(identities)).directory
    assert _renew(relaying, directory)[1]["code"] == "on-trial"
    assert relaying.agent("rollback").returncode == 0
    (relaying.root.identity / "crl.pem").unlink()
    assert _renew(relaying, directory)[1]["code"] == "no-identity"
