"""What a bundle is refused for, each reason with a code of its own, and what it is not."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance_image.bundle import Bundle, Code, Held, Refused, Trust, cms, read_bytes
from appliance_image.bundle.archive import write
from appliance_image.signing.key import SigningKey
from netpolicy.pki.authority import Authority, Span
from tests.bundle.making import (
    DAY,
    MANAGER,
    NOW,
    ONE,
    TWO,
    Site,
    authority,
    consistent,
    pem,
    person,
    raw_signature,
    rewritten,
    with_file,
    with_signatures,
)

_HOUR = timedelta(hours=1)


def _refused(site: Site, bundle: Bundle, code: Code, **demanded: object) -> str:
    with pytest.raises(Refused) as refused:
        site.verify(bundle, **demanded)  # type: ignore[arg-type]
    assert refused.value.code == code
    return refused.value.text


def test_one_operator(site: Site) -> None:
    """A bundle that one operator has signed is accepted where one is needed, and who it was is known."""
    verified = site.verify(site.signed(ONE, [site.person("sato")]))
    assert [each.person for each in verified.operators] == [f"{MANAGER}-sato"]
    assert verified.others == ()
    assert verified.manifest.firewall == ONE


def test_two_operators(site: Site) -> None:
    """One that two have signed is accepted where two are needed, and where one is."""
    bundle = site.signed(TWO, [site.person("sato"), site.person("suzuki")])
    for demanded in (1, 2):
        assert len(site.verify(bundle, signatures=demanded).operators) == 2


def test_unsigned(site: Site) -> None:
    """A bundle without signatures is refused, be the file of them missing or empty of them."""
    bundle = site.order(ONE)
    _refused(site, bundle, Code.UNSIGNED)
    _refused(site, with_signatures(bundle, []), Code.UNSIGNED)


def test_operator_of_another_manager(site: Site) -> None:
    """Somebody whom another authority has certified cannot sign, and the text names them and it."""
    stranger = person(authority("operators of shinagawa-it"), "tanaka")
    bundle = site.order(ONE)
    text = _refused(site, with_signatures(bundle, [raw_signature(bundle, stranger)]), Code.WRONG_OPERATOR)
    assert "tanaka" in text
    assert "shinagawa-it" in text


def test_authority_of_the_same_name(site: Site) -> None:
    """An authority that calls itself like the manager's is another one."""
    forged = person(authority(), "sato")
    bundle = site.order(ONE)
    _refused(site, with_signatures(bundle, [raw_signature(bundle, forged)]), Code.WRONG_OPERATOR)


def test_stranger_beside_an_operator_does_not_count(site: Site) -> None:
    """Where an operator has signed as well, a stranger's signature does no harm, and does not count."""
    bundle = site.signed(ONE, [site.person("sato")])
    stranger = person(authority("others"), "tanaka")
    joined = with_signatures(bundle, [*cms.split(bundle.cms or b""), raw_signature(bundle, stranger)])
    verified = site.verify(joined)
    assert [each.person for each in verified.others] == [f"{MANAGER}-tanaka"]
    _refused(site, joined, Code.TOO_FEW_OPERATORS, signatures=2)


def test_one_operator_where_two_are_needed(site: Site) -> None:
    """Whether the firewall demands two or the bundle itself does, one is too few."""
    sato = site.person("sato")
    text = _refused(site, site.signed(TWO, [sato]), Code.TOO_FEW_OPERATORS)
    assert "2 different operators" in text
    assert "sato" in text
    _refused(site, site.signed(ONE, [sato]), Code.TOO_FEW_OPERATORS, signatures=2)


def test_one_person_counts_once(site: Site) -> None:
    """Two certificates of a person are one operator, with two keys or with one; so are two persons with one key."""
    bundle = site.order(TWO)
    sato, again = site.person("sato"), site.person("sato")
    shared = replace(
        sato,
        certificate=site.operators.operator(
            "suzuki",
            "suzuki",
            sato.private.public_key(),
            Span.of(NOW, 365 * DAY),
        ),
    )
    for other in (again, shared):
        both = with_signatures(bundle, [raw_signature(bundle, sato), raw_signature(bundle, other)])
        _refused(site, both, Code.TOO_FEW_OPERATORS)


