"""Certificates of the lab, as OpenSSL judges them."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from conformance.application.connection import Server, ask
from conformance.application.message import StatusInquiry
from conformance.application.tls import PeerError, Terms, check_peer, context
from conformance.pki import Identities, issue_identities
from conformance.pki.identities import Identity
from netpolicy.pki.authority import Span
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology

_ALPN = "app/1"
_ALPHA = "urn:netpolicy:pki:town-server:alpha"
_TERMS = Terms(Assurance.TERMINATE, _ALPN, "app", "test")
_END_OF_LIST = "-----END X509 CRL-----\n"


@pytest.fixture(name="identities")
def _identities(tmp_path: Path) -> Identities:
    return issue_identities(small_topology("pki"), tmp_path / "identities", now=datetime.now(UTC))


def _handshake(
    server: Identity, client: Identity, *, assurance: Assurance = Assurance.TERMINATE, allowed: str = _ALPHA
) -> str:
    """Let a server take `allowed` only, and return who that is when the client's handshake has succeeded."""
    here, there = socket.socketpair()
    here.settimeout(5)
    there.settimeout(5)

    def connect() -> None:
        ours = context(client, frozenset({assurance}), _ALPN, server=False)
        try:
            with ours.wrap_socket(there) as connection:
                connection.recv(1)
        except OSError:
            there.close()  # the server says why

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        theirs = context(server, frozenset(Assurance), _ALPN, server=True)
        with here, theirs.wrap_socket(here, server_side=True) as connection:
            check_peer(connection, {allowed: [Terms(assurance, _ALPN, "app", "test")]})
            return allowed
    finally:
        thread.join()


@contextmanager
def _serving(server: Identity) -> Iterator[socket.socket]:
    """Yield a client's end of a connection whose server answers nothing after the handshake."""
    here, there = socket.socketpair()
    here.settimeout(5)

    def serve() -> None:
        theirs = context(server, frozenset(Assurance), _ALPN, server=True)
        try:
            with theirs.wrap_socket(here, server_side=True) as connection:
                connection.recv(1)
        except OSError:
            here.close()  # the client says why

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield there
    finally:
        there.close()
        thread.join()


def _of(identities: Identities, name: str) -> Identity:
    return identities.of(identities.topology.nodes[name])


@pytest.mark.parametrize("assurance", list(Assurance))
def test_issued_certificates_are_accepted(identities: Identities, assurance: Assurance) -> None:
    """Strict verification with revocation of the whole chain succeeds, in both assurances."""
    assert _handshake(_of(identities, "gamma"), _of(identities, "alpha"), assurance=assurance) == _ALPHA


def test_another_role_is_refused(identities: Identities) -> None:
    """A valid certificate of someone whom no flow permits is not enough."""
    with pytest.raises(PeerError, match="town-server:beta, and no flow permits it here"):
        _handshake(_of(identities, "gamma"), _of(identities, "beta"))


def test_revocation_is_seen_by_the_next_connection(identities: Identities) -> None:
    """A revoked certificate is refused as soon as the list is out, and only that one."""
    stolen = identities.forge(identities.topology.nodes["alpha"], "stolen")
    assert _handshake(_of(identities, "gamma"), stolen) == _ALPHA
    identities.revoke(stolen)
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        _handshake(_of(identities, "gamma"), stolen)
    assert _handshake(_of(identities, "gamma"), _of(identities, "alpha")) == _ALPHA


def test_expired_and_foreign_certificates_are_refused(identities: Identities) -> None:
    """The right URI does not help a certificate that is over, or of an authority that nobody trusts."""
    alpha = identities.topology.nodes["alpha"]
    past = Span(identities.now - timedelta(days=2), identities.now - timedelta(days=1))
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        _handshake(_of(identities, "gamma"), identities.forge(alpha, "expired", span=past))
    with pytest.raises(ssl.SSLError, match="unable to get local issuer certificate"):
        _handshake(_of(identities, "gamma"), identities.forge(alpha, "foreign", foreign=True))


