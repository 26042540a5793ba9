"""Theorems hold for what is compiled, and each change to it is answered with a packet, a rule and a flow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from netpolicy.build import compile_topology
from netpolicy.proof.prove import TITLES, Proof, prove
from netpolicy.proof.read import LoadError
from netpolicy.proof.terms import RefusedError
from netpolicy.topology.model import Assurance, Topology
from tests.docs.source import ROOT


def _changed(build: Path, firewall: str, change: Callable[[str], str]) -> None:
    path = build / firewall / "nftables.nft"
    before = path.read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    path.write_text(after, encoding="utf-8")


def _failing(proof: Proof) -> set[str]:
    return {theorem.id for theorem in proof.theorems if not theorem.holds}


@pytest.mark.parametrize("assurance", list(Assurance))
def test_holds(topology: Topology, build: Path, assurance: Assurance) -> None:
    """Every theorem holds for a build that nobody has touched, inspected or relayed."""
    flows = {name: replace(flow, assurance=assurance) for name, flow in topology.flows.items()}
    other = replace(topology, flows=flows)
    compile_topology(other, build)
    proof = prove(other, build)
    assert [str(finding) for theorem in proof.theorems for finding in theorem.findings] == []
    assert [theorem.id for theorem in proof.theorems] == list(TITLES)
    assert proof.rules > 100


@pytest.mark.parametrize(
    ("change", "theorems", "flow"),
    [
        pytest.param(
            lambda text: text.replace("10.77.1.10 . 10.77.3.10 . tcp . 17000", "10.77.1.11 . 10.77.3.10 . tcp . 17000"),
            {"exact", "pairs", "answers"},
            "notice",
            id="another source",
        ),
        pytest.param(
            lambda text: text.replace("10.77.3.10 . tcp . 17000 comment", "10.77.3.10 . tcp . 17001 comment"),
            {"exact", "pairs", "answers"},
            "notice",
            id="another port",
        ),
        pytest.param(
            lambda text: re.sub(r"limit rate over 10/second burst 10 packets goto \w+", "", text),
            {"limits"},
            "notice",
            id="no rate",
        ),
        pytest.param(
            lambda text: text.replace("ct count over 20", "ct count over 21"), {"limits"}, "notice", id="more"
        ),
        pytest.param(
            lambda text: re.sub(r"add @counted4_notice {[^}]*} goto", "goto", text),
            {"limits", "live"},
            "notice",
            id="no limit of a source",
        ),
        pytest.param(
            lambda text: text.replace("ip saddr ct count 7", "ip saddr ct count 8"),
            {"limits"},
            "notice",
            id="more of a source",
        ),
        pytest.param(
            lambda text: text.replace("ip saddr ct count 7", "ip daddr ct count 7"),
            {"limits"},
            "notice",
            id="by destination",
        ),
        pytest.param(
            lambda text: text.replace("ip saddr ct count 7", "ip saddr and 255.255.255.0 ct count 7"),
            {"limits"},
            "notice",
            id="by prefix",
        ),
        pytest.param(
            lambda text: text.replace("ip saddr ct count 7", "ip saddr ct count over 7"),
            {"limits"},
            "notice",
            id="beyond a source's",
        ),
        pytest.param(
            lambda text: re.sub(r"(set counted4_notice {\s+type ipv4_addr\s+size) \d+", r"\1 1", text),
            {"limits"},
            "notice",
            id="no room",
        ),
        pytest.param(
            lambda text: text.replace("meta hour ", "meta hour != "), {"exact", "answers"}, "notice", id="other hours"
        ),
    ],
)
def test_each_change_is_found(
    topology: Topology, build: Path, change: Callable[[str], str], theorems: set[str], flow: str
) -> None:
    """What is changed by hand is found by the theorems that it contradicts, and the finding names the flow."""
    _changed(build, "edge", change)
    proof = prove(topology, build)
    assert theorems <= _failing(proof)
    findings = [finding for theorem in proof.theorems for finding in theorem.findings if finding.theorem in theorems]
    assert any(finding.flow == flow and finding.firewall == "edge" for finding in findings)
    assert all(finding.rule for finding in findings if finding.theorem == "exact")


def test_answers(topology: Topology, build: Path) -> None:
    """A general 'established, accept' lets answers pass that no permit is behind."""
    _changed(
        build,
        "edge",
        lambda text: text.replace(
            "ct state invalid goto deny_invalid",
            "ct state invalid goto deny_invalid\n\t\tct state established meta mark set 0x4e000000 accept",
        ),
    )
    proof = prove(topology, build)
    assert "answers" in _failing(proof)
    packets = [finding.packet for theorem in proof.theorems for finding in theorem.findings if theorem.id == "answers"]
    assert any("established answer" in str(packet) for packet in packets)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("tcp flags & syn != 0 jump segment_size", ""), id="none"),
        pytest.param(lambda text: text.replace("maxseg size set 1220", "maxseg size set 1440"), id="too large"),
        pytest.param(lambda text: text.replace("maxseg size set 1240", "maxseg size set 1200"), id="too small"),
        pytest.param(lambda text: re.sub(r'meta nfproto ipv4 oifname \{? ?"wan".*', "", text), id="one way"),
    ],
)
def test_segment_sizes(topology: Topology, build: Path, change: Callable[[str], str]) -> None:
    """A handshake that is not held to the narrower of two lines is found: nothing else would tell its ends."""
    line = replace(topology.segments["line"], mtu=1280)
    narrow = replace(topology, segments={**topology.segments, "line": line})
    compile_topology(narrow, build)
    assert _failing(prove(narrow, build)) == set()
    _changed(build, "edge", change)
    proof = prove(narrow, build)
    said = [each.what for theorem in proof.theorems for each in theorem.findings if theorem.id == "answers"]
    assert any("does not hold a handshake to segments of" in each for each in said)


def test_invariant(topology: Topology, build: Path) -> None:
    """A way that an invariant forbids is found as that, through every firewall that was changed for it."""
    for firewall in ("edge", "core"):
        _changed(build, firewall, lambda text: text.replace("10.77.1.10 .", "10.77.1.11 ."))
    proof = prove(topology, build)
    found = {theorem.id: theorem for theorem in proof.theorems}["invariant"]
    assert [finding.what for finding in found.findings] == ["invariant 'apart': beta gets to gamma"]


def test_spoofing(topology: Topology, build: Path) -> None:
    """Without the check of sources, a relay has clients from anywhere; the other permits name their interfaces."""
    flows = {name: replace(flow, assurance=Assurance.TERMINATE) for name, flow in topology.flows.items()}
    relayed = replace(topology, flows=flows)
    compile_topology(relayed, build)
    for firewall in ("edge", "core"):
        _changed(build, firewall, lambda text: re.sub(r"iifname \. ip saddr != @behind4 goto \w+", "", text))
    assert _failing(prove(relayed, build)) >= {"exact"}


@pytest.mark.parametrize("family", ["icmp", "icmpv6"])
@pytest.mark.parametrize("hook", ["forward", "input", "output"])
def test_icmp_errors(topology: Topology, build: Path, hook: str, family: str) -> None:
    """An ICMP error of a connection that a firewall passes on, takes or says is found, in both families."""
    head = f"type filter hook {hook} priority 0; policy drop;"
    kind = "destination-unreachable icmp code frag-needed" if family == "icmp" else "packet-too-big"
    accept = f"{family} type {kind} ct state related meta mark set 0x4e000000 accept"

    def let(text: str) -> str:
        text = re.sub(rf"(?m)^\t\t{family} type \{{.*goto deny_icmp_error$", "", text)
        return text.replace(head, f"{head}\n\t\t{accept}")

    _changed(build, "edge", let)
    found = {theorem.id: theorem for theorem in prove(topology, build).theorems}["answers"]
    verb = {"forward": "passes on", "input": "takes", "output": "says"}[hook]
    assert [(finding.firewall, finding.what) for finding in found.findings] == [
        ("edge", f"{verb} what no flow permits")
    ]
    assert f"{family} type" in str(found.findings[0].packet)
    assert "none" in found.title


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("tcp flags & (syn | rst) != 0 jump bare4", "", 1), id="data"),
        pytest.param(lambda text: text.replace("tcp flags & (syn | rst) != 0", "tcp flags & (rst) != 0"), id="SYN"),
        pytest.param(lambda text: text.replace("tcp flags & (syn | rst) != 0", "tcp flags & (syn) != 0"), id="RST"),
        pytest.param(lambda text: text.replace("meta length 80 return", "meta length { 80, 84 } return"), id="4 bytes"),
        pytest.param(lambda text: text.replace("tcp option fastopen exists goto deny_syn_data", ""), id="Fast Open"),
    ],
)
def test_bytes_before_a_handshake(topology: Topology, build: Path, change: Callable[[str], str]) -> None:
    """What lets bytes or Fast Open into a SYN or RST is found."""
    _changed(build, "edge", change)
    assert _failing(prove(topology, build)) & {"exact", "answers"}


def test_dead_and_hidden(topology: Topology, build: Path) -> None:
    """A rule that no packet needs is found, with the one that hides it."""
    _changed(
        build,
        "edge",
        lambda text: text.replace(
            "ct state invalid goto deny_invalid",
            "ct state invalid goto deny_invalid\n\t\tct state invalid meta mark 5 drop",
        ),
    )
    found = {theorem.id: theorem for theorem in prove(topology, build).theorems}["live"]
    assert all("ct state invalid meta mark" in str(finding.rule) for finding in found.findings)
    assert any("hides it: ct state invalid goto deny_invalid" in finding.what for finding in found.findings)


def test_order(topology: Topology, build: Path) -> None:
    """Two base chains of one priority, of which one marks what the other asks for, do not commute."""
    extra = (
        "\ntable inet other\ndelete table inet other\n"
        "table inet other {\n\tchain a {\n\t\ttype filter hook forward priority 0; policy accept;\n"
        "\t\tmeta mark 0x4e000000 drop\n\t}\n}\n"
    )
    _changed(build, "edge", lambda text: text + extra)
    assert "order" in _failing(prove(topology, build))


def test_engines(topology: Topology, build: Path) -> None:
    """A firewall without its engine's configuration passes on what nobody inspects."""
    for path in (build / "core" / "suricata").glob("engine-*.yaml"):
        path.unlink()
    assert _failing(prove(topology, build)) == {"engines", "files"}


