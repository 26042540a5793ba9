"""The clock: one that goes back lets nobody in again, and one that is set closes.

No test sets this machine's clock: it is the remembered times that are moved. tests/vm sets a guest's.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from appliance_image.agent.state import State
from appliance_image.bundle import Bundle, Refused, verify
from tests.agent.making import FIREWALL, MANAGEMENT, MANAGER, PORT, Operator
from tests.agent.world import World

_HOUR, _YEAR = 3600.0, 365 * 86400.0


def _set_clock(world: World, seconds: float) -> None:
    """Have the clock differ by so much from when the bundle was verified."""
    path = world.root.run / "loaded.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "began": document["began"] - seconds}))


def _ran_at(world: World, seconds: float) -> None:
    """Have the firewall have run at a time."""
    path = world.root.state / "clock"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": seconds}))


def _last(world: World, event: str) -> Any:
    """Return what the newest record of an event says."""
    return [each["fields"] for each in world.records() if each["event"] == event][-1]


def _closed(world: World) -> None:
    assert not world.is_reachable(PORT, seconds=0.2)
    assert not world.is_reachable(MANAGEMENT, seconds=0.2)
    status = world.agent("status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["runs"] is None


@pytest.mark.parametrize("seconds", [-20 * _YEAR, 60.0])
def test_set_while_it_runs(running: World, only_management: Bundle, seconds: float) -> None:
    """Whichever way it was set, nothing passes any more, that is told and recorded, and nothing is taken."""
    assert running.exchange()
    _set_clock(running, seconds)
    assert running.agent("clock").returncode == 0
    assert f"clock: closed: clock: the clock was set by {seconds:+.0f} s" in running.console()[-2]
    assert running.console()[-1].startswith("netpolicy: forward: closed")
    _closed(running)
    closed = _last(running, "boot")
    assert (closed["outcome"], closed["stage"]) == ("closed", "clock")
    assert running.agent("apply", str(running.write(only_management)), "--confirm", "60s").returncode == 3
    assert running.agent("boot", "forward").returncode == 1
    _closed(running)
    running.power_on()
    assert running.boot(), running.console()


def test_a_change_is_refused_before_the_unit_has_looked(running: World, only_management: Bundle) -> None:
    """A command that is faster than the unit which the service manager starts is refused by itself."""
    _set_clock(running, -_HOUR)
    done = running.agent("apply", str(running.write(only_management)), "--confirm", "60s", "--json")
    assert (done.returncode, json.loads(done.stdout)["code"]) == (2, "clock")
    assert running.agent("confirm", "--json").returncode == 2


def test_set_during_a_trial(running: World, only_management: Bundle) -> None:
    """A trial ends in time, whatever the clock says; with the clock set, it ends closed, and is forgotten."""
    assert running.agent("apply", str(running.write(only_management)), "--confirm", "6s").returncode == 0
    _set_clock(running, _YEAR)
    running.agent("clock")
    end = time.monotonic() + 30.0
    while State(running.root).pending is not None:
        assert time.monotonic() < end
        time.sleep(0.2)
    _closed(running)
    assert _last(running, "rollback")["outcome"] == "closed"
    running.power_on()
    assert running.boot()
    assert "serial 1" in running.console()[-1]


def test_back_at_a_start(running: World, only_management: Bundle) -> None:
    """A start before a time at which it ran is closed, until the clock is right or a new bundle tells the time."""
    now = time.time()
    _ran_at(running, now + 2 * _HOUR)
    running.power_on()
    assert not running.boot()
    assert "verify: closed: clock: the clock says " in running.console()[-1]
    assert not running.is_reachable(PORT, seconds=0.2)
    assert _last(running, "boot")["stage"] == "verify"
    _ran_at(running, now + 0.5 * _HOUR)  # what a machine's own clock may have lost
    assert running.boot()
    _ran_at(running, now + 100 * _YEAR)
    running.power_on()
    assert not running.boot()
    running.install(only_management)
    running.power_on()
    assert running.boot(), running.console()
    assert abs(json.loads((running.root.state / "clock").read_text())["seconds"] - time.time()) < _HOUR


def test_the_time_is_remembered_while_it_runs(running: World) -> None:
    """Each hour; never an earlier one with the same bundles."""
    _ran_at(running, time.time() - 100 * _HOUR)
    assert running.agent("clock").returncode == 0
    seen = State(running.root).clock
    assert seen is not None
    assert time.time() - seen.seconds < _HOUR
    _ran_at(running, time.time() + _HOUR)
    running.agent("clock")
    later = State(running.root).clock
    assert later is not None
    assert later.seconds > time.time() + 0.9 * _HOUR
    assert running.exchange()


def test_a_damaged_time_is_closed(running: World) -> None:
    """What was remembered and cannot be read is not passed over."""
    (running.root.state / "clock").write_text("{}")
    running.power_on()
    assert not running.boot()
    assert "verify: closed: state: " in running.console()[-1]


@pytest.mark.parametrize(
    ("year", "code"), [(1970, "not-yet-valid"), (2000, "not-yet-valid"), (2038, "expired"), (2106, "expired")]
)
def test_a_dead_clock(both: Bundle, operator: Operator, year: int, code: str) -> None:
    """Whatever a machine's clock says that has lost its battery, a bundle is refused with a reason."""
    with pytest.raises(Refused) as refused:
        verify(
            both,
            operator.trust,
            firewall=FIREWALL,
            managed_by=MANAGER,
            signatures=1,
            after_serial=0,
            now=datetime(year, 1, 1, tzinfo=UTC),
        )
    assert refused.value.code in {code, "signer-expired"}
