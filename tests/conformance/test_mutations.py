"""Any single weakening of a compiled ruleset is found, and the flow it weakens is named."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from conformance.outcome import Status
from conformance.run import Summary, conform
from netpolicy.build import compile_topology
from tests.lab.small import small_topology

_PROBING = ("matrix", "boundary", "attack")
_ELEMENT = re.compile(
    r'^\t\t\t(?P<a>\S+) \. (?P<b>\S+) \. tcp \. (?P<port>\d+) (?P<rest>comment "notice" .*)$', re.MULTILINE
)
_BEHIND = re.compile(r'^\t\t\t"(?P<interface>\w+)" \. (?P<prefix>[0-9a-f.:]+/\d+)(?= comment)', re.MULTILINE)
_SENDER = re.compile(r'^\t\t\t"(?P<interface>\w+)" \. (?P<address>[0-9a-f.:]+),\n', re.MULTILINE)
_RECEIVERS = re.compile(r"set receivers[46] \{\n.*\n\t\telements = \{\n")
_ANTI_SPOOFING = re.compile(r"^.*goto deny_spoofed_(?:source|destination)\n", re.MULTILINE)


@pytest.fixture(scope="module", name="build")
def _build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("mutations") / "build"
    compile_topology(small_topology("mutations"), out)
    return out


def _held(build: Path, firewall: str) -> Summary:
    return conform(small_topology("mutations"), build, firewalls=[firewall], stages=_PROBING)


def _deletions(text: str) -> Iterator[tuple[str, str]]:
    """Yield each permit's deletion: another element, that nothing matches, takes its place."""
    for found in _ELEMENT.finditer(text):
        gone = "192.0.2.1" if "." in found["a"] else "2001:db8::1"
        line = f"\t\t\t{gone} . {found['b']} . tcp . {found['port']} {found['rest']}"
        yield f"delete {found[0].strip()}", text.replace(found[0], line)


def _widenings(text: str) -> Iterator[tuple[str, str]]:
    """Yield each permit widened by one, at either side of each of its fields."""
    for found in _ELEMENT.finditer(text):
        a, b, port = ip_address(found["a"]), ip_address(found["b"]), int(found["port"])
        for step in (-1, 1):
            for fields in ((a + step, b, port), (a, b + step, port), (a, b, port + step)):
                added = f"\t\t\t{fields[0]} . {fields[1]} . tcp . {fields[2]} {found['rest']}"
                yield f"add {added.strip()}", text.replace(found[0], f"{added}\n{found[0]}")


def _wider_prefixes(text: str) -> Iterator[tuple[str, str]]:
    """Yield each prefix of the anti-spoofing sets with one bit less, where that overlaps no other one."""
    known = [ip_network(found["prefix"]) for found in _BEHIND.finditer(text)]
    for found in _BEHIND.finditer(text):
        wider = ip_network(found["prefix"]).supernet()
        if sum(each.version == wider.version and each.overlaps(wider) for each in known) == 1:
            yield f"widen {found[0].strip()}", text.replace(found[0], found[0].replace(found["prefix"], str(wider)))


def _forged_senders(text: str) -> Iterator[tuple[str, str]]:
    """Yield each end of a flow let in by the other interface as well."""
    for found in _SENDER.finditer(text):
        other = {"lan": "wan", "wan": "lan"}[found["interface"]]
        added = found[0].replace(found["interface"], other)
        yield f"add {added.strip()}", text.replace(found[0], f"{found[0]}{added}")


def _unknown_receivers(text: str) -> Iterator[tuple[str, str]]:
    """Yield the ends of flows with an address among them that no network of the topology has."""
    for found in _RECEIVERS.finditer(text):
        added = "198.51.100.7" if "receivers4" in found[0] else "2001:db8:dead::7"
        yield f"receive {added}", text.replace(found[0], f"{found[0]}\t\t\t{added},\n")


def _without_anti_spoofing(text: str) -> Iterator[tuple[str, str]]:
    """Yield the ruleset without one rule of the anti-spoofing."""
    for found in _ANTI_SPOOFING.finditer(text):
        yield f"remove {found[0].strip()}", text.replace(found[0], "", 1)


_MUTATIONS = (
    _deletions,
    _widenings,
    _wider_prefixes,
    _forged_senders,
    _unknown_receivers,
    _without_anti_spoofing,
)


def test_what_was_compiled_holds(build: Path) -> None:
    """Without a mutation every verdict matches."""
    for firewall in ("edge", "core"):
        summary = _held(build, firewall)
        assert summary.results.outcomes == []
        assert summary.exit_code == 0


@pytest.mark.parametrize("firewall", ["edge", "core"])
@pytest.mark.parametrize("mutate", _MUTATIONS)
def test_mutants_are_found(build: Path, tmp_path: Path, firewall: str, mutate: object) -> None:
    """Each mutant makes the run fail with a deviation that names the flow."""
    assert callable(mutate)
    mutant = tmp_path / "build"
    shutil.copytree(build, mutant)
    ruleset = mutant / firewall / "nftables.nft"
    text = ruleset.read_text(encoding="utf-8")
    survivors = []
    tried = 0
    for name, mutated in mutate(text):
        assert mutated != text
        ruleset.write_text(mutated, encoding="utf-8")
        summary = _held(mutant, firewall)
        tried += 1
        named = {each.expected.flow for each in summary.results.outcomes if each.status is Status.DEVIATION}
        if summary.exit_code != 1 or "notice" not in named:
            survivors.append(name)
    assert tried > 0
    assert survivors == []
