"""``netpolicy bundle`` and ``netpolicy operators``, as operators use them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance_image.bundle import Code, read
from appliance_image.journal import verify as verify_journal
from netpolicy.cli import main
from netpolicy.topology.load import load_topology
from tests.bundle.conftest import ROOT
from tests.bundle.making import MANAGER, MODULE, ONE, PIN, TWO, authority, make_token, pem

TOPOLOGY = ROOT / "topology.yaml"
_EVENTS = {"sign", "verify", "refused", "unlock-token"}


@dataclass
class Office:
    """Operators with cards, and what they are asked to sign."""

    directory: Path
    build: Path
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: object) -> tuple[int, str]:
        """Run a command and return its exit code and all that it printed."""
        code = main([str(word) for word in words])
        printed = self.capsys.readouterr()
        assert PIN not in printed.out + printed.err
        return code, printed.err + printed.out

    def hire(self, name: str, manager: str = MANAGER) -> None:
        """Give somebody a card."""
        make_token(self.directory, name)
        code, _ = self.run(
            "operators", "issue", self.authority, manager, f"{manager}-{name}", "--name", name, *self.card(name)
        )
        assert code == 0

    @property
    def ends(self) -> Path:
        """Return the file with the authorities of nodes and firewalls."""
        path = self.directory / "ends.pem"
        path.write_bytes(pem(authority("ends").certificate))
        return path

    @property
    def authority(self) -> Path:
        """Where the authorities are."""
        return self.directory / "operators"

    def card(self, name: str, pin: str = PIN) -> list[object]:
        """Return the options of somebody's card."""
        path = self.directory / f"{name}.pin"
        path.write_text(f"{pin}\n")
        path.chmod(0o600)
        counts = ("--pin-counts", self.directory / "counts")
        return ["--module", MODULE, "--token", name, "--pin-file", path, *counts]

    def sign(self, firewall: str, name: str, *more: object, pin: str = PIN, serial: int = 1) -> tuple[int, str]:
        """Make a bundle of the build and sign it."""
        crl = self.authority / MANAGER / "crl.pem"
        words = ("bundle", "sign", self.build, firewall, "--serial", serial, "--crl", crl, "--authorities", self.ends)
        return self.run(*words, "--valid-days", 30, "--trust", self.authority / "trust", *self.card(name, pin), *more)

    def sign_more(self, bundle: Path, name: str, *more: object) -> tuple[int, str]:
        """Add a signature to a bundle."""
        return self.run("bundle", "sign", bundle, "--trust", self.authority / "trust", *self.card(name), *more)

    def verify(self, bundle: Path, *more: object) -> tuple[int, str]:
        """Verify a bundle."""
        return self.run("bundle", "verify", bundle, "--trust", self.authority / "trust", *more)

    def names(self) -> set[str]:
        """Return what is in the directory that bundles are written to."""
        return {path.name for path in Path.cwd().iterdir()}


