"""Engines and relays that end: nothing passes, they are back within seconds, and it is told; three ends are enough."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from appliance_image.agent import programs
from appliance_image.agent.lock import locked
from appliance_image.agent.operate import apply
from appliance_image.agent.root import Root
from appliance_image.agent.stages import close
from conformance.lab.rooted import Root as Engines
from tests.agent.making import PORT, Operator, files_of
from tests.agent.world import Record, World
from tests.waiting import until

_SECONDS = 5.0
"""Within which a daemon is back."""
_STARTS = 3.0
"""On a busy machine: within so many times what engine and forwarding took when it booted."""
_PATIENCE = 60.0
_ENGINE, _RELAY, _REVIVE = "netpolicy-engine@wan.service", "netpolicy-haproxy.service", "netpolicy-revive.service"
_AT = re.compile(r"netpolicy: (?P<stage>[a-z]+): .* t=(?P<seconds>[0-9.]+)$")


@pytest.fixture(name="inspecting")
def _inspecting(tmp_path: Path, operator: Operator) -> Iterator[World]:
    """Yield an appliance that enforces serial 1 with its engine."""
    engines = Engines.find()
    if engines is None:
        pytest.fail("there is no root with Suricata: make setup")
    found = World(tmp_path / "world", operator)
    found.equip(engines)
    found.power_on()
    found.install(operator.bundle(files_of("notice", "manage", engine=True), 1))
    assert found.boot(), found.console()
    yield found
    found.power_off()


def _pid(world: World, unit: str) -> int:
    """Return the process of a unit, 0 while there is none."""
    try:
        return int((world.place / "units" / unit).read_text() or 0)
    except FileNotFoundError:
        return 0


def _kill(world: World, unit: str) -> int:
    """Kill the process of a unit and return its number."""
    pid = _pid(world, unit)
    os.kill(pid, signal.SIGKILL)
    return pid


def _told(world: World, event: str) -> list[Record]:
    return [record["fields"] for record in world.records() if record["event"] == event]


def _await(found: Callable[[], object], world: World) -> None:
    assert until(lambda: bool(found()), seconds=_PATIENCE), "\n".join(world.console())


def _moments(world: World) -> dict[str, float]:
    """Return when each stage was told for the last time, in seconds since power-on."""
    found = [match for line in world.console() if (match := _AT.search(line))]
    return {match["stage"]: float(match["seconds"]) for match in found}


def _stopped_revival(world: World) -> int:
    """Return the process group of what begins daemons again, stopped as soon as it is there."""
    _await((world.place / "units" / _REVIVE).exists, world)
    group = _pid(world, _REVIVE)
    os.killpg(group, signal.SIGSTOP)
    return group


def test_engine_is_back(inspecting: World) -> None:
    """A killed engine is back within seconds, and forwarding with it; until then nothing passes; it is told."""
    world, booted = inspecting, _moments(inspecting)
    assert world.is_reachable(PORT)
    before = _kill(world, _ENGINE)
    stopped = _stopped_revival(world)
    assert not world.is_reachable(PORT, seconds=0.5)
    assert world.run_in("appliance", ["cat", "/proc/sys/net/ipv4/ip_forward"]) == "0\n"
    assert "the engine of wan does not run" in world.agent("drift").stdout
    assert world.agent("status").returncode == 1
    os.killpg(stopped, signal.SIGCONT)
    _await(lambda: _told(world, "back"), world)
    assert _pid(world, _ENGINE) != before
    assert world.is_reachable(PORT)
    assert world.agent("drift").returncode == 0
    ended, back = *_told(world, "ended"), *_told(world, "back")
    assert ended == {"firewall": "edge", "serial": 1, "daemon": "engine of wan", "why": "ended by signal 9", "count": 1}
    assert back == {"firewall": "edge", "serial": 1, "daemon": "engine of wan"}
    assert any("revive: closed: engine of wan has ended: ended by signal 9" in line for line in world.console())

    # Once more, while somebody is at work on what does not run yet: a bundle that is checked, an image that is written.
    with locked(world.root, wait=False):
        killed = time.clock_gettime(time.CLOCK_BOOTTIME)
        _kill(world, _ENGINE)
        _await(lambda: len(_told(world, "back")) == 2, world)
    took = _moments(world)["revive"] - killed
    start = booted["engine"] - booted["rules"] + booted["forward"] - booted["relay"]
    print(f"back after {took:.1f} s; engine and forwarding took {start:.1f} s at boot")
    assert took < max(_SECONDS, _STARTS * start)
    assert world.is_reachable(PORT)
    assert re.search(
        r"^ended +engine of wan: 2 times, last .*; runs again$", world.agent("status").stdout, re.MULTILINE
    )


def test_three_ends_are_enough(inspecting: World, operator: Operator) -> None:
    """Then it stays dead and closed, and says so, until an operator changes something. Its reviver may die as often."""
    world = inspecting
    for end in range(3):
        before = _kill(world, _ENGINE)
        if end == 0:
            _await(lambda: _told(world, "ended"), world)
            os.kill(_agent_of(_pid(world, _REVIVE)), signal.SIGKILL)
        if end < 2:
            _await(lambda before=before: _pid(world, _ENGINE) not in {0, before}, world)  # type: ignore[misc]
    _await(lambda: _told(world, "given-up"), world)
    # An agent that died between its record and its count has recorded the end twice, and counted it once.
    assert sorted({each["count"] for each in _told(world, "ended")}) == [1, 2, 3]
    time.sleep(1.0)
    assert not world.is_reachable(PORT, seconds=0.5)
    done = world.agent("status", "--json")
    assert done.returncode == 1
    status = json.loads(done.stdout)
    assert (status["forwards"], status["engines"]) == (False, {"wan": "failed"})
    assert status["ended"][_ENGINE]["given_up"]
    assert "GIVEN UP" in world.agent("status").stdout
    files = files_of("notice", "manage", engine=True)
    files["suricata/netpolicy.rules"] += b'alert tcp any any -> any any (msg:"another"; sid:9999999; rev:1;)\n'
    done = world.agent("apply", str(world.write(operator.bundle(files, 2))), "--confirm", "60s")
    assert done.returncode == 0, done.stderr
    assert world.is_reachable(PORT)
    assert json.loads(world.agent("status", "--json").stdout)["ended"] == {}
    # On trial as well; and an engine that is ended in order has not ended.
    _kill(world, _ENGINE)
    _await(lambda: _told(world, "back"), world)
    assert world.agent("confirm").returncode == 0
    assert world.agent("rollback").returncode == 0
    time.sleep(1.0)
    assert [each["count"] for each in _told(world, "ended")][-2:] == [3, 1]
    assert world.agent("drift").returncode == 0


def test_what_is_closed_stays_closed(inspecting: World, operator: Operator) -> None:
    """An engine is left alone where its end is not why nothing passes: a change has died half-way, or failed."""
    world = inspecting
    files = files_of("manage", engine=True)
    files["suricata/netpolicy.rules"] += b'alert tcp any any -> any any (msg:"another"; sid:9999999; rev:1;)\n'
    bundle = world.write(operator.bundle(files, 2))
    assert world.fork(lambda root: _dies_before_engines(root, bundle)) == -signal.SIGKILL
    before = _kill(world, _ENGINE)
    _await((world.place / "units" / _REVIVE).exists, world)
    time.sleep(1.0)
    assert _pid(world, _ENGINE) == before
    assert not world.is_reachable(PORT, seconds=0.5)
    assert _told(world, "ended") == []
    # The trial's end brings the bundle before back, with its engine, which is looked after again.
    _await(lambda: _told(world, "rollback"), world)
    assert world.is_reachable(PORT)
    _kill(world, _ENGINE)
    _await(lambda: _told(world, "back"), world)
    assert world.is_reachable(PORT)
    assert world.fork(_close) == 0
    before = _kill(world, _ENGINE)
    time.sleep(2.0)
    assert _pid(world, _ENGINE) == before
    assert not world.is_reachable(PORT, seconds=0.5)
    assert len(_told(world, "ended")) == 1


def test_relay_is_back(relaying: World) -> None:
    """A killed relay is back within seconds; its flows have nowhere to go until then; it is given up as engines are."""
    world = relaying
    with world.connect(PORT):
        pass
    before = _kill(world, _RELAY)
    stopped = _stopped_revival(world)
    with pytest.raises(OSError):  # noqa: PT011 - refused, or not answered
        world.connect(PORT, seconds=0.5)
    assert world.agent("status").returncode == 1
    os.killpg(stopped, signal.SIGCONT)
    _await(lambda: _told(world, "back"), world)
    assert _pid(world, _RELAY) != before
    with world.connect(PORT):
        pass
    assert _told(world, "back") == [{"firewall": "edge", "serial": 1, "daemon": "relay"}]
    for count in (2, 3):
        _kill(world, _RELAY)
        _await(lambda count=count: len(_told(world, "ended")) == count, world)  # type: ignore[misc]
        _await(lambda: _told(world, "given-up") or world.agent("status").returncode == 0, world)
    with pytest.raises(OSError):  # noqa: PT011 - the same
        world.connect(PORT, seconds=0.5)
    assert world.agent("status").returncode == 1


def _agent_of(group: int) -> int:
    """Return the process of the agent that a unit's process has begun."""
    children = Path(f"/proc/{group}/task/{group}/children").read_text().split()
    return int(children[0])


def _dies_before_engines(root: Root, bundle: Path) -> int:
    def before(argv: Sequence[str]) -> None:
        if "restart" in argv and _ENGINE in argv:
            os.kill(os.getpid(), signal.SIGKILL)

    programs.before = before
    apply(root, bundle, confirm=8.0)
    return 0


def _close(root: Root) -> int:
    close(root, "rules", "said by a test")
    return 0
