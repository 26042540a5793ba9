"""The report directory: written beside its place, and exchanged with what was there."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from conformance.outcome import Outcome, Status
from conformance.report.captures import capture
from conformance.report.junit import MAX_OUTCOMES, junit
from conformance.results import why
from conformance.run import Summary
from netpolicy.build.tree import replace_tree

JSON = "conformance.json"
MAX_CAPTURES = 2000
"""Deviations with a capture of their own; a firewall that is open to all has hundreds of thousands."""


def write_report(summary: Summary, directory: Path) -> None:
    """Write ``conformance.json``, ``junit.xml`` and ``pcap/*.pcapng``.

    Raises:
        BuildError: `directory` is neither empty nor an earlier report.
        OSError: It cannot be written.

    """
    files: dict[str, str | bytes] = {
        JSON: json.dumps(document(summary), ensure_ascii=False, indent=1) + "\n",
        "junit.xml": junit(summary),
    }
    deviations = [each for each in summary.results.outcomes if each.status is Status.DEVIATION and each.frames]
    for number, outcome in enumerate(deviations[:MAX_CAPTURES], 1):
        name = (
            f"pcap/{number:04d}-{outcome.firewall or 'network'}-{outcome.expected.flow or why(outcome.expected)}.pcapng"
        )
        files[name.replace(" ", "-")] = capture(outcome)
    replace_tree(directory, files, JSON)


def document(summary: Summary) -> dict[str, Any]:
    """Return the content of ``conformance.json``."""
    results = summary.results
    return {
        "format": 1,
        "network": summary.topology.id,
        "topology_sha256": summary.topology.digest,
        "as_of": summary.topology.as_of.isoformat(),
        "begun": summary.begun.isoformat(timespec="seconds"),
        "holds": summary.exit_code == 0,
        "stages": list(summary.stages),
        "firewalls": list(summary.firewalls),
        "left_out": summary.left_out,
        "seconds": {stage: round(seconds, 1) for stage, seconds in summary.seconds.items()},
        "counts": {status.value: results.count(status) for status in Status},
        "proofs": {
            "deny": "arrived at the firewall; a sentinel passed before and after; did not come out; the counter of the "
            "expected reason, and no other, rose by exactly the probes sent",
            "permit": "came out once, by the expected interface; its answer came back; the flow's counter rose",
            "exchange": "handshake with both certificates, request, answer; or the server's application read nothing",
            "client": "no answer; the server accepted nothing; the counter rose; the same client succeeds beside it",
        },
        "pairs": {
            "joined": len(
                {
                    (source.id, destination.id)
                    for pairs in summary.crossings.by_firewall.values()
                    for source, destination, _ in pairs
                }
            ),
            "same_segment": summary.crossings.same_segment,
            "not_joined": summary.crossings.not_joined,
        },
        "passed": [
            {
                "stage": each.stage,
                "firewall": each.firewall or None,
                "verdict": each.verdict,
                "why": each.why,
                "cases": n,
            }
            for each, n in sorted(results.passed.items())
        ],
        "outcomes": [_plain(outcome) for outcome in results.outcomes[:MAX_OUTCOMES]],
        "outcomes_left_out": max(0, len(results.outcomes) - MAX_OUTCOMES),
        "matrix": [
            {"from": source, "to": destination, **_by_verdict(cell)}
            for (source, destination), cell in results.matrix.items()
        ],
    }


def _by_verdict(cell: dict[str, str]) -> dict[str, Any]:
    """Return how many probes had each verdict, and all labels but those denied."""
    counts = Counter(cell.values())
    named = {
        verdict: [probe for probe, each in cell.items() if each == verdict] for verdict in counts if verdict != "deny"
    }
    return {"denied": counts.get("deny", 0), **named}


def _plain(outcome: Outcome) -> dict[str, Any]:
    expected = outcome.expected
    return {
        "stage": outcome.stage,
        "status": outcome.status.value,
        "firewall": outcome.firewall,
        "from": outcome.source,
        "to": outcome.destination,
        "family": outcome.family,
        "probe": outcome.probe,
        "expected": {
            "verdict": expected.verdict.value,
            "flow": expected.flow,
            "reason": expected.reason.value if expected.reason else None,
            "protocol": expected.protocol,
        },
        "observed": outcome.observed,
        "frames": [frame.hex() for frame in outcome.frames],
    }
