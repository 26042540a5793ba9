"""What a run leaves behind for people and for CI."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from scapy.utils import RawPcapNgReader

from conformance import run
from conformance.lab.preflight import CLIENTS, Missing
from conformance.outcome import Status
from conformance.report import print_report, write_report
from conformance.report.junit import junit
from conformance.results import Results
from conformance.run import Summary, conform
from netpolicy.build import BuildError, compile_topology
from tests.lab.small import small_topology

_JUNIT = {
    Status.DEVIATION: ("failure", "failures"),
    Status.ERROR: ("error", "errors"),
    Status.SKIP: ("skipped", "skipped"),
}
"""How JUnit calls it: an element, and the attribute that counts it."""


@pytest.fixture(scope="module", name="summary")
def _summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return a run of a build that permits one port too many at one firewall."""
    topology = small_topology("report")
    build = tmp_path_factory.mktemp("report") / "build"
    compile_topology(topology, build)
    ruleset = build / "edge/nftables.nft"
    text = ruleset.read_text(encoding="utf-8")
    permit = "10.77.1.10 . 10.77.3.10 . tcp . 17000"
    line = next(line for line in text.splitlines() if permit in line)
    ruleset.write_text(text.replace(line, line + "\n" + line.replace("17000", "17001")), encoding="utf-8")
    return conform(topology, build, firewalls=["edge"], stages=["matrix", "attack"])


def test_json_holds_every_deviation(summary: Summary, tmp_path: Path) -> None:
    """conformance.json says that it does not hold, how many cases passed, and which flow deviated where."""
    write_report(summary, tmp_path / "out")
    found = json.loads((tmp_path / "out/conformance.json").read_text(encoding="utf-8"))
    assert found["holds"] is False
    assert found["counts"]["pass"] == summary.results.count(Status.PASS) > 500
    assert sum(each["cases"] for each in found["passed"]) == found["counts"]["pass"]
    (deviation,) = found["outcomes"]
    assert deviation["firewall"] == "edge"
    assert deviation["expected"] == {"verdict": "deny", "flow": "notice", "reason": "no_flow", "protocol": None}
    assert deviation["observed"] == "it passed, out of wan"
    assert len(deviation["frames"]) == 2


def test_junit_is_well_formed(summary: Summary, tmp_path: Path) -> None:
    """junit.xml counts what it holds and what conformance.json does, and its failure names flow and firewall."""
    write_report(summary, tmp_path / "out")
    counts = json.loads((tmp_path / "out/conformance.json").read_text(encoding="utf-8"))["counts"]
    root = ET.fromstring((tmp_path / "out/junit.xml").read_bytes())  # noqa: S314 - our own
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        for tag, attribute in _JUNIT.values():
            assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{tag}"))
    for status, (_, attribute) in _JUNIT.items():
        assert sum(int(suite.attrib[attribute]) for suite in root) == counts[status]
    passed = [re.search(r"\((\d+) cases\)$", case.attrib["name"]) for case in root.iter("testcase") if len(case) == 0]
    assert sum(int(each[1]) for each in passed if each) == counts["pass"]
    (failure,) = root.findall("testsuite/testcase/failure")
    assert "flow notice" in failure.attrib["message"]
    assert [case.attrib["classname"] for case in root.iter("testcase") if len(case)] == ["matrix.edge"]
    assert [suite.attrib["name"] for suite in root] == ["matrix", "attack"]


def test_what_was_not_tried_is_said_everywhere(summary: Summary, tmp_path: Path) -> None:
    """On the terminal, in JSON, and as skipped in JUnit; and a run without a case has no verdict."""
    line = "stage limits: nothing was there to try"
    said = replace(summary, left_out=[line])
    write_report(said, tmp_path / "out")
    assert json.loads((tmp_path / "out/conformance.json").read_text())["left_out"] == [line]
    *_, suite = ET.parse(tmp_path / "out/junit.xml").getroot()  # noqa: S314 - our own
    assert (suite.attrib["name"], suite.attrib["skipped"]) == ("left out", "1")
    assert [skipped.attrib["message"] for skipped in suite.iter("skipped")] == [line]
    output = StringIO()
    console = Console(file=output, width=200, markup=False, emoji=False)
    print_report(said, console)
    assert f"left out: {line}" in output.getvalue()
    print_report(replace(summary, results=Results()), console)
    assert output.getvalue().endswith("no verdict: nothing was tried\n")


def test_captures_hold_what_was_sent_and_seen(summary: Summary, tmp_path: Path) -> None:
    """Each deviation's capture has the probe, what came out, and the expectation as a comment."""
    write_report(summary, tmp_path / "out")
    (capture,) = (tmp_path / "out/pcap").iterdir()
    with RawPcapNgReader(str(capture)) as reader:
        packets = [(frame, metadata.comments) for frame, metadata in reader]
    (outcome,) = summary.results.outcomes
    assert tuple(frame for frame, _ in packets) == outcome.frames
    assert "expected deny (no_flow, flow notice)" in str(packets[0][1])


def test_terminal_names_the_flow(summary: Summary) -> None:
    """The last lines on the terminal say what deviates and that it does not hold."""
    output = StringIO()
    print_report(summary, Console(file=output, width=200, markup=False, emoji=False))
    text = output.getvalue()
    assert "flows concerned: notice" in text
    assert "does not hold: 1 deviations, 0 errors, 0 skips" in text


def test_a_foreign_directory_is_not_replaced(summary: Summary, tmp_path: Path) -> None:
    """A report replaces an earlier report and nothing else."""
    write_report(summary, tmp_path / "out")
    (tmp_path / "out/stale").write_text("")
    write_report(summary, tmp_path / "out")
    assert not (tmp_path / "out/stale").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter").write_text("dear")
    with pytest.raises(BuildError, match=r"holds no conformance\.json"):
        write_report(summary, tmp_path / "home")
    assert (tmp_path / "home/letter").read_text() == "dear"


def test_what_cannot_run_is_a_skip_and_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the clients' packages the stage is skipped by name, and the run does not hold."""
    lacking = Missing("Python module telnetlib3", "not installed", CLIENTS)
    monkeypatch.setattr(run, "missing", lambda: (lacking,))
    topology = small_topology("skipped")
    compile_topology(topology, tmp_path / "build")
    summary = conform(topology, tmp_path / "build", stages=["boundary", "client"])
    (outcome,) = summary.results.outcomes
    assert (outcome.status, outcome.stage, outcome.probe) == (Status.SKIP, "client", "Python module telnetlib3")
    assert summary.exit_code == 1
    (skipped,) = ET.fromstring(junit(summary)).findall("testsuite[@name='client'][@skipped='1']/testcase/skipped")  # noqa: S314 - our own
    assert "not installed" in skipped.attrib["message"]


def test_a_report_that_cannot_be_written_leaves_the_last_one(
    summary: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure in the middle of writing changes nothing, and leaves nothing half written beside it."""
    write_report(summary, tmp_path / "out")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    too_long = replace(summary.results.outcomes[0], firewall="x" * 300)
    monkeypatch.setattr(summary.results, "outcomes", [too_long])
    with pytest.raises(OSError, match="too long"):
        write_report(summary, tmp_path / "out")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