def test_other_firewall(site: Site) -> None:
    """Another firewall's bundle is refused, though the same operators sign for both."""
    text = _refused(site, site.signed(ONE, [site.person("sato")]), Code.OTHER_FIREWALL, firewall="pension-fw")
    assert ONE in text
    assert "pension-fw" in text


def test_other_network(site: Site) -> None:
    """A bundle of a network that calls a firewall alike is refused."""
    _refused(site, site.signed(ONE, [site.person("sato")]), Code.OTHER_NETWORK, network="rehearsal")


def test_other_manager(site: Site) -> None:
    """A bundle that names another manager than the firewall has is refused, whoever signed it."""
    (site.trust.directory / "shinagawa-it.pem").write_bytes(pem(site.operators.certificate))
    _refused(site, site.signed(ONE, [site.person("sato")]), Code.OTHER_MANAGER, managed_by="shinagawa-it")


def test_no_trust(site: Site) -> None:
    """Without the manager's authority nobody is believed, and a file that holds something else is none."""
    bundle = site.signed(ONE, [site.person("sato")])
    _refused(site, bundle, Code.NO_TRUST, managed_by="shinagawa-it")
    path = site.trust.directory / f"{MANAGER}.pem"
    for content in (b"", b"something else\n", pem(site.person("sato").certificate)):
        path.write_bytes(content)
        _refused(site, bundle, Code.NO_TRUST)


def test_serial(site: Site) -> None:
    """A serial never goes back; the same one is only taken for the very bundle that had it."""
    sato = site.person("sato")
    bundle = site.signed(ONE, [sato], 7)
    site.verify(bundle, after_serial=6)
    text = _refused(site, bundle, Code.OLDER_SERIAL, after_serial=8)
    assert "7" in text
    assert "8" in text
    _refused(site, bundle, Code.SAME_SERIAL, after_serial=7)
    site.verify(bundle, after_serial=7, known=[bundle.sha256])
    _refused(
        site, site.signed(ONE, [site.person("suzuki")], 7), Code.SAME_SERIAL, after_serial=7, known=[bundle.sha256]
    )
    # The one to roll back to is known as well.
    site.verify(bundle, after_serial=8, known=[bundle.sha256])


def test_time(site: Site) -> None:
    """A bundle is taken from its first second until its last."""
    bundle = site.signed(ONE, [site.person("sato")], crl=site.crl(life=400 * DAY))
    begin, end = bundle.manifest.not_before, bundle.manifest.not_after
    second = timedelta(seconds=1)
    site.verify(bundle, now=begin)
    site.verify(bundle, now=end - second)
    _refused(site, bundle, Code.NOT_YET_VALID, now=begin - second)
    _refused(site, bundle, Code.EXPIRED, now=end)
    _refused(site, bundle, Code.EXPIRED, now=end, known=[bundle.sha256])


def test_one_byte_changed_in_each_file(site: Site) -> None:
    """One bit of one byte of any file makes the bundle another one, whether or not the manifest is changed with it."""
    bundle = site.signed(ONE, [site.person("sato")])
    assert "nftables.nft" in bundle.files
    assert any(path.startswith("suricata/") for path in bundle.files)
    assert any(path.startswith("relay/") for path in bundle.files)
    for path, content in bundle.files.items():
        place = len(content) // 2
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :] if content else b"x"
        with pytest.raises(Refused) as refused:
            read_bytes(with_file(bundle, path, changed))
        assert refused.value.code == Code.ALTERED
        _refused(site, consistent(bundle, path, changed), Code.ALTERED)


def test_one_byte_changed_in_the_manifest(site: Site) -> None:
    """A manifest that says something else in any of its fields is not the one that was signed."""
    bundle = site.signed(ONE, [site.person("sato")])
    manifest = bundle.manifest
    step = manifest.apply[0]
    for changed in (
        replace(manifest, network="jukinex"),
        replace(manifest, topology_sha256="0" * 64),
        replace(manifest, firewall="tokyo-fx"),
        replace(manifest, managed_by="designated-agencx"),
        replace(manifest, signatures=2),
        replace(manifest, serial=8),
        replace(manifest, not_before=manifest.not_before - DAY),
        replace(manifest, not_after=manifest.not_after + DAY),
        replace(manifest, interfaces={**manifest.interfaces, "eth9": "02:00:00:00:00:09"}),
        replace(manifest, apply=(replace(step, command=("true",)), *manifest.apply[1:])),
    ):
        _refused(site, rewritten(bundle, changed), Code.ALTERED)


