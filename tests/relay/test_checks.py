"""Every check of the relay is needed: without it, something that must be stopped is not, or not for what it is."""

from __future__ import annotations

import re
import shutil

import pytest

from conformance.inspection import run_inspection
from conformance.lab.scope import Scope
from conformance.outcome import Outcome, Status, Verdict
from tests.relay.conftest import Living

_CHECKS = {
    "the client's certificate": (r"^(    bind .*)verify required", r"\1verify optional", "no certificate"),
    "the client's revocation": (r"^(    bind .*)crl-file \S+ ", r"\1", "a revoked certificate"),
    "the client's identity": (r"^.* str\(identity\) .*\n", "", "the certificate of another of its role and site"),
    "the application protocol": (r"^.* str\(alpn\) .*\n", "", "no ALPN"),
    "the name": (r"strict-sni ", "", "another name"),
    "the version": (r"^    ssl-default-bind-options ssl-min-ver TLSv1.3.*\n", "", "TLS 1.2"),
    "the request's first bytes": (
        r"^    tcp-request content accept .*\n.*\n    tcp-request content reject\n",
        "",
        "HTTP inside TLS",
    ),
    "the answer's first bytes": (r"^    tcp-response .*\n", "", "an HTTP answer inside TLS"),
    "the server's certificate": (
        r"^(    server .*)verify required",
        r"\1verify none",
        "a certificate of another authority of the same name, at the server",
    ),
    "the server's revocation": (r"crl-file \S+ ", "", "a revoked certificate, at the server"),
    "the server's name": (
        r"^(    server .*)sni \S+ ",
        r"\1",
        "the certificate of another of its role and site, at the server",
    ),
    "the server's version": (r"^    ssl-default-server-options .*\n", "", "TLS 1.2, at the server"),
    "no resumption": (
        r"^    tune.ssl.cachesize 0\n|^    ssl-default-bind-options .*\n",
        "",
        "a session that is asked to be resumed",
    ),
}
"""What is taken out of ``haproxy.cfg``, and the case that tells."""


def _inspect(living: Living, *labels: str) -> list[Outcome]:
    for forged in living.identities.directory.glob(".*"):
        shutil.rmtree(forged)
    lab = living.lab

    def wanted(label: str) -> bool:
        return not labels or label in labels

    return run_inspection(
        lab, living.identities, living.expectation, Scope(lab), wanted=lambda case: wanted(case.label)
    )


def test_all_cases_hold(living: Living) -> None:
    """Both ends meet the relay, which lets nothing through that is not what it should be."""
    outcomes = _inspect(living)
    assert [f"{each.probe}: {each.observed}" for each in outcomes if each.status is not Status.PASS] == []
    assert sum(each.expected.verdict is Verdict.DENY for each in outcomes) >= 100


@pytest.mark.parametrize("check", _CHECKS)
def test_each_check_is_needed(check: str, living: Living) -> None:
    """Taken out, its case no longer holds: at both firewalls, or at the one before the server if it is the server's."""
    taken, instead, label = _CHECKS[check]
    changed = [living.lab.relays["core"]] if "server's" in check else living.lab.relays.values()
    before = {relay: (relay.files / "haproxy.cfg").read_text() for relay in changed}
    for relay, text in before.items():
        without = re.sub(taken, instead, text, flags=re.MULTILINE)
        assert without != text
        (relay.files / "haproxy.cfg").write_text(without)
    try:
        outcomes = _inspect(living, label)
    finally:
        for relay, text in before.items():
            (relay.files / "haproxy.cfg").write_text(text)
            relay.reload()
    assert outcomes
    assert any(each.status is Status.DEVIATION for each in outcomes)


@pytest.mark.parametrize("name", ["notice.clients.map", "notice.servers.map"])
@pytest.mark.parametrize("firewall", ["edge", "core"])
def test_each_line_of_a_map_is_needed(firewall: str, name: str, living: Living) -> None:
    """Without its line, the pair that is permitted does not pass."""
    relay = living.lab.relays[firewall]
    path = relay.files / name
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 2  # one of each family
    path.write_text(lines[0])
    try:
        outcomes = _inspect(living, "both certificates")
    finally:
        path.write_text("".join(lines))
        relay.reload()
    assert {each.family: each.status for each in outcomes} == {4: Status.PASS, 6: Status.DEVIATION}
