"""Why a packet passes, or what is nearest to a permit: texts, and agreement with what the topology says."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from netpolicy.build import compile_topology
from netpolicy.cli import main
from netpolicy.intent.routing import Routing
from netpolicy.proof.explain import explain
from netpolicy.proof.nearest import nearest_flows
from netpolicy.proof.question import Asked, QuestionError, question
from netpolicy.proof.read import read_rulesets
from netpolicy.proof.walk import Walker
from netpolicy.reasons import DenyReason
from netpolicy.topology.ends import flow_groups
from netpolicy.topology.load import load_topology
from tests.docs.source import ROOT

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="reading rulesets back takes root")

_TEXTS = Path(__file__).with_name("texts")
_TOPOLOGY = str(ROOT / "topology.yaml")
_FRAME = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
_NOON = datetime(2026, 11, 24, 12, tzinfo=ZoneInfo("Asia/Tokyo"))


@pytest.fixture(name="build", scope="module")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("explain") / "build"
    compile_topology(load_topology(ROOT / "topology.yaml").topology, out)
    return out


@pytest.fixture(name="walker", scope="module")
def _walker(build: Path) -> Walker:
    topology = load_topology(ROOT / "topology.yaml").topology
    groups = [[build / name / file for file in ("guard.nft", "nftables.nft")] for name in topology.firewalls]
    rulesets = dict(zip(topology.firewalls, read_rulesets(groups), strict=True))
    return Walker(topology, Routing(topology), rulesets)


_QUESTIONS = {
    "http": ("--from shinagawa-cs --to tokyo-server --service tcp/80", 1),
    "relayed": ("--from shinagawa-cs --to tokyo-server --service identity-record", 0),
    "inspected": ("--from shinagawa-terminal --to shinagawa-cs --service terminal --ip 6", 0),
    "hours": ("--from pension-batch --to provision-server --service pension-batch", 1),
    "not-connected": ("--from kunitachi-cs --to shinagawa-cs --service move-in", 1),
    "turned": ("--from tokyo-server --to shinagawa-cs --service identity-record", 1),
    "spoofed": ("--from 10.13.1.74 --to 10.13.210.10 --service identity-record --iif shinagawa-line-fw:line", 1),
    "answer": ("--from tokyo-server --to shinagawa-cs --service identity-record --state reply", 0),
    "management": ("--from agency-operator --to tokyo-fw --service management", 0),
    "nowhere": ("--from shinagawa-cs --to 192.0.2.1 --service udp/53", 1),
    "not-syn": ("--from shinagawa-terminal --to shinagawa-cs --service terminal --tcp-flags ack", 1),
}


@pytest.mark.parametrize("name", sorted(_QUESTIONS))
def test_text(name: str, build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads which rule, flow and law, or why not and what differs."""
    words, code = _QUESTIONS[name]
    asked = ["explain", _TOPOLOGY, "--build", str(build), "--at", "2026-11-24 12:00", *shlex.split(words)]
    assert main(asked) == code
    said = f"$ netpolicy explain topology.yaml {words} --at '2026-11-24 12:00'\n\n{capsys.readouterr().out}"
    path = _TEXTS / f"explain-{name}.txt"
    if os.environ.get("NETPOLICY_UPDATE_CASES"):
        path.write_text(said, encoding="utf-8")
    assert said == path.read_text(encoding="utf-8")


def test_agrees_with_flows(walker: Walker) -> None:
    """Of 400 questions between any ends on any service, those are permitted that a flow permits, and no others."""
    topology = walker.topology
    permitted = {
        (source.id, end.id, flow.service): flow
        for flow in topology.effective_flows()
        for group in flow_groups(topology, flow)
        for source, end in group.pairs()
        if not flow.limits.windows
    }
    closed = {flow.service for flow in topology.flows.values() if flow.limits.windows}
    services = [name for name in topology.services if name not in closed]
    chance = random.Random(4)  # noqa: S311 - the same questions each time
    names = [*topology.nodes, *topology.firewalls]
    asked = [(chance.choice(list(topology.nodes)), chance.choice(names), chance.choice(services)) for _ in range(250)]
    asked += chance.sample(sorted(permitted), 50)
    for source, end, service in asked:
        for version in (4, 6):
            if source == end:
                continue
            about = question(
                topology,
                walker.routing,
                Asked(source=source, destination=end, service=service, state="new", at=_NOON, version=version),
            )
            found = explain(walker, about)
            if not found.journey.passages:
                continue
            flow = permitted.get((source, end, service))
            assert found.permitted is (flow is not None), (source, end, service, version)
            if flow is not None:
                assert {passage.flow for passage in found.journey.passages} == {flow.id}
                assert found.answer is not None
                assert found.answer.arrived
            else:
                assert found.near[0].differs


def test_every_reason_has_words(walker: Walker) -> None:
    """No reason of the vocabulary is without words."""
    from netpolicy.proof.explain import WORDS

    assert set(WORDS) == set(DenyReason)
    assert walker.rulesets


