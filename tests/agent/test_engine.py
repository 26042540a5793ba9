"""The appliance with the real inline engine: in the way, checked before it is switched to, and closed when it dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance_image.agent.output import rotate
from appliance_image.bundle import Bundle
from conformance.lab.rooted import Root as Engines
from netpolicy.processors import Processors, mask
from tests.agent.making import PORT, Operator, files_of
from tests.agent.world import World


@pytest.fixture(scope="module")
def inspected(operator: Operator) -> Bundle:
    """Return serial 1, with an engine."""
    return operator.bundle(files_of("notice", "manage", engine=True), 1)


@pytest.fixture
def inspecting(tmp_path: Path, operator: Operator, inspected: Bundle) -> Iterator[World]:
    """Yield an appliance that enforces serial 1 with its engine."""
    engines = Engines.find()
    if engines is None:
        pytest.fail("there is no root with Suricata: make setup")
    found = World(tmp_path, operator)
    found.equip(engines)
    found.power_on()
    found.install(inspected)
    assert found.boot(), found.console()
    yield found
    found.power_off()


def _engine(world: World) -> tuple[str, int]:
    units = [each for each in (world.place / "units").iterdir() if each.name.startswith("netpolicy-engine@")]
    assert len(units) == 1
    return units[0].name.partition("@")[2].removesuffix(".service"), int(units[0].read_text())


def test_the_card_is_behind_the_engine(inspecting: World) -> None:
    """The card is in the engine's namespace; the firewall has one end of a pair, by its name and with its MAC."""
    interface, _ = _engine(inspecting)
    links = json.loads(inspecting.run_in("appliance", ["ip", "-json", "-details", "link", "show", "dev", interface]))
    assert links[0]["linkinfo"]["info_kind"] == "veth"
    behind = inspecting.run_in("appliance", ["ip", "-netns", f"{inspecting.root.wire}{interface}", "-brief", "link"])
    assert {line.split("@")[0].split()[0] for line in behind.splitlines()} >= {"lo", "inner", interface}
    assert inspecting.is_reachable(PORT)
    # It judges, too: this is not the TLS that the flow is.
    assert not inspecting.exchange(PORT, seconds=1.0)
    said = (inspecting.root.engine(interface) / "log" / "eve.json").read_text()
    assert "not those of a TLS handshake" in said


def test_engines_have_processors_of_their_own(inspecting: World) -> None:
    """The kernel is steered to the others for what an engine hands on; the service manager is told of the engine's."""
    interface, _ = _engine(inspecting)
    wanted = Processors.here()
    assert wanted.inspecting != wanted.routing, "two processors at least"
    steered = inspecting.run_in("appliance", ["cat", f"/sys/class/net/{interface}/queues/rx-0/rps_cpus"])
    assert steered.strip() == mask(wanted.routing)
    changed = (inspecting.root.units / "netpolicy-engine@.service.d" / "processors.conf").read_text()
    assert changed == f"[Service]\nCPUAffinity={' '.join(str(each) for each in sorted(wanted.inspecting))}\n"


def test_apply_changes_the_engine(inspecting: World, operator: Operator) -> None:
    """A bundle with other signatures has its engine started anew with them; the same ones leave it alone."""
    _, before = _engine(inspecting)
    same = operator.bundle(files_of("notice", engine=True) | _suricata(inspecting), 2)
    done = inspecting.agent("apply", str(inspecting.write(same)), "--confirm", "60s")
    assert done.returncode == 0, done.stderr
    assert _engine(inspecting)[1] == before
    assert inspecting.agent("confirm").returncode == 0
    files = files_of("notice", "manage", engine=True)
    files["suricata/netpolicy.rules"] += b'alert tcp any any -> any any (msg:"another"; sid:9999999; rev:1;)\n'
    done = inspecting.agent("apply", str(inspecting.write(operator.bundle(files, 3))), "--confirm", "60s")
    assert done.returncode == 0, done.stderr
    assert "engines started" in done.stdout
    assert _engine(inspecting)[1] != before
    assert inspecting.is_reachable(PORT)
    assert inspecting.agent("drift").returncode == 0
    assert inspecting.agent("rollback").returncode == 0
    assert inspecting.agent("drift").returncode == 0


def test_long_files_are_begun_anew(inspecting: World) -> None:
    """A file that has become long is put aside, and the engine writes another one."""
    interface, _ = _engine(inspecting)
    log = inspecting.root.engine(interface) / "log"
    assert not inspecting.exchange(PORT, seconds=1.0)
    assert rotate(inspecting.root, 10) == [interface]
    assert "not those of a TLS handshake" in (log / "eve.json.1").read_text()
    assert not inspecting.exchange(PORT, seconds=1.0)
    assert "not those of a TLS handshake" in (log / "eve.json").read_text()
    assert rotate(inspecting.root) == []


def test_engine_refuses(inspecting: World, operator: Operator) -> None:
    """What Suricata would not start with is refused before anything changes."""
    files = files_of("notice", "manage", engine=True)
    files["suricata/netpolicy.rules"] += b"alert nonsense\n"
    done = inspecting.agent("apply", str(inspecting.write(operator.bundle(files, 4))), "--confirm", "60s", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["code"] == "engine"
    assert inspecting.is_reachable(PORT)


def _suricata(world: World) -> dict[str, bytes]:
    place = world.root.bundle / "suricata"
    return {f"suricata/{path.name}": path.read_bytes() for path in place.iterdir()}
