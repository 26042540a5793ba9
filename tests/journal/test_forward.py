"""Records reach the managing site whole, in order, and again after whatever happened in between."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from appliance_image.journal import Journal, JournalError, examine, verify
from appliance_image.journal.channel import Credentials
from appliance_image.journal.forward import Collector, DivergedError, connected, forwarded
from appliance_image.journal.read import records
from appliance_image.journal.receive import Receiver
from appliance_image.journal.record import MalformedError, make
from appliance_image.journal.replica import Replica
from appliance_image.journal.segments import segments
from appliance_image.journal.syslog import frame, message, record_of
from netpolicy.cli import main
from netpolicy.pki.authority import Authority, Span, new_key
from tests.journal.conftest import Keys, make_keys, steady

FIREWALL, SITE = "tokyo-fw", "collector.test"


def _list(authority: Authority, life: timedelta = timedelta(days=1)) -> bytes:
    """Return an authority's current revocation list."""
    authority._crl_time = None
    return authority.crl(datetime.now(UTC), life=life).public_bytes(Encoding.PEM)


def _credentials(directory: Path, authority: Authority, name: str, trusted: Authority | None = None) -> Credentials:
    now, key = datetime.now(UTC), new_key()
    certificate = authority.leaf(name, (f"urn:{name}", name), key.public_key(), Span.of(now, timedelta(days=1)))
    made = Credentials(
        directory / f"{name}.pem",
        directory / f"{name}.key",
        directory / f"{name}.authorities",
        directory / f"{name}.crl",
    )
    made.lists.write_bytes(_list(trusted or authority))
    made.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    made.authorities.write_bytes((trusted or authority).certificate.public_bytes(Encoding.PEM))
    return made


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Return who certifies both ends."""
    return Authority.root("test", datetime.now(UTC))


@pytest.fixture(scope="module")
def ends(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[Credentials, Credentials]:
    """Return the credentials of a firewall and of the collector."""
    directory = tmp_path_factory.mktemp("ends")
    return _credentials(directory, authority, FIREWALL), _credentials(directory, authority, SITE)


@contextmanager
def _receiving(directory: Path, ends: tuple[Credentials, Credentials], key: Keys | None = None) -> Iterator[Collector]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        keys = {} if key is None else {FIREWALL: key.public.read_bytes()}
        receiver = Receiver(directory, listener, ends[1], keys=keys)
        thread = Thread(target=receiver.serve)
        thread.start()
        try:
            yield Collector("127.0.0.1", listener.getsockname()[1], SITE, ends[0])
        finally:
            receiver.stop()
            thread.join()


def _send(journal: Path, collector: Collector) -> int:
    with connected(journal, collector, FIREWALL) as sender:
        return sender.send()


def test_all_arrives(sealed: Path, tmp_path: Path, keys: Keys, ends: tuple[Credentials, Credentials]) -> None:
    """What the collector stores is a journal with the same records, and verifies against the same key and head."""
    journal = shutil.copytree(sealed, tmp_path / "journal")
    with _receiving(tmp_path / "site", ends, keys) as collector:
        head = examine(journal).head
        assert head is not None
        assert _send(journal, collector) == head.seq
        assert forwarded(journal) == head
        assert _send(journal, collector) == 0
    site = tmp_path / "site" / FIREWALL
    assert list(records(site)) == list(records(journal))
    assert verify(site, keys.public, head) is None


class _Cut:
    """A way to the collector that breaks after so many octets."""

    def __init__(self, port: int, octets: int) -> None:
        self._target, self._octets = port, octets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        near, _ = self._listener.accept()
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            back = Thread(target=self._copy, args=(far, near))
            back.start()
            left = self._octets
            while left > 0 and (data := near.recv(min(left, 4096))):
                far.sendall(data)
                left -= len(data)
            for end in (near, far):
                end.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(4096):
                target.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize("octets", [100, 3000, 20_000, 77_777, 150_000, 300_001])
def test_goes_on_after_a_cut(octets: int, copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """A connection that breaks anywhere leaves no gap and nothing twice."""
    with _receiving(tmp_path / "site", ends) as collector:
        cut = _Cut(collector.port, octets)
        with pytest.raises(OSError, match=r"."):
            _send(copy, Collector("127.0.0.1", cut.port, SITE, ends[0]))
        cut.close()
        _send(copy, collector)
    site = tmp_path / "site" / FIREWALL
    assert list(records(site)) == list(records(copy))
    assert verify(site) is None


def test_command(copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """The command line sends what there is, ends with 1 where the site has other records, and with 3 without a site."""
    with _receiving(tmp_path / "site", ends) as collector:
        arguments = ["journal", "forward", str(copy), "--to", f"127.0.0.1:{collector.port}", "--name", SITE]
        for option in ("certificate", "key", "authorities"):
            arguments += [f"--{option}", str(getattr(ends[0], option))]
        arguments += ["--crl", str(ends[0].lists)]
        assert main(arguments) == 0
        assert main(arguments) == 0
        shutil.rmtree(copy)
        Journal.open(copy)
        assert main(arguments) == 1
    assert main(arguments) == 3


def test_new_records_follow(tmp_path: Path, keys: Keys, ends: tuple[Credentials, Credentials]) -> None:
    """An open connection takes what was recorded since."""
    journal = Journal.open(tmp_path / "journal", key=keys.private, clock=steady())
    with (
        _receiving(tmp_path / "site", ends, keys) as collector,
        connected(journal.directory, collector, FIREWALL) as sender,
    ):
        assert sender.send() == 2
        journal.append("apply")
        assert sender.send() == 2
        assert sender.position == 4


def test_torn_at_the_collector(copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """A power cut at the collector costs nothing: what it had not acknowledged comes again."""
    with _receiving(tmp_path / "site", ends) as collector:
        _send(copy, collector)
        site = tmp_path / "site" / FIREWALL
        lines = segments(site)[-1].read_bytes().splitlines(keepends=True)
        segments(site)[-1].write_bytes(b"".join(lines[:-1]) + lines[-1][:50])
        previous = list(records(site))[-1]
        (site / "head").write_text(f"{previous.seq}:{previous.hash}")
        assert _send(copy, collector) == 1
    assert verify(site) is None
    assert [path.read_bytes() for path in (site / "torn").iterdir()] == [lines[-1][:50]]


def test_recovered_journal_at_the_collector(tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """Torn ends stay on the host; their record verifies at the site as well."""
    journal = tmp_path / "journal"
    Journal.open(journal, clock=steady())
    with (journal / "000001.jsonl").open("ab") as stream:
        stream.write(b'{"seq":2,"ti')
    Journal.open(journal, clock=steady()).append("boot")
    with _receiving(tmp_path / "site", ends) as collector:
        assert _send(journal, collector) == 3
    assert verify(tmp_path / "site" / FIREWALL) is None


def test_rewritten_journal_is_noticed(copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """A host whose journal was begun anew is refused: the site has the old one."""
    with _receiving(tmp_path / "site", ends) as collector:
        _send(copy, collector)
        shutil.rmtree(copy)
        Journal.open(copy).append("apply")
        with pytest.raises(DivergedError, match=r"which is not in"):
            _send(copy, collector)


def test_truncated_journal_goes_on(copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """What a host lost and the site has does not end forwarding, for the host goes on with the next number."""
    with _receiving(tmp_path / "site", ends) as collector:
        _send(copy, collector)
        last = segments(copy)[-1]
        last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-3]))
        Journal.open(copy, clock=steady())
        assert _send(copy, collector) == 1
    assert verify(tmp_path / "site" / FIREWALL) is None
    assert verify(copy) is not None


def test_altered_record_is_not_sent(copy: Path, tmp_path: Path, ends: tuple[Credentials, Credentials]) -> None:
    """A host does not send a record that was edited."""
    segment = segments(copy)[0]
    segment.write_bytes(segment.read_bytes().replace(b'"number":7,', b'"number":8,', 1))
    with (
        _receiving(tmp_path / "site", ends) as collector,
        pytest.raises(JournalError, match=r"000001\.jsonl:\d+: altered"),
    ):
        _send(copy, collector)


def test_checkpoint_of_another_key(tmp_path: Path, keys: Keys, ends: tuple[Credentials, Credentials]) -> None:
    """The collector takes no checkpoint that the firewall's key did not sign."""
    other = make_keys(tmp_path, "other")
    Journal.open(tmp_path / "journal", key=other.private)
    with (
        _receiving(tmp_path / "site", ends, keys) as collector,
        pytest.raises(DivergedError, match="checkpoint 2 is not signed"),
    ):
        _send(tmp_path / "journal", collector)


