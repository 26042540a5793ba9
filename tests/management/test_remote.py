"""``netpolicy remote``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from appliance_image.journal import Journal, verify
from appliance_image.journal.keys import new_key, public_key
from appliance_image.journal.read import records
from appliance_image.management import client, renewal
from appliance_image.management.errors import RefusedError
from appliance_image.management.protocol import Document
from netpolicy.cli import main
from netpolicy.intent.reach import ReachError, reach
from tests.management.network import OPERATOR, Managed, Network

Captured = pytest.CaptureFixture[str]
_ALPN = "netpolicy-management/1"


def _remote(network: Network, *argv: str, who: str = "console", firewall: str = "town-fw") -> int:
    identity = network.own(who).directory
    arguments = ["remote", firewall, "--identity", str(identity), "--topology", str(network.file), *argv]
    return network.lab.namespace("console").call(lambda: main(arguments))


def test_status(network: Network, managed: Managed, capsys: Captured) -> None:
    """It prints rows, or JSON; a firewall is named, or one of its addresses is."""
    assert managed.firewall.trial is None
    assert _remote(network, "status") == 0
    assert capsys.readouterr().out == "firewall      town-fw\n"
    assert _remote(network, "status", "--json", firewall="10.1.0.1") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"firewall": "town-fw", "on_trial": None, "enforcing": True, "boot": "1"}


def test_closed_is_a_finding(
    network: Network, managed: Managed, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """An appliance that is closed answers, and the command says so with its exit code; so does one that has drifted."""
    monkeypatch.setattr(managed.firewall, "status", lambda: {"enforcing": False, "rows": [["state", "\x1b[2JCLOSED"]]})
    assert _remote(network, "status") == 1
    assert capsys.readouterr().out == "state         \\x1b[2JCLOSED\n"
    monkeypatch.setattr(managed.firewall, "drift", lambda: {"none": False, "lines": ["drift", "  rules: x"]})
    assert _remote(network, "drift") == 1
    assert capsys.readouterr().out == "drift\n  rules: x\n"


@pytest.mark.usefixtures("managed")
def test_drift(network: Network, capsys: Captured) -> None:
    """Nothing has changed."""
    assert _remote(network, "drift") == 0
    assert capsys.readouterr().out == "town-fw: no drift\n"


@pytest.mark.usefixtures("managed")
def test_journal(network: Network, capsys: Captured) -> None:
    """All records from a number on, however many answers that takes."""
    assert _remote(network, "journal", "--since", "100") == 0
    assert capsys.readouterr().out.splitlines() == [f'{{"seq":{number}}}' for number in range(100, 1201)]


def test_journal_is_copied(
    network: Network, managed: Managed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """The managing site keeps a copy that goes on where it ended, and takes nothing that does not follow."""
    key, public, copy = tmp_path / "key.pem", tmp_path / "public.pem", tmp_path / "copy"
    new_key(key)
    public.write_bytes(public_key(key))
    journal = Journal.open(tmp_path / "journal", key=key)

    def served(directory: Path) -> None:
        def answer(since: int, most: int) -> Document:
            found = list(islice(records(directory, since), min(most, 2)))
            lines = [each.line().decode().rstrip() for each in found]
            return {"records": lines, "next": since + len(found), "more": bool(found)}

        monkeypatch.setattr(managed.firewall, "journal", answer)

    served(tmp_path / "journal")
    into = ("journal", "--into", str(copy), "--checkpoint-key", str(public))
    for number in range(3):
        journal.append("boot", {"number": number})
    assert _remote(network, *into) == 0
    assert capsys.readouterr().out.startswith("journal: 8 new records of town-fw; the newest is 8:")
    assert verify(copy, public) is None
    assert _remote(network, *into) == 0
    assert capsys.readouterr().out.startswith("journal: 0 new records of town-fw; the newest is 8:")
    assert _remote(network, "journal", "--checkpoint-key", str(public)) == 2
    assert "give --into" in capsys.readouterr().err
    # Another history, as long as the first and longer.
    other = Journal.open(tmp_path / "other", key=key)
    for number in range(4):
        other.append("boot", {"number": number})
    served(tmp_path / "other")
    assert _remote(network, *into) == 1
    assert "town-fw: record 9 does not follow record 8:" in capsys.readouterr().err
    assert verify(copy, public) is None


def test_apply_confirm_rollback(network: Network, managed: Managed, bundle: Path, capsys: Captured) -> None:
    """An operator's whole work."""
    assert _remote(network, "apply", str(bundle), "--confirm", "2m") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("apply: town-fw runs serial 2, sha256 0000")
    assert "on trial: it goes back by itself in 120 s unless you say 'netpolicy remote town-fw" in printed
    assert _remote(network, "confirm") == 0
    assert _remote(network, "rollback", "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("{")[2].join(["{", ""]))["serial"] == 1
    assert managed.firewall.calls == ["apply", "confirm", "rollback"]


def test_refused(network: Network, managed: Managed, tmp_path: Path, capsys: Captured) -> None:
    """What the appliance refuses is exit code 2, with its reason."""
    bundle = tmp_path / "x"
    bundle.write_bytes(b"x")
    assert _remote(network, "apply", str(bundle), "--confirm", "60s") == 2
    assert capsys.readouterr().err == "netpolicy: town-fw refuses: malformed: no bundle\n"
    assert _remote(network, "confirm", "--json") == 2
    assert json.loads(capsys.readouterr().out) == {"code": "nothing", "error": "no bundle is on trial"}
    assert _remote(network, "apply", str(bundle), "--confirm", "5s") == 2
    assert managed.firewall.calls == ["apply"]


def test_not_reached(network: Network, managed: Managed, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    """A firewall that does not answer is exit code 3."""
    monkeypatch.setattr(client, "_CONNECT", 0.5)
    topology = network.file.with_name("elsewhere.yaml")
    topology.write_text(network.file.read_text(encoding="utf-8").replace("17100", "17101"), encoding="utf-8")
    monkeypatch.setattr(network, "file", topology)
    assert _remote(network, "status") == 3
    assert capsys.readouterr().err.startswith("netpolicy: town-fw (10.9.0.1 port 17101) is not reached: ")
    assert managed.firewall.records == []


@pytest.mark.parametrize(
    ("who", "firewall", "said"),
    [
        ("books", "town-fw", "no flow lets 'books' manage 'town-fw', whose manager is agency"),
        (
            "hall-fw",
            "town-fw",
            "the identity is urn:netpolicy:small:firewall:hall-fw, which is no node of network small",
        ),
        ("console", "town-wf", "network small has no firewall 'town-wf'; did you mean 'town-fw'?"),
        ("console", "10.1.0.10", "network small has no firewall '10.1.0.10'"),
    ],
)
@pytest.mark.usefixtures("managed")
def test_wrong_calls(network: Network, who: str, firewall: str, said: str, capsys: Captured) -> None:
    """Nothing is sent by whom no flow permits, or to what is no firewall."""
    assert _remote(network, "status", who=who, firewall=firewall) == 2
    assert capsys.readouterr().err == f"netpolicy: {said}\n"


def test_no_identity(network: Network, tmp_path: Path, capsys: Captured) -> None:
    """A directory without a certificate is a wrong call."""
    assert main(["remote", "town-fw", "--identity", str(tmp_path), "--topology", str(network.file), "status"]) == 2
    assert "chain.pem" in capsys.readouterr().err
    (tmp_path / "chain.pem").write_text("x", encoding="ascii")
    assert main(["remote", "town-fw", "--identity", str(tmp_path), "--topology", str(network.file), "status"]) == 2
    assert "no certificate of an end" in capsys.readouterr().err


def test_reach(network: Network) -> None:
    """What is met first is the first firewall on the way, for one behind it as well as for itself."""
    near, far = (reach(network.topology, name, OPERATOR, _ALPN) for name in ("hall-fw", "town-fw"))
    assert near.first_uri == far.first_uri == near.uri
    assert (far.name, far.port, far.prologue) == ("town-fw.small.internal", 17100, "JUKI")
    nobody = replace(network.topology, flows={"notice": network.topology.flows["notice"]})
    with pytest.raises(ReachError, match="no flow lets"):
        reach(nobody, "town-fw", OPERATOR, _ALPN)


def test_renew(network: Network, managed: Managed, capsys: Captured, tmp_path: Path) -> None:
    """Chain, lists and key arrive as they are, and nothing else of the directory does."""
    directory = network.own("town-fw").directory
    assert _remote(network, "renew", str(directory)) == 0
    names = ("chain.pem", "crl.pem", "key.pem")
    assert managed.firewall.renewed == {name: (directory / name).read_bytes() for name in names}
    assert capsys.readouterr().out == (
        "renew: town-fw has certificate 1f, until 2027-01-01T00:00:00Z; lists until 2026-12-01T00:00:00Z\n"
    )
    assert managed.firewall.events("remote")[-1]["command"] == "renew"
    assert _remote(network, "renew", str(tmp_path)) == 2
    assert f"{tmp_path} has no chain.pem" in capsys.readouterr().err
    (tmp_path / "chain.pem").write_bytes(b"\xff")
    (tmp_path / "crl.pem").write_bytes(b"")
    assert _remote(network, "renew", str(tmp_path)) == 2


@pytest.mark.parametrize(
    "upload",
    [b"{}\n", b"[]", b'{"chain.pem":"","crl.pem":"","trust.pem":""}', b'{"chain.pem":1,"crl.pem":""}', b"\xff",
     b'{"chain.pem":"","crl.pem":"","../key.pem":""}', b'{"chain.pem":"","chain.pem":"","crl.pem":""}',
     b'{"chain.pem":"\\u7f72","crl.pem":""}'],
)  # fmt: skip
def test_renewal_of_another_form(upload: bytes) -> None:
    """An upload has these files, each a text, and no others."""
    with pytest.raises(RefusedError) as refused:
        renewal.unpack(upload)
    assert refused.value.code == "malformed"


def test_restart(network: Network, managed: Managed, capsys: Captured) -> None:
    """It is waited for, and its status shown; or not; or in vain."""
    assert _remote(network, "restart") == 0
    assert managed.firewall.boots == 2
    assert capsys.readouterr().out == "firewall      town-fw\n"
    assert _remote(network, "restart", "--wait", "0s") == 0
    assert capsys.readouterr().out == "restart: town-fw starts again\n"
    assert _remote(network, "restart", "--wait", "1s") == 3
    assert "town-fw has not come back in 1 s" in capsys.readouterr().err
    assert managed.firewall.calls.count("restart") == 3
