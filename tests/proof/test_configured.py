"""Theorem `engines` by the programs' own reading: what they are told that opens something is named, however written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ids_rules.lock import SidLock
from netpolicy.build import compile_files, write_build
from netpolicy.proof.relay_reading import ReadingError, statements
from netpolicy.proof.theorems.configured import configured
from netpolicy.rooted import Root
from netpolicy.rooted.build import look
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology

_TOPOLOGY = small_topology("configured", Assurance.TERMINATE)
_YAML, _WIRE, _RULES = "suricata/suricata.yaml", "suricata/engine-wan.yaml", "suricata/netpolicy.rules"
_LIMITS, _RELAY = "suricata/threshold.config", "relay/haproxy.cfg"


@pytest.fixture(name="files", scope="module")
def _files() -> Mapping[str, str]:
    return compile_files(_TOPOLOGY, SidLock())


def _found(files: Mapping[str, str], build: Path) -> list[str]:
    root = Root.find()
    assert root is not None, "make setup"
    write_build(build, files)
    told = look(root, build, ["edge"])["edge"]
    return [finding.what for finding in configured(_TOPOLOGY, "edge", build / "edge", told)]


def test_compiled_is_closed(files: Mapping[str, str], tmp_path: Path) -> None:
    """What is compiled is what is demanded; both programs take it."""
    assert _found(files, tmp_path / "build") == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param(_YAML, "exception-policy: drop-flow", "exception-policy: ignore", id="exceptions ignored"),
        pytest.param(_YAML, "  error-policy: drop-flow", "  error-policy: ignore", id="errors ignored"),
        pytest.param(_YAML, "  midstream: false", "  midstream: true", id="midstream"),
        pytest.param(_YAML, "      policy: drop #", "      policy: oob #", id="urgent data"),
        pytest.param(_YAML, "checksum-validation: yes", "checksum-validation: no", id="checksums"),
        pytest.param(_YAML, "    depth: 0", "    depth: 1mb", id="depth"),
        pytest.param(_YAML, "    depth: 0", "    depth: 0\n    raw: no", id="no raw stream"),
        pytest.param(_YAML, "  vxlan: {enabled: false}", "  vxlan: {enabled: true}", id="a tunnel looked into"),
        pytest.param(_YAML, "encryption-handling: full", "encryption-handling: bypass", id="bypass"),
        pytest.param(_YAML, "    http: {enabled: yes}", "    http: {enabled: no}", id="a parser less"),
        pytest.param(_YAML, "  inline: yes\n", "  inline: yes\n  bypass: yes\n", id="stream bypass"),
        pytest.param(_YAML, "  inline: yes\n", "  inline: yes\n  async-oneside: true\n", id="one side"),
        pytest.param(_YAML, "rule-files: [netpolicy.rules]", "rule-files: [other.rules]", id="other rules"),
        pytest.param(_YAML, "default-rule-path: /etc/suricata", "default-rule-path: /tmp", id="rules elsewhere"),
        pytest.param(_YAML, "asn1-max", "action-order: [pass, drop]\nasn1-max", id="order of actions"),
        pytest.param(_YAML, "asn1-max", "multi-detect: {enabled: yes}\nasn1-max", id="tenants"),
        pytest.param(_YAML, "asn1-max", "include: /etc/passwd\nasn1-max", id="include"),
        pytest.param(
            _YAML, "sensor-name: edge", 'sensor-name: "edge\\nexception-policy = drop-flow"', id="forged lines"
        ),
        pytest.param(_WIRE, "copy-mode: ips", "copy-mode: tap", id="looks on"),
        pytest.param(_WIRE, "copy-iface: inner", "copy-iface: lan", id="another wire"),
        pytest.param(_WIRE, "    threads: 1", "    bypass: yes\n    threads: 1", id="wire bypass"),
        pytest.param(_WIRE, "af-packet:", "exception-policy: ignore\naf-packet:", id="policy in the second file"),
        pytest.param(_RULES, "\ndrop ", "\npass ", id="pass for drop"),
        pytest.param(_RULES, "\n\n", "\n\npass ip any any -> any any (sid:1;)\n", id="pass first"),
        pytest.param(_RULES, "; sid:", "; bypass; sid:", id="bypass in a rule"),
        pytest.param(_LIMITS, "\n", "\nsuppress gen_id 1, sig_id 1000003\n", id="suppressed"),
        pytest.param(
            _LIMITS,
            "\n",
            "\nrate_filter gen_id 1, sig_id 1000003, track by_src, count 1, seconds 9, new_action pass, timeout 9\n",
            id="another action by rate",
        ),
        pytest.param(_RELAY, "verify required strict-sni", "verify none strict-sni # verify required", id="comment"),
        pytest.param(_RELAY, "verify required strict-sni", 'verify "none" strict-sni', id="quotes"),
        pytest.param(_RELAY, "crl-file /etc/haproxy/tls/crl.pem verify required s", "verify required s", id="no CRL"),
        pytest.param(_RELAY, "verify required sni var(sess.server)", "verify none sni var(sess.server)", id="server"),
        pytest.param(_RELAY, "sni var(sess.server)", "verifyhost x sni var(sess.server)", id="another name"),
        pytest.param(_RELAY, "no-ssl-reuse", "no-ssl-reuse no-tls-tickets ssl-max-ver TLSv1.2", id="old TLS"),
        pytest.param(_RELAY, "ssl-min-ver TLSv1.3", "ssl-min-ver TLSv1.0", id="old TLS for all"),
        pytest.param(
            _RELAY,
            "    tcp-request content set-var(sess.uri)",
            "    tcp-request content accept\n\\g",
            id="accept first",
        ),
        pytest.param(_RELAY, "str(identity) unless", "str(identity) if FALSE #unless", id="identity neutralised"),
        pytest.param(_RELAY, "src,map_ip(/etc/haproxy/notice", "str(x),map_ip(/etc/haproxy/other", id="other map"),
        pytest.param(_RELAY, "global\n", "global\n    stats socket /tmp/s level admin\n", id="socket"),
        pytest.param(_RELAY, "global\n", "global\n    lua-load /tmp/x.lua\n", id="script"),
        pytest.param(_RELAY, "global\n", "global\n    setenv X y\n", id="environment"),
        pytest.param(_RELAY, "global\n", ".if defined(X)\n.endif\nglobal\n", id="condition"),
        pytest.param(_RELAY, "defaults\n", "listen more\n    bind :80\ndefaults\n", id="another listener"),
        pytest.param(_RELAY, "ssl-server-verify required", "ssl-server-verify none", id="servers unverified"),
        pytest.param(_RELAY, "default_backend notice", "default_backend other", id="other servers"),
    ],
)
def test_what_opens_is_named(files: Mapping[str, str], tmp_path: Path, file: str, old: str, new: str) -> None:
    """Each is a finding, by what the engine or HAProxy itself reads."""
    path = f"edge/{file}"
    text = files[path]
    assert old in text
    changed = text.replace(old, new.replace("\\g", old), 1)
    assert _found({**files, path: changed}, tmp_path / "build") != []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a  b\tc # d", ("a", "b", "c")),
        ('a "b c" d"e"f#g', ("a", "b c", "def")),
        (r'a "b\"#\\\$"', ("a", r'b"#\$')),
        ('a "" b', ("a", "", "b")),
    ],
)
def test_words(line: str, words: tuple[str, ...]) -> None:
    """Words are HAProxy's (Configuration Manual, 2.2)."""
    assert statements(f"{line}\n")[0].words == words


@pytest.mark.parametrize("line", ["a 'b'", "a b\\ c", 'a "$HOME"', 'a "b', "a\x0bb", ".if 1", f"a {'b' * 2048}"])
def test_unclear_words_are_refused(line: str) -> None:
    """What is not needed is not read."""
    with pytest.raises(ReadingError):
        statements(f"{line}\n")