def test_replica_refuses(tmp_path: Path) -> None:
    """A record that leaves a gap, follows another, or is another than before is refused; the same again is not."""
    replica, now = Replica(tmp_path / "replica", None), datetime.now(UTC)
    first = make(1, now, "journal-begin", {}, "0" * 64)
    replica.take(first)
    replica.take(first)
    for wrong, said in (
        (make(3, now, "boot", {}, first.hash), "comes where record 2 belongs"),
        (make(2, now, "boot", {}, "1" * 64), "does not follow"),
        (make(1, now, "journal-begin", {"host": "x"}, "0" * 64), "another one than"),
    ):
        with pytest.raises(JournalError, match=said):
            replica.take(wrong)
    assert replica.head().seq == 1


def test_both_ends_are_authenticated(
    copy: Path, tmp_path: Path, authority: Authority, ends: tuple[Credentials, Credentials]
) -> None:
    """Neither end talks to one that a stranger certified, and a collector must have the right name."""
    stranger = Authority.root("other", datetime.now(UTC))
    (tmp_path / "other").mkdir()
    foreign = _credentials(tmp_path / "other", stranger, FIREWALL, trusted=authority)
    distrusting = replace(ends[0], authorities=tmp_path / "stranger.pem")
    distrusting.authorities.write_bytes(stranger.certificate.public_bytes(Encoding.PEM))
    with _receiving(tmp_path / "site", ends) as collector:
        with pytest.raises(OSError, match=r"."):
            _send(copy, Collector(collector.host, collector.port, SITE, foreign))
        with pytest.raises(ssl.SSLCertVerificationError):
            _send(copy, Collector(collector.host, collector.port, SITE, distrusting))
        with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for|mismatch"):
            _send(copy, Collector(collector.host, collector.port, "other.test", ends[0]))
    assert not (tmp_path / "site").exists()


