"""Every file of a build is the compiler's or is judged: what stands beside a good ruleset is not passed over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ids_rules.lock import SidLock
from netpolicy.build import compile_files, write_build
from netpolicy.build.compared import compare, read_tree
from netpolicy.build.tree import replace_tree
from netpolicy.build.vendor import read_build, with_vendor
from netpolicy.proof.prove import prove
from netpolicy.proof.read import LoadError
from netpolicy.topology.model import Assurance, Topology
from tests.lab.small import small_topology


@pytest.fixture(name="both")
def _both() -> Topology:
    """Return the small network with a flow that is relayed."""
    return small_topology("files", Assurance.TERMINATE)


@pytest.fixture(name="build")
def _build(both: Topology, tmp_path: Path) -> Path:
    write_build(tmp_path / "build", compile_files(both, SidLock()))
    return tmp_path / "build"


def _found(topology: Topology, build: Path) -> dict[str, str]:
    """Return what differs, by path; of several the last."""
    return {each.path: each.what for each in compare(topology, SidLock(), read_tree(build))}


def _hash_in_step(build: Path) -> None:
    """Write the manifest as somebody would who hides an edit."""
    path = build / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["files_sha256"] = {
        each.relative_to(build).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in sorted(build.rglob("*"))
        if each.is_file() and each != path
    }
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(build: Path) -> None:
        path = build / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def _written(name: str, text: str) -> Callable[[Path], None]:
    def edit(build: Path) -> None:
        (build / name).write_text(text, encoding="utf-8")

    return edit


def _linked(name: str) -> Callable[[Path], None]:
    def edit(build: Path) -> None:
        content = (build / name).read_bytes()
        elsewhere = build.parent / "elsewhere"
        elsewhere.write_bytes(content)
        (build / name).unlink()
        (build / name).symlink_to(elsewhere)

    return edit


def _piped(name: str) -> Callable[[Path], None]:
    def edit(build: Path) -> None:
        (build / name).unlink(missing_ok=True)
        os.mkfifo(build / name)

    return edit


_EMPTY = "suricata/names-notice.lst"
EDITS = {
    "one signature that passes all": _written("edge/suricata/netpolicy.rules", "pass ip any any -> any any (sid:1;)\n"),
    "exception policies": _replaced("edge/suricata/suricata.yaml", "drop-flow", "ignore"),
    "a comment that reads well": _replaced(
        "edge/relay/haproxy.cfg", "verify required strict-sni", "verify none strict-sni # verify required"
    ),
    "identity neutralised": _replaced("edge/relay/identity.lua", "return read and found", "return true and found"),
    "a map of another": _replaced("edge/relay/notice.clients.map", "alpha", "beta"),
    "a bridge": _replaced("edge/ip.batch", "link set dev lan ", "link add br0 type bridge\nlink set dev lan "),
    "a default route": _written("edge/ip6.batch", "route add default dev wan\n"),
    "weak settings": _replaced("edge/sysctl.conf", "rp_filter = 1", "rp_filter = 0"),
    "no room for connections": _replaced("edge/machine.conf", "nf_conntrack_max = ", "nf_conntrack_max = 0"),
    "forwarding early": _replaced("edge/sysctl.conf", "net/ipv4/ip_forward = 0", "net/ipv4/ip_forward = 1"),
    "more forwarding": _replaced("edge/forwarding.conf", "ip_forward = 1", "ip_forward = 1\nkernel/sysrq = 1"),
    "a list emptied": _written(f"edge/{_EMPTY}", ""),
    "a signature silenced": _replaced(
        "edge/suricata/threshold.config", "# Sig", "suppress gen_id 1, sig_id 1000000\n# Sig"
    ),
    "a file more": _written("edge/suricata/more.rules", "pass ip any any -> any any (sid:2;)\n"),
    "a file less": lambda build: (build / "edge/suricata/threshold.config").unlink(),
    "a link": _linked("edge/sysctl.conf"),
    "a pipe": _piped("edge/ip.batch"),
    "a pipe beside": _piped("edge/beside"),
    "open to all": lambda build: (build / "edge/ip.batch").chmod(0o666),
    "line endings": lambda build: (build / "edge/ip.batch").write_bytes(
        (build / "edge/ip.batch").read_bytes().replace(b"\n", b"\r\n")
    ),
    "another order of files": _replaced("manifest.json", '"guard.nft"', '"nftables.nft"'),
    "another network's": _replaced("manifest.json", '"network": "files"', '"network": "other"'),
    "a file of elsewhere listed": _replaced("manifest.json", '"core/guard.nft": "', '"../../etc/passwd": "'),
    "no manifest to speak of": _written("manifest.json", "[]"),
}


@pytest.mark.parametrize("name", EDITS)
def test_edits_are_named(both: Topology, build: Path, name: str) -> None:
    """Whatever is edited beside the rulesets is named with its path; a manifest written in step hides nothing."""
    assert _found(both, build) == {}
    EDITS[name](build)
    found = _found(both, build)
    assert found
    if not name.startswith(("another", "no manifest", "a file of")):
        _hash_in_step(build)
        assert set(_found(both, build)) == set(found)
        assert all(path.startswith("edge/") for path in found)


def test_first_line_is_told(both: Topology, build: Path) -> None:
    """A difference is told with its first line, as it is and as it would be."""
    EDITS["weak settings"](build)
    said = _found(both, build)
    _hash_in_step(build)
    assert _found(both, build)["edge/sysctl.conf"].endswith(
        "rp_filter = 0'; the compiler writes 'net/ipv4/conf/all/rp_filter = 1'"
    )
    assert said


def test_theorem(both: Topology, build: Path) -> None:
    """Gutted files beside good rulesets: the theorem `files` says which; a ruleset that differs is judged, and told."""
    for name in ("a comment that reads well", "a bridge"):
        EDITS[name](build)
    _replaced("core/nftables.nft", "table inet netpolicy {\n", "table inet netpolicy {\n\n")(build)
    _hash_in_step(build)
    proof = prove(both, build)
    failing = {each.id: each for each in proof.theorems if not each.holds}
    assert {finding.what.split(":")[0] for finding in failing["files"].findings} == {
        "edge/ip.batch",
        "edge/relay/haproxy.cfg",
    }
    assert [each.split(":")[0] for each in proof.judged] == ["core/nftables.nft"]


def test_a_ruleset_is_a_file(both: Topology, build: Path) -> None:
    """A ruleset that is no regular file is not followed to wherever it leads."""
    _linked("edge/nftables.nft")(build)
    with pytest.raises(LoadError, match="no regular file"):
        prove(both, build)


def test_vendor_rules(both: Topology, build: Path) -> None:
    """Rules of a vendor may stand beside ours; what none of a vendor's may do is refused, however it is hidden."""
    rules = 'alert http any any -> any any (msg:"x"; sid:1; rev:1;)\n'
    stock = {"classification.config": "config classification: other-thing,Other,3\n"}
    replace_tree(build, with_vendor(read_build(build), rules, stock, {"x.rules": "0" * 64}))
    assert _found(both, build) == {}
    path = "edge/suricata/vendor.rules"
    for bad in (
        rules.replace("alert", "pass"),
        "# a comment goes on \\\n" + rules.replace("alert", "pass"),
        "#" + " " * 8190 + rules.replace("alert", "pass"),
    ):
        (build / path).write_text(bad, encoding="utf-8")
        _hash_in_step(build)
        assert set(_found(both, build)) == {path}