def test_clients_refuse_expired_foreign_and_revoked_servers(identities: Identities) -> None:
    """A client verifies a server as strictly as a server its clients."""
    gamma = identities.topology.nodes["gamma"]
    past = Span(identities.now - timedelta(days=2), identities.now - timedelta(days=1))
    revoked = identities.forge(gamma, "revoked")
    identities.revoke(revoked)
    for server, complaint in (
        (identities.forge(gamma, "expired", span=past), "certificate has expired"),
        (identities.forge(gamma, "foreign", foreign=True), "unable to get local issuer certificate"),
        (revoked, "certificate revoked"),
    ):
        with _serving(server) as plain, pytest.raises(ssl.SSLCertVerificationError, match=complaint):
            ask(plain, _of(identities, "alpha"), StatusInquiry(), server=Server("urn:any", "any"), terms=_TERMS)


def test_a_client_without_its_key_leaves_nothing_open(identities: Identities) -> None:
    """The connection is closed even when there is nothing to begin the handshake with."""
    alpha = _of(identities, "alpha")
    alpha.key.unlink()
    here, there = socket.socketpair()
    with here:
        with pytest.raises(FileNotFoundError):
            ask(there, alpha, StatusInquiry(), server=Server("urn:any", "any"), terms=_TERMS)
        assert there.fileno() == -1
        assert here.recv(1) == b""


def test_a_certificate_outside_the_profile_is_refused(identities: Identities) -> None:
    """A leaf of the right issuer, with the right URI, that does not name its issuer's key (RFC 5280, 4.2.1.1) fails."""
    stolen = identities.forge(identities.topology.nodes["alpha"], "stolen")
    leaf, issuer = x509.load_pem_x509_certificates(stolen.chain.read_bytes())
    builder = x509.CertificateBuilder(leaf.issuer, leaf.subject, leaf.public_key(), leaf.serial_number)
    builder = builder.not_valid_before(leaf.not_valid_before_utc).not_valid_after(leaf.not_valid_after_utc)
    for extension in leaf.extensions:
        if extension.oid != x509.AuthorityKeyIdentifier.oid:
            builder = builder.add_extension(extension.value, critical=extension.critical)
    signed = builder.sign(identities.issuers["local"].key, hashes.SHA256())
    signed.verify_directly_issued_by(issuer)
    stolen.chain.write_bytes(signed.public_bytes(Encoding.PEM) + issuer.public_bytes(Encoding.PEM))
    with pytest.raises(ssl.SSLError, match="Missing Authority Key Identifier"):
        _handshake(_of(identities, "gamma"), stolen)


@pytest.mark.parametrize("missing", ["the root's", "the issuers'"])
def test_nobody_is_accepted_without_every_list(identities: Identities, missing: str) -> None:
    """The issuer must be known not to be revoked, as its leaf must."""
    gamma = _of(identities, "gamma")
    root, *issuers = [f"{each}{_END_OF_LIST}" for each in gamma.crl.read_text().split(_END_OF_LIST)[:-1]]
    gamma.crl.write_text("".join(issuers) if missing == "the root's" else root)
    with pytest.raises(ssl.SSLError, match="unable to get certificate CRL"):
        _handshake(gamma, _of(identities, "alpha"))


def test_files_are_private(identities: Identities) -> None:
    """Directories are 0700 and keys 0600; each leaf lives a day, on P-256, with one URI."""
    assert identities.directory.stat().st_mode & 0o777 == 0o700
    for name in ("alpha", "beta", "gamma", "edge", "core"):
        directory = identities.directory / name
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "key.pem").stat().st_mode & 0o777 == 0o600
        leaf = x509.load_pem_x509_certificates((directory / "chain.pem").read_bytes())[0]
        key = load_pem_private_key((directory / "key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert isinstance(key.curve, ec.SECP256R1)
        assert key.public_key() == leaf.public_key()
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        assert uri.startswith("urn:netpolicy:pki:")
        assert uri.endswith(f":{name}")
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=1, minutes=5)


def test_identities_are_not_overwritten(identities: Identities) -> None:
    """A directory that exists is not taken."""
    with pytest.raises(FileExistsError):
        issue_identities(identities.topology, identities.directory, now=datetime.now(UTC))
