"""A root of Debian 12: the lab runs what it has, and says what it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from conformance.lab.preflight import RELAYS, missing, unneeded
from conformance.lab.rooted import Root
from netpolicy.build import Suricata
from netpolicy.cli import main
from netpolicy.rooted import RootError
from netpolicy.topology.model import Assurance
from tests.lab.small import small_topology

_REPOSITORY = Path(__file__).parents[2]
_SEVEN = _REPOSITORY / ".engine7/root"


@pytest.fixture(autouse=True)
def _seven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the root that ``make setup`` makes for tests."""
    monkeypatch.setenv("NETPOLICY_ROOT", str(_SEVEN))


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """Return the small valid topology of the compiler's cases without a relay, as a file."""
    text = (_REPOSITORY / "tests/cases/check/valid.txt").read_text(encoding="utf-8")
    path = tmp_path / "topology.yaml"
    text = text.split("--- topology.yaml ---\n")[1].split("--- $")[0]
    path.write_text(text.replace("assurance: terminate", "assurance: inspect"), encoding="utf-8")
    return path


def test_a_root_says_which_engine_it_has() -> None:
    """By its list of packages."""
    root = Root.find()
    assert root is not None
    assert (root.suricata, root.has_relay) == (Suricata.V7, False)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("Package: suricata\nStatus: install ok installed\nVersion: 1:6.0.10-1\n", "has Suricata 6; expected 7 or 8"),
        ("Package: nano\nVersion: 7.2\n\nPackage: suricata-update\nVersion: 8.1\n", "has no package of Suricata"),
    ],
)
def test_an_engine_without_rules_is_refused(status: str, said: str, tmp_path: Path) -> None:
    """Its version is named."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(status, encoding="utf-8")
    with pytest.raises(RootError, match=said):
        assert Root(tmp_path).suricata


def test_the_relay_that_is_missing_is_named() -> None:
    """For topologies that need one."""
    (lacking,) = missing()
    assert (lacking.capability, lacking.needed_for) == ("relay (HAProxy 3.0)", RELAYS)
    assert unneeded(small_topology()) == {RELAYS}
    assert unneeded(small_topology(assurance=Assurance.TERMINATE)) == frozenset()


def test_conform_without_a_relay_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The topology of the repository has flows that are relayed."""
    assert main(["conform", str(_REPOSITORY / "topology.yaml")]) == 3
    assert "this machine lacks relay (HAProxy 3.0) (needed for flows with assurance term" in capsys.readouterr().err


def test_a_build_for_another_engine_is_refused(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything runs."""
    build = str(topology.parent / "build")
    assert main(["compile", str(topology), "--out", build]) == 0
    assert main(["conform", str(topology), "--build", build]) == 2
    said = capsys.readouterr().err
    assert f"was compiled for Suricata 8, and {_SEVEN} has Suricata 7: compile with --suricata 7" in said


def test_conform_compiles_for_the_engine_of_its_root(topology: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a build for it or without one; compile has told what it enforces less of."""
    build = str(topology.parent / "build")
    assert main(["compile", str(topology), "--out", build, "--suricata", "7"]) == 0
    assert "warning: Suricata 7, tls-alpn: a client" in capsys.readouterr().err
    for given in ((), ("--build", build)):
        assert main(["conform", str(topology), "--stage", "boundary", *given]) == 0
        assert "holds: " in capsys.readouterr().out
