"""The image, cold, from power-on to enforcing and through conformance: one boot for all of it, as it takes its time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance_image.vm.boot import Booted, Parts, switch_on
from appliance_image.vm.image import Image
from appliance_image.vm.operators import TrialOperators
from conformance.elsewhere import STAGES, conform_elsewhere
from conformance.run import Summary
from netpolicy.topology.model import Topology

FIREWALL = "shinagawa-line-fw"
ORDER = ("init", "drop-all", "verity", "measured", "verify", "wire", "rules", "engine", "relay", "forward")


@dataclass(frozen=True)
class Trial:
    """What the one boot was like, and what came of conformance."""

    booted: Booted
    summary: Summary


@pytest.fixture(scope="module", name="trial")
def _trial(
    network: Topology,
    compiled: Path,
    image: Image,
    operators: TrialOperators,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trial:
    booted = Booted(FIREWALL)
    parts = Parts(image, operators, tmp_path_factory.mktemp("boot"), hear=print)
    summary = conform_elsewhere(network, compiled, FIREWALL, switch_on(parts, booted))
    return Trial(booted, summary)


def test_stages_in_order(trial: Trial) -> None:
    """It closes itself first and forwards last, each stage once."""
    stages = [event.stage for event in trial.booted.events if event.stage in ORDER]
    assert tuple(stages) == ORDER
    assert all(event.ok for event in trial.booted.events)
    print(*trial.booted.events, sep="\n")


def test_measured_as_predicted(trial: Trial, image: Image) -> None:
    """The TPM has measured the kernel image, command line and initial RAM disk that the build has predicted."""
    (said,) = [event.text for event in trial.booted.events if event.stage == "measured"]
    assert said == f"pcr11 sha256 {image.pcr11}"


def test_nothing_forbidden_passes(trial: Trial) -> None:
    """Of a flood from before power-on, which every network card has taken, nothing came out; what is permitted did."""
    before, after = trial.booted.before, trial.booted.after
    assert before is not None
    assert after is not None
    assert all(count > 0 for count in before.sent.values())
    assert before.opened is None
    assert after.passed == []
    assert all(count.taken > 0 for count in after.taken_when_opened.values())
    assert set(after.taken_when_opened) == {"cs", "line"}
    assert trial.booted.closed_while_flooded
    assert trial.booted.opened is not None


def test_conforms(trial: Trial) -> None:
    """All that can be asked from outside is as the topology demands."""
    assert trial.summary.results.outcomes == []
    assert {each.stage for each in trial.summary.results.passed} == set(STAGES)
    assert trial.summary.exit_code == 0
