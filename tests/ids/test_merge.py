"""``netpolicy ids merge``: a vendor's rules beside ours, or a word on why not and nothing changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from ids_rules.vendor import VendorFile, VendorRule, merge, read_vendor
from netpolicy.build import compile_topology
from netpolicy.cli import main
from tests.ids.conversations import CONVERSATIONS
from tests.ids.engine import replay
from tests.lab.small import small_topology

_GOOD = """\
# Of a vendor.
alert http $HOME_NET any -> $EXTERNAL_NET any (msg:"V agent"; flow:established,to_server; http.user_agent; \\
    content:"evil"; reference:cve,2021-1; classtype:trojan-activity; sid:2000001; rev:1;)
#alert tcp any any -> any any (msg:"V off"; sid:2000002; rev:1;)
alert tcp any any -> any any (msg:"V helo"; content:"EHLO"; metadata:signature v-helo; sid:2000003; rev:4;)
"""


@pytest.fixture
def build(tmp_path: Path) -> Path:
    """Return a build of a small network."""
    compile_topology(small_topology("merge"), tmp_path / "build")
    return tmp_path / "build"


def _tree(build: Path) -> dict[str, str]:
    files = sorted(path for path in build.rglob("*") if path.is_file())
    return {str(path.relative_to(build)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _merge(build: Path, *texts: str) -> int:
    argv = ["ids", "merge", "--build", str(build)]
    for number, text in enumerate(texts):
        path = build.parent / f"v{number}.rules"
        path.write_text(text, encoding="utf-8")
        argv += ["--vendor", str(path)]
    return main(argv)


def test_a_vendors_rules_stand_beside_ours(build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both raise alerts; ours are what they were; the manifest has new hashes, and says what was merged."""
    ours = {path: path.read_bytes() for path in build.rglob("netpolicy.rules")}
    assert _merge(build, _GOOD) == 0
    assert "2 rules from 1 files beside ours" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in ours} == ours
    manifest = json.loads((build / "manifest.json").read_text(encoding="utf-8"))
    tree = _tree(build)
    assert manifest["files_sha256"] == {path: tree[path] for path in tree if path != "manifest.json"}
    assert manifest["vendor_sha256"] == {"v0.rules": hashlib.sha256(_GOOD.encode()).hexdigest()}
    engine = next(build.glob("*/suricata/engine-*.yaml"))
    raised = {
        each.kind
        for each in replay(CONVERSATIONS["smtp"].packets(), engine.parent, engine.stem.removeprefix("engine-"))
    }
    assert raised >= {"protocol-smtp", "v-helo"}


def test_merging_again_replaces(build: Path) -> None:
    """The same bytes for the same rules, and other ones take their place."""
    assert _merge(build, _GOOD) == 0
    first = _tree(build)
    assert _merge(build, _GOOD) == 0
    assert _tree(build) == first
    other = 'alert tcp any any -> any any (msg:"V other"; content:"x"; sid:2000009; rev:1;)\n'
    assert _merge(build, other) == 0
    assert "V helo" not in next(build.glob("*/suricata/vendor.rules")).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (("nonsense\n",), "v0.rules:1:1: error: 'nonsense' is no rule"),
        (("# nothing\n",), "v0.rules:1:1: error: there is no rule in it"),
        ((_GOOD, _GOOD), "v1.rules:2:1: error: sid 2000001 stands at"),
        ((_GOOD + _GOOD,), "v0.rules:7:1: error: sid 2000001 stands at"),
        ((_GOOD.replace("2000001", "1000001"),), "v0.rules:2:1: error: sid 1000001 is one of ours"),
        ((_GOOD.replace("sid:2000003; ", ""),), "v0.rules:5:1: error: suricata-update cannot parse this"),
        ((_GOOD.replace("\nalert tcp", "\npass tcp"),), "v0.rules:5:1: error: action 'pass' is not taken"),
        ((_GOOD.replace("\nalert tcp", "\nalrt tcp"),), "did you mean 'alert'?"),
        ((_GOOD.replace("rev:4;", "rev:4; bypass;"),), "v0.rules:5:1: error: 'bypass' takes connections away"),
        (
            (_GOOD.replace('content:"EHLO"', 'cntent:"EHLO"'),),
            "v0.rules:5:1: error: Suricata does not take this rule",
        ),
        ((_GOOD.replace("$EXTERNAL_NET", "$NOWHERE"),), "v0.rules:2:1: error: Suricata does not take this rule"),
        ((_GOOD.replace('content:"EHLO"', "dataset:isset,x,type string,load x"),), "v0.rules:5:1: error: Suricata"),
    ],
)
def test_what_is_refused(texts: tuple[str, ...], said: str, build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its line is named, and the build is what it was."""
    before = _tree(build)
    assert _merge(build, *texts) == 2
    assert said in capsys.readouterr().err
    assert _tree(build) == before


def test_what_is_no_build_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to put rules beside."""
    assert _merge(tmp_path / "none", _GOOD) == 2
    assert "it is no build" in capsys.readouterr().err


def test_a_rule_that_suricata_update_leaves_out_is_missed(tmp_path: Path) -> None:
    """What comes back is compared with what went in."""
    path = tmp_path / "v.rules"
    path.write_text(_GOOD, encoding="utf-8")
    (file,) = read_vendor([path])
    assert [(rule.sid, rule.line) for rule in file.rules] == [(2000001, 2), (2000003, 5)]
    assert "V agent" in merge([file])
    with pytest.raises(Exception, match="left out 1 rules, the first of them sid 2000007"):
        merge([VendorFile(path, file.text, (*file.rules, VendorRule(1, 2000007, 9)))])