def test_another_revocation_list(site: Site) -> None:
    """The revocation list is part of what was signed."""
    bundle = site.signed(ONE, [site.person("sato")])
    crl = site.crl()
    with pytest.raises(Refused, match="altered"):
        read_bytes(write(bundle.manifest, bundle.cms, crl, bundle.files))
    manifest = replace(bundle.manifest, crl=Held.of(crl))
    changed = read_bytes(write(manifest, bundle.cms, crl, bundle.files))
    _refused(site, changed, Code.ALTERED)


def test_signature_of_another_bundle(site: Site) -> None:
    """A signature does not fit another manifest."""
    sato = site.person("sato")
    other = site.signed(ONE, [sato], 8)
    bundle = site.order(ONE, 7)
    _refused(site, rewritten(bundle, bundle.manifest, cms=other.cms), Code.ALTERED)


def test_revoked(site: Site) -> None:
    """A revoked card signs nothing, whether the list that says so came with the bundle or was there before."""
    sato = site.person("sato")
    before = site.signed(ONE, [sato])
    old = site.crl()
    site.operators.revoked.append(sato.certificate.serial_number)
    new = site.crl()
    bundle = site.order(ONE, crl=new)
    text = _refused(site, with_signatures(bundle, [raw_signature(bundle, sato)]), Code.REVOKED)
    assert "sato" in text
    # An older list does not help, once the new one has been seen: not for a new bundle, and not for one that ran.
    bundle = site.order(ONE, crl=old)
    _refused(site, with_signatures(bundle, [raw_signature(bundle, sato)]), Code.OLDER_CRL, crl=new)
    _refused(site, before, Code.REVOKED, crl=new, known=[before.sha256])


def test_revoked_operator_spoils_the_bundle(site: Site) -> None:
    """A revoked operator's signature beside a good one is no matter to be passed over."""
    sato, suzuki = site.person("sato"), site.person("suzuki")
    site.operators.revoked.append(sato.certificate.serial_number)
    bundle = site.order(ONE)
    both = with_signatures(bundle, [raw_signature(bundle, sato), raw_signature(bundle, suzuki)])
    _refused(site, both, Code.REVOKED)


def test_newest_revocation_list_is_kept(site: Site) -> None:
    """What is to be stored is the newest list of each authority."""
    first = site.crl()
    bundle = site.signed(ONE, [site.person("sato")], crl=first)
    assert site.verify(bundle).crl.split() == first.split()
    second = site.crl()
    assert site.verify(bundle, crl=second, known=[bundle.sha256]).crl.split() == second.split()
    other = authority("others").crl(NOW).public_bytes(Encoding.PEM)
    kept = site.verify(bundle, crl=other).crl
    assert set(kept.split(b"-----")) == set((first + other).split(b"-----"))


def test_revocation_list_missing_stale_or_false(site: Site) -> None:
    """A new bundle brings a list of the signer's authority, by that authority, whose time is not over."""
    sato = site.person("sato")

    def with_list(crl: bytes) -> Bundle:
        bundle = site.order(ONE, crl=crl)
        return with_signatures(bundle, [raw_signature(bundle, sato)])

    _refused(site, with_list(b""), Code.NO_CRL)
    _refused(site, with_list(b""), Code.NO_CRL, crl=site.crl())
    _refused(site, with_list(authority("others").crl(NOW).public_bytes(Encoding.PEM)), Code.NO_CRL)
    _refused(site, with_list(site.crl(NOW + _HOUR)), Code.STALE_CRL)
    _refused(site, with_list(site.crl(life=DAY)), Code.STALE_CRL, now=NOW + 2 * DAY)
    _refused(site, with_list(authority().crl(NOW).public_bytes(Encoding.PEM)), Code.FALSE_CRL)
    _refused(site, with_list(b"something else\n"), Code.FALSE_CRL)