def test_revocation(tmp_path: Path, keys: Keys) -> None:
    """A revoked host is let in no more, and its connection takes no record more; lists that are over let nobody in."""
    authority = Authority.root("test", datetime.now(UTC))
    ends = _credentials(tmp_path, authority, FIREWALL), _credentials(tmp_path, authority, SITE)
    journal = Journal.open(tmp_path / "journal", key=keys.private, clock=steady())
    with _receiving(tmp_path / "site", ends, keys) as collector:
        with connected(journal.directory, collector, FIREWALL) as sender:
            assert sender.send() == 2
            certificate = x509.load_pem_x509_certificate(ends[0].certificate.read_bytes())
            authority.revoked.append(certificate.serial_number)
            ends[1].lists.write_bytes(_list(authority))
            journal.append("apply")
            with pytest.raises(OSError, match=r"ended|reset|EOF|closed"):
                sender.send()
        with pytest.raises(OSError, match=r"."):
            _send(journal.directory, collector)
        authority.revoked.clear()
        for life, taken in ((timedelta(seconds=-1), False), (timedelta(days=1), True)):
            ends[1].lists.write_bytes(_list(authority, life))
            if taken:
                assert _send(journal.directory, collector) == 2
            else:
                with pytest.raises(OSError, match=r"."):
                    _send(journal.directory, collector)
        # The sender holds the collector to its own lists in turn.
        authority.revoked.append(x509.load_pem_x509_certificate(ends[1].certificate.read_bytes()).serial_number)
        ends[0].lists.write_bytes(_list(authority))
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            _send(journal.directory, collector)


def test_message() -> None:
    """A record is one message with facility 'log audit', its time, its event and its number, and comes back whole."""
    record = make(7, datetime(2026, 4, 1, tzinfo=UTC), "refused", {"reason": "期限切れ"}, "0" * 64)
    sent = message(record, "tokyo fw")
    assert sent.startswith(
        b'<108>1 2026-04-01T00:00:00.000000Z tokyofw netpolicy - refused [meta sequenceId="7"] \xef\xbb\xbf{"seq":7,'
    )
    assert frame(sent).startswith(b"%d <108>1 " % len(sent))
    assert record_of(sent) == record
    for wrong in (sent.replace(b'Id="7"', b'Id="8"'), sent.replace(b"- refused", b"- applied"), b"<1>1 x", b""):
        with pytest.raises(MalformedError):
            record_of(wrong)