@pytest.fixture
def office(
    build: Path,
    softhsm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Office:
    """Return an office with authorities for all managers, and one operator."""
    found = Office(softhsm, build, capsys)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    code, said = found.run("operators", "init", found.authority, TOPOLOGY)
    assert code == 0
    assert "--trust" in said
    found.hire("sato")
    return found


def test_two_operators_sign_one_after_the_other(office: Office) -> None:
    """One makes and signs, the other looks and signs, and the firewall takes it: the way of a centre's firewall."""
    office.hire("suzuki")
    code, said = office.sign(TWO, "sato")
    assert code == 0
    assert "1 more must sign it" in said
    bundle = Path(f"{TWO}-1.bundle")
    code, said = office.verify(bundle)
    assert (code, f"refused ({Code.TOO_FEW_OPERATORS})" in said) == (1, True)
    code, said = office.sign_more(bundle, "suzuki")
    assert code == 0
    assert "signatures  1 of 2" in said
    assert "CN=sato" in said
    code, said = office.verify(bundle, "--topology", TOPOLOGY)
    assert code == 0
    assert "signatures  2 of 2" in said
    assert office.names() == {bundle.name}


def test_same_operator_twice(office: Office) -> None:
    """The same operator cannot be the second one, and the bundle stays what it was."""
    office.sign(TWO, "sato")
    bundle = Path(f"{TWO}-1.bundle")
    before = bundle.read_bytes()
    code, said = office.sign_more(bundle, "sato")
    assert (code, f"refused ({Code.SIGNED_ALREADY})" in said) == (1, True)
    assert bundle.read_bytes() == before


def test_operator_of_another_manager_cannot_sign(office: Office) -> None:
    """What would be refused by the firewall is refused to be signed, and nothing is written."""
    office.hire("tanaka", "shinagawa-it")
    code, said = office.sign(ONE, "tanaka")
    assert (code, f"refused ({Code.WRONG_OPERATOR})" in said) == (1, True)
    assert office.names() == set()


def test_revoked_operator_cannot_sign(office: Office) -> None:
    """A lost card is revoked; what it signed is refused from the next list on."""
    assert office.sign(ONE, "sato")[0] == 0
    before = Path(f"{ONE}-1.bundle")
    code, said = office.run("operators", "revoke", office.authority, MANAGER, f"{MANAGER}-sato")
    assert (code, "is revoked" in said) == (0, True)
    crl = office.authority / MANAGER / "crl.pem"
    code, said = office.sign(ONE, "sato", serial=2)
    assert (code, f"refused ({Code.REVOKED})" in said) == (1, True)
    code, said = office.verify(before, "--stored-crl", crl)
    assert (code, f"refused ({Code.OLDER_CRL})" in said) == (1, True)
    assert office.names() == {before.name}
    assert office.run("operators", "revoke", office.authority, MANAGER, f"{MANAGER}-sato")[0] == 2


def test_wrong_pin_locks_out(office: Office) -> None:
    """Three wrong PINs, and the card is not tried again before an administrator allows it."""
    journal = office.directory / "journal"
    for code in (Code.WRONG_PIN, Code.WRONG_PIN, Code.WRONG_PIN, Code.PIN_BLOCKED):
        exit_code, said = office.sign(ONE, "sato", "--journal", journal, pin="000000")
        assert (exit_code, f"refused ({code})" in said) == (1, True)
    exit_code, said = office.sign(ONE, "sato")
    assert (exit_code, f"refused ({Code.PIN_BLOCKED})" in said) == (1, True)
    assert office.names() == set()
    exit_code, said = office.run("bundle", "unlock-token", *office.card("sato"), "--journal", journal)
    assert (exit_code, "3 wrong PINs are forgotten" in said) == (0, True)
    assert office.sign(ONE, "sato")[0] == 0
    told = [(each["event"], each["fields"].get("refused")) for each in _records(journal)]
    assert told[:2] == [("sign", None), ("refused", Code.WRONG_PIN)]
    assert told[6:8] == [("sign", None), ("refused", Code.PIN_BLOCKED)]
    assert told[8:] == [("unlock-token", None), ("unlock-token", None)]


def test_signing_is_recorded(office: Office) -> None:
    """Who signed what, with which certificate, stands in the journal; the PIN does not."""
    journal = office.directory / "journal"
    assert office.sign(ONE, "sato", "--journal", journal)[0] == 0
    begun, ended = _records(journal)
    assert (begun["event"], begun["fields"]["phase"]) == ("sign", "begun")
    fields = ended["fields"]
    bundle = read(Path(f"{ONE}-1.bundle"))
    assert (fields["firewall"], fields["serial"], fields["bundle_sha256"]) == (ONE, 1, bundle.sha256)
    assert fields["topology_sha256"] == bundle.manifest.topology_sha256
    assert "CN=sato" in fields["operator"]
    assert fields["key"] == "token sato"
    assert fields["exit"] == 0
    assert verify_journal(journal, None) is None
    assert all(PIN not in path.read_text(errors="replace") for path in journal.rglob("*") if path.is_file())


def test_refused_bundle_is_recorded(office: Office) -> None:
    """So does what was refused, and why."""
    journal = office.directory / "journal"
    assert office.sign(ONE, "sato")[0] == 0
    bundle = Path(f"{ONE}-1.bundle")
    assert office.verify(bundle, "--after-serial", 5, "--journal", journal)[0] == 1
    last = _records(journal)[-1]
    assert (last["event"], last["fields"]["refused"], last["fields"]["firewall"]) == ("refused", Code.OLDER_SERIAL, ONE)


def test_verify_as_json(office: Office) -> None:
    """Programs get the answer, or the refusal, as JSON."""
    assert office.sign(ONE, "sato")[0] == 0
    bundle = Path(f"{ONE}-1.bundle")
    code, said = office.verify(bundle, "--topology", TOPOLOGY, "--json")
    found = json.loads(said)
    assert (code, found["accepted"], found["operators"][0]["person"]) == (0, True, f"{MANAGER}-sato")
    code, said = office.verify(bundle, "--firewall", "pension-fw", "--json")
    found = json.loads(said)
    assert (code, found["accepted"], found["code"]) == (1, False, Code.OTHER_FIREWALL)
    code, said = office.verify(bundle, "--at", "2040-01-01T00:00:00Z", "--json")
    assert (code, json.loads(said)["code"]) == (1, Code.SIGNER_EXPIRED)


def test_topology_tells_who_must_sign(office: Office, tmp_path: Path) -> None:
    """A bundle that asks for less than the topology does not get away with it."""
    altered = tmp_path / "build"
    altered.mkdir()
    for path in (office.build / TWO).rglob("*"):
        if path.is_file():
            target = altered / path.relative_to(office.build)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    manifest = json.loads((office.build / "manifest.json").read_text())
    manifest["firewalls"][TWO]["signatures"] = 1
    (altered / "manifest.json").write_text(json.dumps(manifest))
    office.build = altered
    assert office.sign(TWO, "sato")[0] == 0
    bundle = Path(f"{TWO}-1.bundle")
    code, said = office.verify(bundle)
    assert (code, "it demands itself" in said) == (0, True)
    code, said = office.verify(bundle, "--topology", TOPOLOGY)
    assert (code, f"refused ({Code.TOO_FEW_OPERATORS})" in said) == (1, True)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda place: (place / "nftables.nft").write_text("# nothing\n"), Code.ALTERED),
        (lambda place: (place / "ip.batch").unlink(), Code.ALTERED),
        (lambda place: (place / "more").touch(), Code.ALTERED),
        (lambda place: (place / "link").symlink_to("/etc/passwd"), Code.ALTERED),
    ],
    ids=["altered", "missing", "more", "link"],
)
def test_build_that_was_altered(office: Office, tmp_path: Path, change: Callable[[Path], object], code: Code) -> None:
    """What was not compiled is not signed."""
    altered = tmp_path / "build"
    for path in office.build.rglob("*"):
        if path.is_file():
            target = altered / path.relative_to(office.build)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    change(altered / ONE)
    office.build = altered
    exit_code, said = office.sign(ONE, "sato")
    assert (exit_code, f"refused ({code})" in said) == (1, True)
    assert office.names() == set()


