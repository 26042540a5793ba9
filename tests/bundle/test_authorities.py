"""The authorities that a bundle carries, and whose revocation lists they make count."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from appliance_image.agent.ends import check_lists
from appliance_image.agent.errors import AgentError
from appliance_image.bundle import Code, Refused
from appliance_image.bundle.authorities import ISSUERS, TRUST, Authorities
from appliance_image.bundle.certificate import read_list
from appliance_image.bundle.der import DerError
from netpolicy.pki.authority import Authority, Span, new_key
from tests.bundle.making import DAY, NOW, authority, pem

_ROOT = authority("ends")
_TOWN = _ROOT.subordinate("town", NOW, life=300 * DAY)
_KNOWN = Authorities.of(pem(_ROOT.certificate) + pem(_TOWN.certificate), NOW)
Builder = x509.CertificateRevocationListBuilder


def _builder(issuer: Authority, number: int = 5) -> Builder:
    return (
        Builder()
        .issuer_name(issuer.name)
        .last_update(NOW - DAY)
        .next_update(NOW + DAY)
        .add_extension(x509.CRLNumber(number), critical=False)
    )


def _signed(builder: Builder, by: Authority) -> bytes:
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _lists(number: int = 5) -> bytes:
    return _signed(_builder(_ROOT), _ROOT) + _signed(_builder(_TOWN, number), _TOWN)


def _refused(wanted: bytes, code: str, held: bytes = b"") -> None:
    with pytest.raises(AgentError) as refused:
        check_lists(held, wanted, _KNOWN, NOW)
    assert refused.value.code == code


def test_lists_of_every_authority_are_verified() -> None:
    """A list counts by its authority's own signature, and one of a stranger is refused by name."""
    assert check_lists(b"", _lists(), _KNOWN, NOW) is False
    stranger, namesake = authority("elsewhere"), authority("ends").subordinate("town", NOW)
    _refused(_lists() + _signed(_builder(stranger, 10**9), stranger), "unknown-authority")
    _refused(_signed(_builder(_ROOT), _ROOT) + _signed(_builder(_TOWN, 10**9), namesake), "false-crl")
    _refused(_signed(_builder(_ROOT), _ROOT), "no-crl")
    _refused(_lists() + _lists(), "malformed")
    _refused(_lists(4), "older-crl", _lists(5))


def test_a_bogus_number_that_is_here_blocks_nothing() -> None:
    """What came before signatures were verified does not hold up its authority's own lists."""
    namesake = authority("ends").subordinate("town", NOW)
    bogus = _signed(_builder(_ROOT), _ROOT) + _signed(_builder(_TOWN, 10**9), namesake)
    assert check_lists(bogus, _lists(), _KNOWN, NOW) is False


def test_whether_lists_revoke_more() -> None:
    """Only somebody who was not revoked before makes a difference."""
    entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(NOW - DAY).build()
    root = _signed(_builder(_ROOT), _ROOT)
    more = root + _signed(_builder(_TOWN, 6).add_revoked_certificate(entry), _TOWN)
    assert check_lists(_lists(), more, _KNOWN, NOW) is True
    again = root + _signed(_builder(_TOWN, 7).add_revoked_certificate(entry), _TOWN)
    assert check_lists(more, again, _KNOWN, NOW) is False


@pytest.mark.parametrize(
    ("begins", "ends", "code"), [(timedelta(hours=1), DAY, "stale-crl"), (-2 * DAY, -DAY, "stale-crl")]
)
def test_time(begins: timedelta, ends: timedelta, code: str) -> None:
    """A list from the future, or one whose successor is due, is none."""
    late = Builder().issuer_name(_TOWN.name).last_update(NOW + begins).next_update(NOW + ends)
    late = late.add_extension(x509.CRLNumber(9), critical=False)
    _refused(_signed(_builder(_ROOT), _ROOT) + _signed(late, _TOWN), code)


def _delta(builder: Builder) -> Builder:
    return builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)


def _quiet_delta(builder: Builder) -> Builder:
    return builder.add_extension(x509.DeltaCRLIndicator(1), critical=False)


def _of_a_part(builder: Builder) -> Builder:
    part = x509.IssuingDistributionPoint(None, None, False, True, None, False, False)
    return builder.add_extension(part, critical=True)


def _indirect(builder: Builder) -> Builder:
    entry = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(NOW - DAY)
    names = x509.CertificateIssuer([x509.DirectoryName(_ROOT.name)])
    return builder.add_revoked_certificate(entry.add_extension(names, critical=True).build())


def _critical(builder: Builder) -> Builder:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.25.1"), b"\x05\x00")
    return builder.add_extension(unknown, critical=True)


@pytest.mark.parametrize("change", [_delta, _quiet_delta, _of_a_part, _indirect, _critical])
def test_lists_that_are_not_whole(change: Callable[[Builder], Builder]) -> None:
    """A delta, which openssl would take for a whole list, one of a part, of others, or with what is unknown."""
    _refused(_signed(_builder(_ROOT), _ROOT) + _signed(change(_builder(_TOWN)), _TOWN), "malformed")


@pytest.mark.parametrize("digest", [hashes.SHA224(), hashes.SHA3_256()])
def test_algorithm(digest: hashes.SHA224 | hashes.SHA3_256) -> None:
    """Lists are signed with SHA-2 of 256 bits or more."""
    made = _builder(_TOWN).sign(_TOWN.key, digest).public_bytes(Encoding.DER)
    with pytest.raises(DerError, match="algorithm"):
        read_list(made)


def test_authorities_of_a_bundle() -> None:
    """Roots and issuers, each held to its root; an end's certificate, a stranger or none at all are none."""
    assert set(_KNOWN.files()) == {TRUST, ISSUERS}
    assert Authorities.read(_KNOWN.files()) == _KNOWN
    key, other = new_key(), authority("elsewhere").subordinate("town", NOW)
    leaf = _TOWN.leaf("x", ("urn:x", "x.internal"), key.public_key(), Span.of(NOW, DAY))
    short = _ROOT.subordinate("short", NOW - 9 * DAY, life=DAY)
    for content in (
        b"",
        b"nonsense",
        pem(leaf),
        *(pem(_ROOT.certificate) + pem(each.certificate) for each in (other, short)),
    ):
        with pytest.raises(Refused) as refused:
            Authorities.of(content, NOW)
        assert refused.value.code in {Code.FALSE_AUTHORITY, Code.NO_AUTHORITIES}
    for files in ({}, {TRUST: _KNOWN.issuers}, {TRUST: _KNOWN.trust, ISSUERS: _KNOWN.trust}):
        with pytest.raises(Refused):
            Authorities.read(files)
