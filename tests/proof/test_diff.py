"""A difference is complete: what was, with what is newly permitted and without what is stopped, is what is."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.lab import Lab
from netpolicy.build import compile_topology
from netpolicy.cli import main
from netpolicy.proof.boxes import Cutter
from netpolicy.proof.diff import Change, Difference, difference
from netpolicy.proof.evaluate import Fate, evaluate
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Divert, Hook, Ruleset, Span
from netpolicy.proof.names import Names
from netpolicy.proof.read import read_rulesets
from netpolicy.proof.sides import BuildSide, Side, TopologySide, Way, space_of
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Limits, Topology
from tests.docs.source import ROOT
from tests.lab.small import small_topology
from tests.proof.edits import EDITS, edited, without_a_line

_FILES = ("guard.nft", "nftables.nft")
_TEXTS = Path(__file__).with_name("texts")
_NETPOLICY = [sys.executable, "-c", "import sys; from netpolicy.cli import main; sys.exit(main(sys.argv[1:]))"]
_needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="reading rulesets back takes root")


def _recombines(old: Side, new: Side) -> Difference:
    """Return a difference that has been found complete, exact and without overlaps."""
    found = difference(old, new)
    for family in Family:
        cutter = Cutter(space_of((old, new), found.firewalls, family))
        space = cutter.space
        for firewall in found.firewalls:
            before, after = old.passed(firewall, space), new.passed(firewall, space)
            for way in Way:
                sets = dict.fromkeys(Change, space.false)
                for piece in found.pieces:
                    if (piece.firewall, piece.family, piece.way) == (firewall, family, way):
                        packets = cutter.packets(piece.box)
                        assert not (sets[piece.change] & packets).satisfiable()
                        sets[piece.change] |= packets
                recombined = (before.ways[way] | sets[Change.PERMITTED]) & ~sets[Change.STOPPED]
                assert recombined == after.ways[way]
                assert not (before.ways[way] & sets[Change.PERMITTED]).satisfiable()
                assert not (sets[Change.STOPPED] & ~before.ways[way]).satisfiable()
    return found


@pytest.mark.parametrize("name", sorted(EDITS))
def test_topologies(name: str) -> None:
    """Old and new of each change recombine, in both directions."""
    old = small_topology()
    new = EDITS[name](old)
    there = _recombines(TopologySide(old), TopologySide(new))
    back = _recombines(TopologySide(new), TopologySide(old))
    assert there.pieces
    assert len(there.pieces) == len(back.pieces)


@pytest.mark.parametrize("seed", range(20))
def test_random_topologies(seed: int) -> None:
    """So do two topologies that several changes set apart."""
    chance = random.Random(seed)  # noqa: S311 - the same changes each time
    old, new = (edited(small_topology(), chance) for _ in range(2))
    _recombines(TopologySide(old), TopologySide(new))


def test_miniature_network() -> None:
    """So does the miniature network, one of whose flows is relayed, one gone, and one at other hours."""
    old = load_topology(ROOT / "topology.yaml").topology
    flows = dict(old.flows)
    del flows["prefecture-own-use"]
    flows["wide-area-issuance"] = replace(flows["wide-area-issuance"], limits=Limits())
    found = _recombines(TopologySide(old), TopologySide(replace(old, flows=flows)))
    assert {piece.flow for piece in found.pieces} >= {"prefecture-own-use", "wide-area-issuance"}


def test_same() -> None:
    """A network is not different from itself."""
    assert difference(TopologySide(small_topology()), TopologySide(small_topology())).empty


def test_limits_alone() -> None:
    """A limit that changes is a difference, although no packet is."""
    old = EDITS["relayed"](small_topology())
    flow = replace(old.flows["notice"], limits=Limits(rate=5))
    found = difference(TopologySide(old), TopologySide(replace(old, flows={flow.id: flow})))
    assert not found.pieces
    assert [(each.flow, each.old, each.new) for each in found.limits] == [
        (
            "notice",
            ("1000 connections at once", "1000 new connections each second"),
            ("1000 connections at once", "5 new connections each second"),
        )
    ]


def _read(tmp_path: Path, texts: Iterable[str]) -> list[Ruleset]:
    """Return what kernels make of versions of the edge's rules."""
    compile_topology(small_topology(), tmp_path / "build")
    guard = tmp_path / "build" / "edge" / "guard.nft"
    groups = []
    for number, text in enumerate(texts):
        path = tmp_path / f"{number}.nft"
        path.write_text(text, encoding="utf-8")
        groups.append([guard, path])
    return read_rulesets(groups)