def test_unsafe_key_file_warns(office: Office) -> None:
    """A key in a file signs only when that is asked for in so many words, and it is said what that means."""
    key, certificate = office.directory / "tanaka.key", office.directory / "tanaka.pem"
    words = ("operators", "issue", office.authority, MANAGER, "tanaka", "--name", "tanaka")
    assert office.run(*words, "--unsafe-key-file", key, "--out", certificate)[0] == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    crl = office.authority / MANAGER / "crl.pem"
    sign = ("bundle", "sign", office.build, ONE, "--serial", 1, "--crl", crl, "--trust", office.authority / "trust")
    assert "no-authorities" in office.run(*sign, "--unsafe-key-file", key, "--certificate", certificate)[1]
    more = ("--authorities", office.ends, "--valid-days", 9)
    code, said = office.run(*sign, "--unsafe-key-file", key, "--certificate", certificate, *more)
    assert (code, "warning" in said) == (0, True)
    assert office.verify(Path(f"{ONE}-1.bundle"))[0] == 0


def test_calls_that_make_no_sense(office: Office) -> None:
    """Options that do not fit each other are told, and nothing is written."""
    trust = ("--trust", office.authority / "trust")
    crl = ("--crl", office.authority / MANAGER / "crl.pem")
    sign = ("bundle", "sign", office.build)
    for words in (
        (*sign, ONE, *trust, "--serial", 1, *crl),
        (*sign, *trust, "--serial", 1, *crl, *office.card("sato")),
        (*sign, ONE, *trust, *crl, *office.card("sato")),
        (*sign, ONE, *trust, "--serial", 1, *office.card("sato")),
        (*sign, ONE, *trust, "--serial", 1, *crl, *office.card("sato"), "--valid-days", 0),
        (*sign, ONE, *trust, "--serial", 1, *crl, *office.card("sato"), "--unsafe-key-file", "key"),
        (*sign, ONE, *trust, "--serial", 1, *crl, "--unsafe-key-file", "key"),
        (*sign, "no-fw", *trust, "--serial", 1, *crl, *office.card("sato")),
        ("bundle", "sign", office.directory, ONE, *trust, "--serial", 1, *crl, *office.card("sato")),
        ("bundle", "sign", office.directory / "none", *trust, *office.card("sato")),
        ("operators", "issue", office.authority, MANAGER, "1", "--name", "x"),
        ("operators", "issue", office.authority, "nobody", "1", "--name", "x", "--unsafe-key-file", "k", "--out", "c"),
        ("operators", "init", office.authority, TOPOLOGY),
        ("operators", "init", ROOT / "operators", TOPOLOGY),
        ("operators", "status", office.directory),
    ):
        assert office.run(*words)[0] == 2, words
    assert office.names() <= {"k"}
    assert not (ROOT / "operators").exists()