def test_bundle_that_runs_outlives_its_revocation_list(site: Site) -> None:
    """A firewall that starts again takes the bundle that it had, though no new list has reached it."""
    bundle = site.signed(ONE, [site.person("sato")], crl=site.crl(life=DAY))
    _refused(site, bundle, Code.STALE_CRL, now=NOW + 30 * DAY)
    site.verify(bundle, now=NOW + 30 * DAY, after_serial=7, known=[bundle.sha256])


def test_signer_out_of_time(site: Site) -> None:
    """The certificate of an operator must be valid now, and its authority's too."""
    bundle = site.signed(ONE, [site.person("sato")], crl=site.crl(life=3000 * DAY))
    short = site.person("suzuki", until=DAY)
    late = with_signatures(bundle, [raw_signature(bundle, short)])
    site.verify(late)
    _refused(site, late, Code.SIGNER_EXPIRED, now=NOW + 2 * DAY)
    _refused(site, bundle, Code.SIGNER_EXPIRED, now=NOW + 2500 * DAY)


def test_certificates_for_something_else(site: Site) -> None:
    """The manager's authority certifies more than operators: only those that it means to sign bundles can."""
    bundle = site.order(ONE)
    ends = site.operators
    key = site.person("sato").private
    leaf = ends.leaf("sato", ("urn:x", "x.internal"), key.public_key(), Span.of(NOW, DAY))  # type: ignore[arg-type]
    for other in (
        person(ends, "sato", purpose=ExtendedKeyUsageOID.CODE_SIGNING.dotted_string),
        person(ends, "sato", purpose=ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE.dotted_string),
        SigningKey(key, leaf, "memory"),
        SigningKey(ends.key, ends.certificate, "memory"),
    ):
        _refused(site, with_signatures(bundle, [raw_signature(bundle, other)]), Code.WRONG_PURPOSE)


def test_operator_without_a_number(site: Site) -> None:
    """A certificate that does not tell its person from others cannot be counted."""
    bundle = site.order(ONE)
    nobody = site.person("sato", number="")
    _refused(site, with_signatures(bundle, [raw_signature(bundle, nobody)]), Code.WRONG_PURPOSE)


def test_authority_below_the_trusted_one(site: Site) -> None:
    """What a trusted authority certified is no authority unless it is trusted itself; a root is not needed then."""
    below = site.operators.subordinate("below", NOW, life=900 * DAY)
    bundle = site.order(ONE, crl=below.crl(NOW).public_bytes(Encoding.PEM))
    signed = with_signatures(bundle, [raw_signature(bundle, person(below, "sato"))])
    _refused(site, signed, Code.WRONG_OPERATOR)
    (site.trust.directory / f"{MANAGER}.pem").write_bytes(pem(below.certificate))
    assert len(site.verify(signed).operators) == 1


def test_two_authorities_of_a_manager(site: Site) -> None:
    """While a manager changes its authority, operators of both count, each held against its own list."""
    new = authority("operators, second")
    path = site.trust.directory / f"{MANAGER}.pem"
    path.write_bytes(path.read_bytes() + pem(new.certificate))
    bundle = site.order(TWO, crl=site.crl() + new.crl(NOW).public_bytes(Encoding.PEM))
    both = [raw_signature(bundle, site.person("sato")), raw_signature(bundle, person(new, "suzuki"))]
    assert len(site.verify(with_signatures(bundle, both)).operators) == 2


def test_trust_is_read_from_its_directory_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither openssl's configuration nor its store of authorities adds any."""
    stranger: Authority = authority("others")
    store = site.trust.directory.parent / "store.pem"
    store.write_bytes(pem(stranger.certificate))
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF"):
        monkeypatch.setenv(name, str(store))
    bundle = site.order(ONE)
    signed = with_signatures(bundle, [raw_signature(bundle, person(stranger, "sato"))])
    _refused(Site(site.operators, Trust(site.trust.directory), site.build), signed, Code.WRONG_OPERATOR)
