"""An authority in files: what it issues is what engines, relays and OpenSSL take, and what it revokes is not."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from netpolicy.cli import main
from netpolicy.pki.due import CERTIFICATE_WARNING
from netpolicy.pki.store import CRL_LIFE, LEAF_LIFE, PkiError, Store
from netpolicy.topology.certificates import read_certificates
from netpolicy.topology.ends import End
from tests.lab.small import small_topology

_NOW = datetime.now(UTC).replace(microsecond=0)
_EXAMPLE = Path(__file__).parents[2] / "topology.yaml"


@pytest.fixture(name="store")
def _store(tmp_path: Path) -> Store:
    """Return an authority that has issued to everybody."""
    topology = small_topology("pki")
    store = Store.init(tmp_path / "pki", topology, _NOW)
    ends: list[End] = [*topology.nodes.values(), *topology.firewalls.values()]
    for end in ends:
        store.issue(end, _NOW)
    store.save(_NOW)
    return store


def _verified(store: Store, end: str) -> str:
    """Return what OpenSSL says to an end's certificate."""
    own = store.directory / "ends" / end
    argv = ["openssl", "verify", "-x509_strict", "-crl_check_all", "-purpose", "sslclient"]
    argv += ["-CAfile", str(own / "trust.pem"), "-CRLfile", str(own / "crl.pem"), "-untrusted", str(own / "chain.pem")]
    done = subprocess.run([*argv, str(own / "chain.pem")], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout + done.stderr


def test_what_is_issued_is_taken(store: Store) -> None:
    """Every end's chain is valid, with its two names, and can be pinned."""
    for end in (*store.topology.nodes, *store.topology.firewalls):
        assert _verified(store, end).endswith(": OK\n")
    leaf = x509.load_pem_x509_certificates((store.directory / "ends/alpha/chain.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:netpolicy:pki:town-server:alpha"]
    assert names.get_values_for_type(x509.DNSName) == ["alpha.pki.internal"]
    pinned = read_certificates(store.directory / "certificates.csv", store.topology)
    assert set(pinned) == {*store.topology.nodes, *store.topology.firewalls}


def test_what_is_revoked_is_not(store: Store) -> None:
    """The lists of all ends say so at once, with a higher number, and nobody pins it any more."""
    number = _crl_number(store, "local")
    store.revoke("alpha", _NOW)
    store.save(_NOW)
    assert "certificate revoked" in _verified(store, "alpha")
    assert _verified(store, "beta").endswith(": OK\n")
    assert _crl_number(store, "local") == number + 1
    assert "alpha" not in read_certificates(store.directory / "certificates.csv", store.topology)
    again = Store.open(store.directory, store.topology)
    assert again.issued == store.issued
    assert again.without(_NOW) == ["alpha"]
    with pytest.raises(PkiError, match="'alpha' has no valid certificate"):
        again.revoke("alpha", _NOW)


def _crl_number(store: Store, issuer: str) -> int:
    found = x509.load_pem_x509_crl((store.directory / "issuers" / issuer / "crl.pem").read_bytes())
    return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_renewal_leaves_the_old_certificate_valid(store: Store) -> None:
    """For the change-over both are pinned; revoking by serial number takes one only."""
    old = next(each for each in store.issued if each.end == "gamma")
    new = store.issue(store.topology.nodes["gamma"], _NOW)
    store.save(_NOW)
    assert read_certificates(store.directory / "certificates.csv", store.topology)["gamma"] == tuple(
        sorted((old.sha1, new.sha1))
    )
    assert store.revoke("gamma", _NOW, old.serial) == [old]
    assert [each for each in store.valid(_NOW) if each.end == "gamma"] == [new]


def test_it_warns_well_before(store: Store) -> None:
    """Of leaves, lists and authorities; and of nothing while all is well."""
    assert list(store.status(_NOW)) == []
    later = _NOW + LEAF_LIFE - CERTIFICATE_WARNING + timedelta(minutes=1)
    assert set(store.due(later)) == {*store.topology.nodes, *store.topology.firewalls}
    due = list(store.status(_NOW + CRL_LIFE - timedelta(days=1)))
    assert len(due) == len(list((store.directory / "issuers").iterdir()))
    assert all("revocation list" in each for each in due)
    store.publish(_NOW + CRL_LIFE - timedelta(days=1))
    assert list(store.status(_NOW + CRL_LIFE - timedelta(days=1))) == []


def test_the_root_key_is_not_needed_after_init(store: Store) -> None:
    """It can be off the machine: issuing, revoking and lists go on; an issuer without its key says so."""
    (store.directory / "root/key.pem").unlink()
    store.issue(store.topology.nodes["alpha"], _NOW)
    store.publish(_NOW)
    (store.directory / "issuers/central/key.pem").unlink()
    with pytest.raises(PkiError, match="the key of 'central' is not here"):
        store.issue(store.topology.nodes["gamma"], _NOW)


def test_an_issuer_signs_nothing_that_outlives_it(store: Store) -> None:
    """A chain that breaks in the middle would break without a warning."""
    with pytest.raises(PkiError, match="renew it first"):
        store.issue(store.topology.nodes["alpha"], _NOW + timedelta(days=365 * 3 - 30))


def test_private_keys_are_private(store: Store) -> None:
    """0600 each, below a directory that nobody else enters."""
    keys = list(store.directory.rglob("key.pem"))
    assert len(keys) >= 8
    assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700


def test_a_store_of_another_network_or_none_is_refused(store: Store, tmp_path: Path) -> None:
    """Nothing is issued by mistake, and nothing is overwritten."""
    with pytest.raises(PkiError, match="is of network 'pki'"):
        Store.open(store.directory, small_topology("other"))
    with pytest.raises(PkiError, match="is no authority"):
        Store.open(tmp_path / "nowhere", store.topology)
    with pytest.raises(PkiError, match="is not empty"):
        Store.init(store.directory, store.topology, _NOW)
    (store.directory / "issued.csv").write_text("serial,end\nx,y\n")
    with pytest.raises(PkiError, match="is damaged"):
        Store.open(store.directory, store.topology)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Init, issue, status, revoke and renew, with their exit codes."""
    place = str(tmp_path / "pki")

    def run(command: str, *ends: str) -> int:
        return main(["pki", command, str(_EXAMPLE), place, *ends])

    assert run("status") == 2
    assert run("init") == 0
    assert run("status") == 1
    assert run("issue") == 0
    assert run("issue", "tokyo-fx") == 2
    assert "did you mean 'tokyo-fw'?" in capsys.readouterr().err
    assert run("status") == 0
    assert run("revoke", "tokyo-fw") == 0
    assert run("status") == 1
    assert "tokyo-fw: no valid certificate" in capsys.readouterr().out
    assert run("renew", "tokyo-fw") == 0
    assert run("crl") == 0
    assert run("status") == 0
    assert run("init") == 2