def test_relay_must_ask(topology: Topology, build: Path) -> None:
    """A relay that does not ask for certificates is none."""
    from netpolicy.build import compile_topology

    flows = {name: replace(flow, assurance=Assurance.TERMINATE) for name, flow in topology.flows.items()}
    other = replace(topology, flows=flows)
    compile_topology(other, build)
    path = build / "core" / "relay" / "haproxy.cfg"
    path.write_text(path.read_text(encoding="utf-8").replace("verify required", "verify optional"), encoding="utf-8")
    assert _failing(prove(other, build)) == {"engines", "files"}


def test_unknown_is_refused(topology: Topology, build: Path) -> None:
    """An expression that the model does not know is named with its place; nothing is proven around it."""
    _changed(build, "edge", lambda text: text.replace("ct state invalid goto", "meta skuid 0 ct state invalid goto"))
    with pytest.raises(RefusedError, match=r"netpolicy.*does not know 'meta skuid'"):
        prove(topology, build)


def test_not_a_ruleset(topology: Topology, build: Path) -> None:
    """What nft refuses is told in nft's words."""
    _changed(build, "edge", lambda text: text.replace("policy drop", "policy maybe"))
    with pytest.raises(LoadError, match="policy"):
        prove(topology, build)


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = "import sys; from netpolicy.cli import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", command, *argv], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_miniature(tmp_path: Path) -> None:
    """The miniature network is proven from the command line; one element changed by hand is told."""
    build, record = tmp_path / "build", tmp_path / "record.json"
    assert _run("compile", "topology.yaml", "--out", str(build)).returncode == 0
    done = _run("prove", "topology.yaml", "--build", str(build), "--record", str(record))
    assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stdout
    assert "proven: 22 firewalls of jukinet" in done.stdout
    held = json.loads(record.read_text(encoding="utf-8"))
    assert held["holds"] is True
    assert len(held["build_sha256"]) > 100
    check = ("prove", "topology.yaml", "--build", str(build), "--check-record", str(record))
    assert _run(*check).returncode == 0

    path = build / "tokyo-fw" / "nftables.nft"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(". tcp . 17020", ". tcp . 17021", 1), encoding="utf-8")
    done = _run(*check)
    assert (done.returncode, done.stdout) == (1, "tokyo-fw/nftables.nft has changed\n")
    done = _run("prove", "topology.yaml", "--build", str(build))
    assert done.returncode == 1
    assert re.search(r"^ +packet  tcp .*17021", done.stdout, re.MULTILINE)
    assert re.search(r"^ +rule    inet netpolicy ", done.stdout, re.MULTILINE)
    assert re.search(r"^ +flow    prefecture-own-use$|^ +flow    [a-z-]+$", done.stdout, re.MULTILINE)


def test_not_a_build(tmp_path: Path) -> None:
    """A directory that is no build is refused."""
    done = _run("prove", "topology.yaml", "--build", str(tmp_path))
    assert (done.returncode, "is not a build" in done.stderr) == (2, True)


def test_not_a_record(tmp_path: Path) -> None:
    """A file that is no record is refused."""
    (tmp_path / "record").write_text("{}", encoding="utf-8")
    done = _run("prove", "topology.yaml", "--check-record", str(tmp_path / "record"))
    assert (done.returncode, "not a record of a proof" in done.stderr) == (2, True)
