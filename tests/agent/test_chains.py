"""What a relay lets in by certificate: tricks with chains, names and keys, and revocation lists that are over."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance_image.bundle import der
from conformance.pki import Identities
from netpolicy.pki.authority import Authority, key_usage
from netpolicy.topology.identity import identity_uri, server_name
from tests.agent.making import FIREWALL, PORT
from tests.agent.relayed import answering, context_of
from tests.agent.world import QUESTION, World
from tests.waiting import until

_DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
Made = tuple[Key, list[x509.Certificate]]


@dataclass
class Forger:
    """Makes certificates as nobody should, of real authorities and of its own."""

    identities: Identities
    now: datetime

    @property
    def issuer(self) -> Authority:
        """Return who certifies the client."""
        return self.identities._issuer(self.identities.topology.nodes["alpha"])

    @property
    def names(self) -> list[x509.GeneralName]:
        """Return the client's own names."""
        alpha, topology = self.identities.topology.nodes["alpha"], self.identities.topology
        uri = x509.UniformResourceIdentifier(identity_uri(topology, alpha))
        return [uri, x509.DNSName(server_name(topology, alpha))]

    def authority(self, by: Authority, *, depth: int | None = None, life: timedelta = _DAY, **more: bool) -> Authority:
        """Return an authority below another one; `more` says whether it is one, and whether it names others' names."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"below {len(by.network)} {depth}")])
        builder = self._builder(by, name, key, life)
        builder = builder.add_extension(x509.BasicConstraints(more.get("ca", True), depth), critical=True)
        builder = builder.add_extension(key_usage(authority=True), critical=True)
        if more.get("constrained"):
            permitted = x509.NameConstraints([x509.DNSName("elsewhere.example")], None)
            builder = builder.add_extension(permitted, critical=True)
        return Authority(by.network, name, key, builder.sign(by.key, hashes.SHA256()))

    def leaf(
        self,
        by: Authority,
        *between: Authority,
        names: list[x509.GeneralName] | None = None,
        key: Key | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        padding: int = 0,
    ) -> Made:
        """Return a client's key and chain."""
        mine = key or ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(by, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alpha")]), mine, _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names or self.names), critical=False)
        if padding:
            padded = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.7"), b"\x04\x82\xff\xff" + bytes(padding))
            builder = builder.add_extension(padded, critical=False)
        made = builder.sign(by.key, hashes.SHA256())
        return mine, [made, *(each.certificate for each in (by, *between))]

    def _builder(self, by: Authority, name: x509.Name, key: Key, life: timedelta) -> x509.CertificateBuilder:
        begin = self.now - 9 * _DAY if life < timedelta(0) else self.now - timedelta(minutes=1)
        return (
            x509.CertificateBuilder(
                by.name, name, key.public_key(), x509.random_serial_number(), begin, self.now + life
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.key.public_key()), critical=False)
        )

    def tricks(self) -> dict[str, Callable[[], Made]]:
        """Return what a relay must not take, by name."""
        issuer, root = self.issuer, self.identities.root
        uri, dns = self.names
        value = str(uri.value)
        foreign = Authority.root(root.network, self.now)
        alike = Authority(root.network, root.name, foreign.key, foreign.certificate)
        namesake = Authority(issuer.network, issuer.name, issuer.key, self._crossed(foreign, issuer))

        def named(*others: str) -> Callable[[], Made]:
            return lambda: self.leaf(issuer, names=[*(x509.UniformResourceIdentifier(each) for each in others), dns])

        def long() -> Made:
            chain = [root]
            for _ in range(12):
                chain.append(self.authority(chain[-1]))
            return self.leaf(chain[-1], *reversed(chain[1:-1]))

        return {
            "an end as authority": lambda: self.leaf(self.authority(issuer, ca=False), issuer),
            "deeper than the path length": lambda: self.leaf(self.authority(issuer), issuer),
            "outside of name constraints": lambda: self.leaf(self.authority(root, constrained=True)),
            "over as authority": lambda: self.leaf(self.authority(root, life=-_DAY)),
            "without a list of its authority": lambda: self.leaf(self.authority(root, depth=0)),
            "the same key, certified by another root": lambda: self.leaf(namesake),
            "a root of the same name": lambda: self.leaf(alike),
            "for servers only": lambda: self.leaf(issuer, usage=ExtendedKeyUsageOID.SERVER_AUTH),
            "twelve authorities": long,
            "larger than 100 KiB": lambda: self.leaf(issuer, padding=0xFFFF + 100_000),
            "SHA-1": lambda: self._sha1(issuer),
            "RSA of 1024 bits": lambda: self.leaf(issuer, key=rsa.generate_private_key(65537, 1024)),  # noqa: S505 - the same
            "two URIs": named(value, "urn:x"),
            "two URIs, the other way round": named("urn:x", value),
            "a URI that ends in NUL": named(value + "\0x"),
            "a URI in capitals": named(value.upper()),
            "a URI with a wildcard": named(value.rpartition(":")[0] + ":*"),
            "a URI with its beginning": named(value[:-1]),
            "no URI": lambda: self.leaf(issuer, names=[dns]),
        }

    def _sha1(self, by: Authority) -> Made:
        """Return what no library signs any more (RFC 5758, 3.2: ecdsa-with-SHA1)."""
        key, (made, *rest) = self.leaf(by)
        body = der.decode(made.tbs_certificate_bytes, der.SEQUENCE).children()
        algorithm = der.encode(der.SEQUENCE, der.encode_oid("1.2.840.10045.4.1"))
        content = der.encode(
            der.SEQUENCE, *(each.raw for each in body[:2]), algorithm, *(each.raw for each in body[3:])
        )
        signature = by.key.sign(content, ec.ECDSA(hashes.SHA1()))  # noqa: S303 - that is the trick
        whole = der.encode(der.SEQUENCE, content, algorithm, der.encode(der.BIT_STRING, b"\0", signature))
        return key, [x509.load_der_x509_certificate(whole), *rest]

    def _crossed(self, by: Authority, whom: Authority) -> x509.Certificate:
        builder = self._builder(by, whom.name, whom.key, _DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return builder.add_extension(key_usage(authority=True), critical=True).sign(by.key, hashes.SHA256())


def _answered(world: World, identities: Identities, context: ssl.SSLContext) -> bool:
    """Tell whether a client is let through to who answers."""
    name = server_name(identities.topology, identities.topology.firewalls[FIREWALL])
    try:
        with world.connect(PORT) as plain, context.wrap_socket(plain, server_hostname=name) as secured:
            secured.sendall(QUESTION)
            return secured.recv(100) == QUESTION
    except OSError:
        return False


def _client(identities: Identities, place: Path, made: Made) -> ssl.SSLContext:
    """Return the settings of a client that shows what was made, however weak."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.load_verify_locations(identities.directory / "alpha" / "trust.pem")
    context.set_alpn_protocols(["app/1"])
    key, chain = made
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    place.write_bytes(pem + b"".join(each.public_bytes(Encoding.PEM) for each in chain))
    context.load_cert_chain(place)
    return context


def test_tricks(relaying: World, identities: Identities, tmp_path: Path) -> None:
    """None of them is answered, by a relay that answers the right certificate before and after; each was presented."""
    forger = Forger(identities, datetime.now(UTC))
    with answering(relaying, identities):

        def taken(made: Made) -> bool:
            return _answered(relaying, identities, _client(identities, tmp_path / "client.pem", made))

        assert taken(forger.leaf(forger.issuer))
        let_in = [name for name, make in forger.tricks().items() if taken(make())]
        assert taken(forger.leaf(forger.issuer))
        assert let_in == []


def test_lists_that_are_over(relaying: World, identities: Identities) -> None:
    """When the time of the lists is over nobody is let in: closed, not open."""
    alpha = context_of(identities, identities.topology.nodes["alpha"], server=False)
    with answering(relaying, identities):
        assert _answered(relaying, identities, alpha)
        lists = b""
        for each in (identities.root, *identities.issuers.values()):
            each._crl_time = None
            lists += each.crl(datetime.now(UTC), life=timedelta(seconds=-1)).public_bytes(Encoding.PEM)
        (relaying.root.run / "relay/tls/crl.pem").write_bytes(lists)
        relaying.run_in("appliance", [str(relaying.place / "bin/systemctl"), "reload", "netpolicy-haproxy.service"])
        # The worker of before takes connections until it is next scheduled.
        assert until(lambda: not _answered(relaying, identities, alpha), 10.0)
        assert not any(_answered(relaying, identities, alpha) for _ in range(5))
