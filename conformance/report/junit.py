"""Results as JUnit XML, for CI: a suite for each stage, a case for each firewall and reason, and each that failed."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from conformance.outcome import Status
from conformance.results import why
from conformance.run import Summary

MAX_OUTCOMES = 20_000
"""Deviations, errors and skips that a report holds one by one; more say nothing that these do not."""

_LEFT_OUT = "left out"
_TAGS = {Status.DEVIATION: "failure", Status.ERROR: "error", Status.SKIP: "skipped", Status.FAULT: "error"}


def junit(summary: Summary) -> bytes:
    """Return the document, UTF-8."""
    root = ET.Element("testsuites", name=f"netpolicy conform {summary.topology.id}")
    for stage in summary.stages:
        suite = ET.SubElement(root, "testsuite", name=stage, time=f"{summary.seconds.get(stage, 0.0):.1f}")
        counts = dict.fromkeys(_TAGS.values(), 0)
        tests = 0
        for passed, cases in sorted(summary.results.passed.items()):
            if passed.stage == stage:
                tests += 1
                name = f"{passed.verdict} {passed.why} ({cases} cases)"
                ET.SubElement(suite, "testcase", classname=_class(stage, passed.firewall), name=name)
        for outcome in summary.results.outcomes[:MAX_OUTCOMES]:
            if outcome.stage != stage:
                continue
            tests += 1
            tag = _TAGS[outcome.status]
            counts[tag] += 1
            expected = outcome.expected
            flow = f", flow {expected.flow}" if expected.flow else ""
            case = ET.SubElement(
                suite,
                "testcase",
                classname=_class(stage, outcome.firewall),
                name=f"{outcome.source} to {outcome.destination}: {outcome.probe}, IPv{outcome.family}",
            )
            message = f"expected {expected.verdict} ({why(expected)}{flow}): {outcome.observed}"
            ET.SubElement(case, tag, message=message)
        suite.set("tests", str(tests))
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(attribute, str(counts[tag]))
    if summary.left_out:
        number = str(len(summary.left_out))
        suite = ET.SubElement(root, "testsuite", name=_LEFT_OUT, time="0.0", tests=number, failures="0", errors="0")
        suite.set("skipped", number)
        for line in summary.left_out:
            case = ET.SubElement(suite, "testcase", classname=_LEFT_OUT, name=line.partition(":")[0])
            ET.SubElement(case, "skipped", message=line)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _class(stage: str, firewall: str | None) -> str:
    return f"{stage}.{firewall}" if firewall else stage
