"""Revocation lists over time, and names of authorities that must not be taken for each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from conformance.pki import Identities, issue_identities
from conformance.pki.identities import Identity
from netpolicy.topology.model import Tier, Title
from tests.lab.small import small_topology

NOW = datetime(2026, 11, 24, 3, 0, 0, tzinfo=UTC)


@pytest.fixture(name="identities")
def _identities(tmp_path: Path) -> Identities:
    return issue_identities(small_topology("revocation"), tmp_path / "identities", now=NOW)


def _lists(identity: Identity) -> dict[str, x509.CertificateRevocationList]:
    """Return the lists an end has, by their authority."""
    blocks = identity.crl.read_bytes().split(b"-----END X509 CRL-----\n")[:-1]
    found = [x509.load_pem_x509_crl(block + b"-----END X509 CRL-----\n") for block in blocks]
    return {each.issuer.rfc4514_string(): each for each in found}


def _number(each: x509.CertificateRevocationList) -> int:
    return each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def _serial(identity: Identity) -> int:
    return x509.load_pem_x509_certificates(identity.chain.read_bytes())[0].serial_number


def test_every_authority_has_a_list_from_the_start(identities: Identities) -> None:
    """The root and every issuer publish an empty, signed list that is in force, to every end alike."""
    topology = identities.topology
    authorities = {each.name.rfc4514_string(): each for each in (identities.root, *identities.issuers.values())}
    assert len(authorities) == 1 + len(topology.tiers) + 1
    alpha = _lists(identities.of(topology.nodes["alpha"]))
    assert alpha.keys() == authorities.keys()
    for name, each in alpha.items():
        assert list(each) == []
        assert _number(each) == 1
        assert each.is_signature_valid(authorities[name].key.public_key())
        assert each.next_update_utc is not None
        assert each.last_update_utc <= NOW < each.next_update_utc
    core = identities.of(topology.firewalls["core"])
    assert core.crl.read_bytes() == identities.of(topology.nodes["alpha"]).crl.read_bytes()


def test_a_revocation_makes_one_new_list_that_everyone_gets(identities: Identities) -> None:
    """Only the issuer's list is renewed, with a higher number, a later time and all its serials."""
    nodes = identities.topology.nodes
    before = _lists(identities.of(nodes["gamma"]))
    stolen = [identities.forge(nodes["alpha"], f"stolen-{each}") for each in range(2)]
    assert _lists(stolen[0]) == before
    identities.revoke(*stolen)
    identities.revoke(identities.of(nodes["beta"]))
    after = _lists(identities.of(nodes["gamma"]))
    (renewed,) = (name for name in after if after[name] != before[name])
    assert renewed == "CN=local,OU=issuer,O=revocation"
    assert _number(after[renewed]) == 3
    assert before[renewed].last_update_utc < after[renewed].last_update_utc <= NOW
    serials = {each.serial_number for each in after[renewed]}
    assert serials == {_serial(each) for each in (*stolen, identities.of(nodes["beta"]))}


def test_lists_are_never_from_the_future(identities: Identities) -> None:
    """One instant holds a bounded number of lists: one more is refused, and comes a second later."""
    root = identities.root
    times = [root.crl(NOW).last_update_utc for _ in range(300)]
    assert times == sorted(set(times))
    assert times[-1] == NOW
    with pytest.raises(ValueError, match="cannot be later than the one before it"):
        root.crl(NOW)
    later = NOW + timedelta(seconds=10)
    assert NOW < root.crl(later).last_update_utc <= later


def test_a_foreign_certificate_is_not_revoked_here(identities: Identities) -> None:
    """What an authority has not signed it cannot revoke, and no list changes."""
    alpha = identities.topology.nodes["alpha"]
    before = identities.of(alpha).crl.read_bytes()
    foreign = identities.forge(alpha, "foreign", foreign=True)
    with pytest.raises(ValueError, match="an authority that cannot revoke here"):
        identities.revoke(identities.of(alpha), foreign)
    assert identities.of(alpha).crl.read_bytes() == before


def test_tiers_may_be_called_like_anything(tmp_path: Path) -> None:
    """Tiers named like the network, the root or an end give authorities whose leaves verify all the same."""
    topology = small_topology("root")
    names = ("root", "alpha", "issuer", "external")
    topology = replace(topology, tiers={**topology.tiers, **{name: Tier(name, Title(name)) for name in names}})
    segments = dict(topology.segments)
    segments["town"] = replace(segments["town"], tier="root")
    topology = replace(topology, segments=segments)
    identities = issue_identities(topology, tmp_path / "identities", now=datetime.now(UTC))
    authorities = [identities.root, *identities.issuers.values()]
    assert len({each.name for each in authorities}) == len(authorities)
    identity = identities.of(topology.nodes["alpha"])
    leaf, issuer = x509.load_pem_x509_certificates(identity.chain.read_bytes())
    assert leaf.subject.rfc4514_string() == "CN=alpha,OU=end,O=root"
    assert issuer.subject.rfc4514_string() == "CN=root,OU=issuer,O=root"
    leaf.verify_directly_issued_by(issuer)
    issuer.verify_directly_issued_by(x509.load_pem_x509_certificate(identity.trust.read_bytes()))
    constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