def test_nearest_counts_what_differs(walker: Walker) -> None:
    """One wrong field is nearer than two, and each is named with what would be right."""
    asked = Asked(source="tachikawa-registry", destination="shinagawa-cs", service="tcp/17014", state="new", at=_NOON)
    near = nearest_flows(walker.topology, question(walker.topology, walker.routing, asked))[0]
    assert near.flow.id == "registry-update"
    assert {each.field for each in near.differs} == {"port", "to"}
    assert "17014 instead of registry-update (tcp/17013)" in str(near.differs[-1])


def test_json(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets every rule that decided, with its elements, and the three nearest flows."""
    ends = ["--from", "shinagawa-cs", "--to", "tokyo-server", "--service", "tcp/80"]
    assert main(["explain", _TOPOLOGY, "--build", str(build), *ends, "--at", "2026-11-24 12:00", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["permitted"] is False
    assert told["hops"][0]["counter"] == "deny_forbidden_http"
    assert any("tcp . 80" in element for rule in told["hops"][0]["rules"] for element in rule["elements"])
    assert len(told["nearest"]) == 3


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--from shinagawa-sc --to tokyo-server --service tcp/80", "did you mean 'shinagawa-cs'?"),
        ("--from shinagawa-cs --to tokyo-server --service identity-recrod", "did you mean 'identity-record'?"),
        ("--from shinagawa-cs --to tokyo-server --service tcp/80 --iif tokyo-fw:lin", "did you mean 'line'?"),
        ("--from shinagawa-cs --to tokyo-server --service tcp/99999", "there is no port 99999"),
        ("--from shinagawa-cs --to 2001:db8::1 --service tcp/80 --ip 4", "do not have IPv4 in common"),
        ("--from shinagawa-cs", "give --from, --to and --service, or --pcap"),
        ("--pcap README.md", "cannot be read as a capture"),
    ],
)
def test_refused(words: str, hint: str, build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that means nothing is refused with the nearest one that does."""
    assert main(["explain", _TOPOLOGY, "--build", str(build), *shlex.split(words)]) == 2
    assert hint in capsys.readouterr().err


def test_unknown_version(walker: Walker) -> None:
    """Ends without a family in common cannot speak."""
    asked = Asked(source="shinagawa-cs", destination="10.0.0.1", service="tcp/80", state="new", at=_NOON, version=6)
    with pytest.raises(QuestionError, match="IPv6"):
        question(walker.topology, walker.routing, asked)


def test_capture(tmp_path: Path, build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each packet of a capture is judged with those before it: an answer passes after what it answers."""
    there = {"src": "10.13.1.20", "dst": "10.13.1.74"}
    back = {"src": there["dst"], "dst": there["src"]}
    frames = [
        _FRAME / IP(**there) / TCP(sport=40000, dport=17016, flags="S"),
        _FRAME / IP(**back) / TCP(sport=17016, dport=40000, flags="SA"),
        _FRAME / IP(**there) / TCP(sport=40000, dport=17016, flags="A"),
        _FRAME / IP(**back) / TCP(sport=17016, dport=40001, flags="A"),
        _FRAME / IP(**there) / UDP(sport=40000, dport=53),
        _FRAME / IP(**there, flags="MF") / ICMP(),
        _FRAME / IPv6(src="fd6a:756b:6900:1311::20", dst="fd6a:756b:6900:1312::10") / TCP(dport=17016, flags="S"),
    ]
    path = tmp_path / "some.pcap"
    wrpcap(str(path), frames)
    assert main(["explain", _TOPOLOGY, "--build", str(build), "--pcap", str(path), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["permitted"] for each in told] == [True, True, True, False, False, False, True]
    assert [each["hops"][-1]["counter"] for each in told[3:6]] == [
        "deny_invalid",
        "deny_forbidden_dns",
        "deny_fragment",
    ]
    assert main(["explain", _TOPOLOGY, "--build", str(build), "--pcap", str(path), "--count", "2"]) == 0
    assert "2 of 2 packets permitted" in capsys.readouterr().out


def test_rules_that_are_not_the_topologys(build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where an edited build drops what the topology permits, that is said."""
    copy = tmp_path / "build"
    subprocess.run(["cp", "-r", str(build), str(copy)], check=True, timeout=60)
    rules = copy / "shinagawa-municipal-fw" / "nftables.nft"
    text = rules.read_text(encoding="utf-8")
    element = '10.13.1.20 . 10.13.1.74 . tcp . 17016 comment "terminal-operation"'
    assert element in text
    rules.write_text(text.replace(element, element.replace("17016", "17018")), encoding="utf-8")
    words = ["--from", "shinagawa-terminal", "--to", "shinagawa-cs", "--service", "terminal"]
    assert main(["explain", _TOPOLOGY, "--build", str(copy), *words, "--at", "2026-11-24 12:00"]) == 1
    assert "these rules are not those of the topology" in capsys.readouterr().out


def test_compiles_by_itself() -> None:
    """Without --build the topology is compiled, and nothing is left behind or written elsewhere."""
    command = "import sys; from netpolicy.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["--from", "shinagawa-cs", "--to", "tokyo-server", "--service", "identity-record"]
    done = subprocess.run(
        [sys.executable, "-c", command, "explain", _TOPOLOGY, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
