"""The form for Suricata 7: as strict as the other one, but for what docs/engine.md says; on a real Suricata 7."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from conformance.lab.rooted import Root
from ids_rules.emit import signatures
from ids_rules.events import NOT_IN_7, decoder_kind
from ids_rules.lock import SidLock
from ids_rules.seven import LIMITS
from ids_rules.version import Suricata
from netpolicy.build import compile_files, compile_topology
from netpolicy.intent.derive import derive_intents
from netpolicy.rooted.engine import dry_run
from netpolicy.topology.load import load_topology
from netpolicy.topology.model import Topology
from tests.ids.cases import FIREWALL, INTERFACE, TOGETHER, Cases, failed_checks, prepare
from tests.ids.engine import replay
from tests.ids.malformed import NO_CAPTURE
from tests.ids.records import as_if_offered, late, split_records
from tests.ids.sessions import ALPN, Sessions, packets
from tests.ids.verify import CONFIGURATION

ROOT = Path(__file__).parents[2]
_CERTIFICATE = 11
_ROW = re.compile(r"^\| `([a-z0-9-]+)`", re.MULTILINE)

_ALSO = {
    "tls-version": {"tls-server-no-certificate", "tls-cipher-suite"},
    "tls-client-hello": {"tls-client-hello-split"},
    "tls-client-hello-split": {"tls-client-no-certificate", "tls-renegotiation-hello", "tls-client-goes-on"},
    "tls-client-goes-on": {"tls-client-no-certificate"},
    "tls-early-length": {"tls-client-no-certificate", "tls-server-no-certificate"},
    # Their servers say much before they are asked, and 7 looks at the client's certificate with its next word.
    "size-toclient": {"tls-early-length"},
    "tls-renegotiation": {"tls-early-length"},
}
"""What a case may raise beside its own kind here, instead of what it may for Suricata 8."""

_NOT_RAISED = frozenset({"stream-3whs-syn-flood"})
"""Known to Suricata 7.0, which says nothing of sixteen SYNs that differ; 8.0 queues ten (max-syn-queued)."""


@pytest.fixture(scope="module")
def topology() -> Topology:
    """Return the network of the repository."""
    return load_topology(ROOT / "topology.yaml").topology


@pytest.fixture(scope="module")
def seven() -> Root:
    """Return the root that ``make setup`` makes for these tests."""
    root = Root(ROOT / ".engine7/root")
    assert root.suricata is Suricata.V7, "make setup"
    return root


@pytest.fixture(scope="module")
def work(topology: Topology, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cases, Sessions]:
    """Return a tree of cases with the configuration of one engine, certificates pinned, and a capture for each kind."""
    tree = tmp_path_factory.mktemp("seven") / "cases"
    cases, sessions = prepare(tree, topology, tmp_path_factory.mktemp("identities") / "i", Suricata.V7)
    return tree, cases | sessions.in_seven(), sessions


def _kinds() -> list[str]:
    topology = load_topology(ROOT / "topology.yaml").topology
    return sorted(
        {each.id for each in signatures(derive_intents(topology)[FIREWALL], Suricata.V7) if not each.silent}
        - TOGETHER
        - _NOT_RAISED
    )


def test_no_kind_is_left_out(work: tuple[Path, Cases, Sessions], topology: Topology) -> None:
    """Everything that there is a signature for in the other form has one, where it is known; all have captures."""
    newest, ours = (
        {
            each.id
            for intent in derive_intents(topology).values()
            for each in signatures(intent, version)
            if not each.silent
        }
        for version in (Suricata.V8, Suricata.V7)
    )
    unknown = {decoder_kind(event) for event in NOT_IN_7}
    assert newest - ours == unknown
    assert ours - set(NO_CAPTURE) == set(work[1]) - {""} - unknown


@pytest.mark.parametrize("kind", ["", *_kinds()])
def test_signature(kind: str, work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """Its own capture raises it, and only what may be raised; the good session raises nothing at all."""
    tree, cases, _ = work
    assert failed_checks(seven, tree, cases, kind, _ALSO) == []


def test_suricata_takes_every_configuration(topology: Topology, seven: Root, tmp_path: Path) -> None:
    """Suricata -T, in IPS mode and with every doubt an error, for every engine of the network."""
    compile_topology(topology, tmp_path / "build", Suricata.V7)
    engines = sorted((tmp_path / "build").glob("*/suricata/engine-*.yaml"))
    assert len(engines) > len(topology.firewalls)
    for engine in engines:
        assert dry_run(seven, engine.parent, engine.stem.removeprefix("engine-")) == []


@pytest.mark.parametrize("cut", [2, 3, 5, 6, 9, 43, 200, 206, 210, 211, 212, 700])
def test_segments_hide_nothing(cut: int, work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """However what both say is cut, the good session passes, and who shows no certificate or a wrong one does not."""
    tree, _, sessions = work

    def raised(**how: Any) -> set[str]:
        turns = sessions.turns(**how)
        return {each.kind for each in replay(packets(turns, cuts=[cut]), tree / CONFIGURATION, INTERFACE, seven)}

    assert raised() == set()
    assert raised(nobody=True) == {"tls-client-no-certificate"}
    assert raised(client=sessions.other) == {"tls-client-certificate"}
    assert raised(name=None) == {"tls-no-name"}


@pytest.mark.parametrize(("kind", "count"), [("tls-alpn", 1), ("tls-client-hello", 99)])
def test_what_is_stricter(kind: str, count: int, work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """One more protocol offered is dropped, and so is a ClientHello of 2 KiB."""
    tree, _, sessions = work
    capture = packets(sessions.turns(more=[f"another-protocol/{number}" for number in range(count)]))
    assert kind in {each.kind for each in replay(capture, tree / CONFIGURATION, INTERFACE, seven) if each.blocked}


@pytest.mark.parametrize("cuts", [(), (2,), (6,), (9,)])
def test_a_split_hello_is_seen_in_any_segments(
    cuts: tuple[int, ...], work: tuple[Path, Cases, Sessions], seven: Root
) -> None:
    """However short the first segment is."""
    tree, _, sessions = work
    capture = packets(split_records(sessions.turns(), 1, [64]), cuts=cuts)
    raised = {each.kind for each in replay(capture, tree / CONFIGURATION, INTERFACE, seven) if each.blocked}
    assert "tls-client-hello-split" in raised


@pytest.mark.parametrize("size", [100, 6000, 20000])
def test_disorder_hides_nothing(size: int, work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """The bytes that tell that there is no certificate come last, after all that the client has to say."""
    tree, _, sessions = work
    capture = late(list(packets(sessions.turns(nobody=True, says=bytes(size)))), 12)
    raised = {each.kind for each in replay(capture, tree / CONFIGURATION, INTERFACE, seven) if each.blocked}
    assert raised == {"tls-client-no-certificate"}


@pytest.mark.parametrize("at", [[1], [2], [3], [4], [7], [10], [11], [40], [100, 200]])
def test_records_hide_nothing(at: list[int], work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """A wrong certificate that is spread over several records is dropped, with an alert or as what cannot be parsed."""
    tree, _, sessions = work
    capture = packets(split_records(sessions.turns(client=sessions.other), _CERTIFICATE, at))
    blocked = [each.kind for each in replay(capture, tree / CONFIGURATION, INTERFACE, seven, drops=True)]
    assert {"tls-client-certificate", "tls-client-no-certificate", "applayer error"} & set(blocked)


def test_the_limits_are_as_told(work: tuple[Path, Cases, Sessions], seven: Root) -> None:
    """A protocol's name in the random bytes of a hello passes for an offer of it."""
    tree, _, sessions = work
    capture = packets(as_if_offered(sessions.turns(alpn="http/1.1"), ALPN))
    raised = {each.kind for each in replay(capture, tree / CONFIGURATION, INTERFACE, seven)}
    assert "tls-alpn" not in raised
    table = (ROOT / "docs/engine.md").read_text(encoding="utf-8").split("## Suricata 7")[1].split("\n## ")[0]
    weaker = {line for line in table.splitlines() if line.startswith("| `") and "passes:" in line}
    assert {match[1] for line in weaker if (match := _ROW.match(line))} == set(LIMITS)


def test_numbers_of_the_newest_form_stay(topology: Topology) -> None:
    """Compiling for 7 adds numbers; what both forms have has one, and neither takes anything from the other."""
    lock = SidLock()
    newest = compile_files(topology, lock)
    before = lock.text()
    ours = compile_files(topology, lock, Suricata.V7)
    assert lock.text().startswith(before)
    after = lock.text()
    assert compile_files(topology, lock) == newest
    assert compile_files(topology, lock, Suricata.V7) == ours
    assert lock.text() == after