@_needs_root
def test_builds(tmp_path: Path) -> None:
    """Rulesets without one of their lines recombine, and single packets of each box go as it says."""
    compile_topology(small_topology(), tmp_path / "build")
    rules = (tmp_path / "build" / "edge" / "nftables.nft").read_text(encoding="utf-8")
    chance = random.Random(7)  # noqa: S311 - the same lines each time
    old, *several = _read(tmp_path, [rules, *(without_a_line(rules, chance) for _ in range(12))])
    different = 0
    for new in several:
        before, after = BuildSide({"edge": old}), BuildSide({"edge": new})
        found = _recombines(before, after)
        different += not found.empty
        for piece in found.pieces:
            space = space_of((before, after), ("edge",), piece.family)
            picked = space.pick(Cutter(space).packets(piece.box))
            assert picked is not None
            if piece.way is Way.FORWARDED:
                hooks = (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING)
                fates = [
                    evaluate(each, hooks, picked.packet, lambda _rule, asked: isinstance(asked, Divert)).fate
                    for each in (old, new)
                ]
                assert (fates[0] is Fate.ACCEPT) is (piece.change is Change.STOPPED)
                assert (fates[1] is Fate.ACCEPT) is (piece.change is Change.PERMITTED)
    assert different >= 3


def _written(tmp_path: Path) -> Path:
    """Return a copy of the miniature network with one flow more, one fewer, and another limit."""
    for name in ("topology.yaml", "municipalities.csv", "prefectures.csv"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / "topology.yaml"
    text = path.read_text(encoding="utf-8")
    start, end = text.index("  prefecture-own-use:\n"), text.index("  ordinance-inquiry:\n    title")
    text = text[:start] + text[end:]
    text = text.replace("{rate: 200/second, connections: 500}", "{rate: 100/second, connections: 500}")
    service = "  audit: {title: {ja: 監査ログ, en: Audit logs}, ports: 17050, alpn: juki-audit/1, prologue: JUKI}\n"
    text = text.replace("services:\n", f"services:\n{service}", 1)
    path.write_text(text.replace("  terminal-operation:\n", _AUDIT + "  terminal-operation:\n", 1), encoding="utf-8")
    return path


_AUDIT = """  audit-log:
    title: {ja: 監査ログの送付, en: Audit logs to the prefecture}
    from: {role: communication-server}
    to: {role: prefecture-server, site: parent}
    service: audit
    assurance: terminate
    basis: {act: 住民基本台帳法, article: 30-24, as_of: 2024-05-27}
    affair: 監査 (audit)
    owner: 市町村 住民課
    review: 2027-03-31
    limits: {rate: 5/second, hours: Mon-Fri 22:00-05:00}

"""


@pytest.mark.parametrize("name", ["diff.txt", "diff.md"])
def test_text(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A person reads who may newly speak with whom, on which law, and where; a change of a flow is a few lines."""
    words = ["--markdown"] if name.endswith("md") else []
    assert main(["diff", str(ROOT / "topology.yaml"), str(_written(tmp_path)), *words]) == 1
    said = capsys.readouterr().out
    path = _TEXTS / name
    if os.environ.get("NETPOLICY_UPDATE_CASES"):
        path.write_text(said, encoding="utf-8")
    assert said == path.read_text(encoding="utf-8")


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program gets every box, whatever a person is shown, and a person is told what is not shown."""
    arguments = ["diff", str(ROOT / "topology.yaml"), str(_written(tmp_path))]
    assert main([*arguments, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["different"]
    flows = {change["flow"]: change for change in told["changes"]}
    assert flows["audit-log"]["basis"].startswith("住民基本台帳法 30-24")
    assert {box["way"] for box in flows["audit-log"]["boxes"]} == {"diverted", "sent"}
    assert main([*arguments, "--most", "1"]) == 1
    assert "and 4 more lines, not shown" in capsys.readouterr().out


def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be compared is refused with what would be right."""
    topology = str(ROOT / "topology.yaml")
    assert main(["diff", topology, str(tmp_path / "nothing")]) == 2
    assert "is neither a topology, nor a build" in capsys.readouterr().err
    assert main(["diff", topology, str(tmp_path)]) == 2
    assert "goes with another topology" in capsys.readouterr().err
    assert main(["diff", str(tmp_path), str(tmp_path)]) == 2
    assert "it is no build" in capsys.readouterr().err
    assert main(["diff", str(tmp_path), "live"]) == 2
    assert "--firewall must say" in capsys.readouterr().err
    assert main(["diff", topology, topology, "--firewall", "tokyo-f"]) == 2
    assert "did you mean 'tokyo-fw'?" in capsys.readouterr().err


@_needs_root
def test_build_without_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A build that misses a file, or whose rules nft refuses, is bad input."""
    for name in ("old", "new"):
        compile_topology(small_topology(), tmp_path / name)
    rules = tmp_path / "new" / "core" / "nftables.nft"
    rules.write_text(rules.read_text(encoding="utf-8") + "table inet {", encoding="utf-8")
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 2
    assert "'{'; expected 'table FAMILY NAME'" in capsys.readouterr().err
    rules.unlink()
    assert main(["diff", str(tmp_path / "old"), str(tmp_path / "new")]) == 2
    assert "nftables.nft is missing" in capsys.readouterr().err


@_needs_root
@pytest.mark.parametrize("touched", [False, True])
def test_live(tmp_path: Path, touched: bool) -> None:
    """A kernel that runs a build is not different from it, until somebody adds a rule."""
    build = tmp_path / "build"
    compile_topology(small_topology(), build)
    rule = "insert rule inet netpolicy forward tcp dport 22 meta mark set 0x4e000000 accept"
    with Lab(small_topology(), build) as lab:
        edge = lab.namespace("edge")
        if touched:
            assert edge.run(["nft", rule], timeout=5).returncode == 0
        done = edge.run([*_NETPOLICY, "diff", str(build), "live", "--firewall", "edge"], timeout=60)
    assert (done.returncode, done.stderr) == (int(touched), "")
    assert ("tcp/22" in done.stdout) is touched


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
@_needs_root
@pytest.mark.parametrize(("kind", "code", "said"), [("topology", 0, ""), ("build", 3, "takes root")])
def test_without_root(kind: str, code: int, said: str) -> None:
    """Topologies are compared by anyone; builds take root, and who is not root is told so."""
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        Path(directory).chmod(0o755)
        places = [str(ROOT / "topology.yaml")] * 2
        if kind == "build":
            places = [f"{directory}/{name}" for name in ("old", "new")]
            for place, name in zip(places, ("hours", "ports"), strict=True):
                compile_topology(EDITS[name](small_topology()), Path(place))
                Path(place).chmod(0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        done = subprocess.run(
            [*nobody, *_NETPOLICY, "diff", *places],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )
    assert done.returncode == code, done.stderr
    assert said in done.stderr


def _span(first: int, last: int) -> tuple[Span, ...]:
    return (Span(first, last),)


def test_names() -> None:
    """Sets of addresses are told by the names that fit them, and by prefixes where none does."""
    topology: Topology = small_topology()
    names = Names(topology)
    town = topology.segments["town"].prefixes[0]
    whole = _span(int(town.network_address), int(town.broadcast_address))
    assert names.addresses(whole, Family.IPV4) == ("segment town",)
    alpha = int(topology.nodes["alpha"].interface.addresses[0])
    assert names.addresses(_span(alpha, alpha), Family.IPV4) == ("alpha",)
    assert names.addresses(_span(alpha + 10, alpha + 11), Family.IPV4) == ("10.77.1.20/31",)
    but = (*_span(int(town.network_address), alpha - 1), *_span(alpha + 1, int(town.broadcast_address)))
    assert names.addresses(but, Family.IPV4) == ("segment town but alpha",)