def test_card_that_is_not_there(office: Office) -> None:
    """Without the card the machine lacks something."""
    code, said = office.sign(ONE, "sato", "--token", "nobody")
    assert (code, f"refused ({Code.NO_CARD})" in said) == (3, True)


def test_bundle_outlives_nobody_who_signed_it(office: Office) -> None:
    """A bundle cannot be valid for longer than the certificate of who signs it."""
    code, said = office.sign(ONE, "sato", "--valid-days", 400)
    assert (code, f"refused ({Code.SIGNER_EXPIRED})" in said) == (1, True)


def test_existing_bundle_is_not_overwritten(office: Office) -> None:
    """A serial is given once."""
    assert office.sign(ONE, "sato")[0] == 0
    before = Path(f"{ONE}-1.bundle").read_bytes()
    assert office.sign(ONE, "sato")[0] == 2
    assert Path(f"{ONE}-1.bundle").read_bytes() == before


def test_no_option_takes_a_pin(office: Office) -> None:
    """A PIN on the command line would stand in the list of processes and in the shell's history."""
    for words in (("bundle", "sign"), ("bundle", "unlock-token"), ("operators", "issue")):
        with pytest.raises(SystemExit):
            main([*words, "--help"])
        told = office.capsys.readouterr().out
        assert "--pin-file" in told
        assert "--pin " not in told
        assert "--pin=" not in told


def test_pin_from_the_terminal(office: Office) -> None:
    """The PIN is asked for on the terminal, after what is being signed was shown, and it is not echoed there."""
    crl = office.authority / MANAGER / "crl.pem"
    words = ["bundle", "sign", office.build, ONE, "--serial", 1, "--crl", crl, "--trust", office.authority / "trust"]
    words += ["--module", MODULE, "--token", "sato", "--pin-counts", office.directory / "counts"]
    words += ["--authorities", office.ends]
    run = "import sys; from netpolicy.cli import main; sys.exit(main(sys.argv[1:]))"
    child, terminal = pty.fork()
    if child == 0:
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", run, *map(str, words)])  # noqa: S606 - a terminal of its own
    said = b""
    while b"PIN of token 'sato'" not in said:
        said += os.read(terminal, 4096)
    assert b"signatures  0 of 1" in said
    os.write(terminal, f"{PIN}\n".encode())
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while more := os.read(terminal, 4096):
            said += more
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert b"signed by" in said
    assert PIN.encode() not in said


def test_status_of_operators(office: Office) -> None:
    """What is due is told; new lists have higher numbers."""
    assert office.run("operators", "status", office.authority)[0] == 0
    code, said = office.run("operators", "crl", office.authority)
    managers = load_topology(TOPOLOGY).topology.managers
    assert (code, said.count("--crl")) == (0, len(managers))
    assert (office.authority / MANAGER / "crl-number").read_text() == "2\n"
    for path in office.authority.rglob("key.pem"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_refusal_is_in_the_documents() -> None:
    """Each code is explained to whoever meets it."""
    text = (ROOT / "docs/appliance/bundle.md").read_text(encoding="utf-8")
    assert [code for code in Code if f"`{code.value}`" not in text] == []


def _records(journal: Path) -> list[dict[str, Any]]:
    """Return what was recorded of commands."""
    lines = [line for path in sorted(journal.glob("*.jsonl")) for line in path.read_text(encoding="utf-8").splitlines()]
    return [record for record in map(json.loads, lines) if record["event"] in _EVENTS]
