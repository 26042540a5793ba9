"""Engine and relay of a machine end, under a flood: nothing passes, they are back, it is told; three are enough."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from appliance_image.vm.console import Event
from appliance_image.vm.machine import Machine
from conformance.expect import Expectation, Permitted
from conformance.lab import Lab
from conformance.lab.scope import Scope
from conformance.probe.deluge import Deluge
from conformance.probe.wire import wired
from netpolicy.intent.routing import Routing
from netpolicy.topology.model import Firewall
from tests.waiting import until

_LINE = "line"
ENGINE, RELAY = f"netpolicy-engine@{_LINE}.service", "netpolicy-haproxy.service"
NAMES = {ENGINE: "engine of line", RELAY: "relay"}
_RATE = 20
"""Forbidden frames a second on each interface: what is measured is not how fast it is under a flood."""
_FLOOD_SECONDS = 240.0
_SECONDS = 60.0
"""On hardware, for anything that is told."""
_WATCHED = 3.0


def _through_both(permitted: Permitted) -> bool:
    """Tell whether a connection comes from the line, so through the engine, and is taken by the relay."""
    return permitted.relayed and permitted.ends[0] == _LINE


@dataclass(frozen=True)
class Ending:
    """A firewall that enforces in a machine, whose daemons can be ended from its test console."""

    machine: Machine
    lab: Lab
    firewall: Firewall
    shell: Callable[[str], list[str]]

    @contextmanager
    def flooded(self) -> Iterator[Deluge]:
        """Have forbidden frames and permitted connections come while inside; none of the forbidden may come out."""
        expectation = Expectation(self.lab.topology, Routing(self.lab.topology), datetime.now(UTC))
        expectation.advance(_FLOOD_SECONDS, print)
        with self.lab.isolated(), wired(self.lab, self.firewall, Scope(self.lab)) as wire:
            with Deluge(expectation, self.firewall, wire, _RATE, _through_both) as deluge:
                yield deluge
            found = deluge.count()
        assert all(found.sent.values())
        assert found.passed == []

    def comes_back(self, deluge: Deluge, unit: str) -> float:
        """Kill a daemon, and return the seconds by the guest's clock until it is told that it is back."""
        assert self._passes(deluge), "nothing passes before"
        since = len(self.machine.console.events)
        told = self.shell(
            f"p=$(systemctl show -p MainPID --value {unit}); busybox cut -d' ' -f1 /proc/uptime; busybox kill -9 $p; "
            "while [ -d /proc/$p ]; do :; done"  # what it has in its hands it may still copy
        )
        killed = float(next(filter(re.compile(r"^\d+\.\d+$").match, told)))
        before = deluge.count()
        ended = self._told(f"{NAMES[unit]} has ended: ended by signal 9", since)
        after = deluge.count()
        assert not ended.ok
        # It is begun again only after this was told: whatever was sent until then was taken, and none of it answered.
        assert all(after.taken[each].taken > before.taken[each].taken for each in after.taken)
        assert after.permitted == before.permitted
        back = self._told(f"{NAMES[unit]} is back", since)
        assert back.ok
        assert self._passes(deluge), "nothing passes afterwards"
        assert back.guest_seconds is not None
        return back.guest_seconds - killed

    def is_given_up(self) -> None:
        """Kill the engine as often as it is begun again, and see that it stays dead, and closed."""
        since = len(self.machine.console.events)
        self.shell(
            "n=0; i=0; last=0; while [ $n -lt 3 ] && [ $i -lt 300 ]; do i=$((i+1)); "
            f"p=$(systemctl show -p MainPID --value {ENGINE}); "
            "if [ $p != 0 ] && [ $p != $last ]; then busybox kill -9 $p && last=$p && n=$((n+1)); fi; done"
        )
        assert not self._told(f"{NAMES[ENGINE]} is given up: 3 ends in 60 s", since).ok
        with self.flooded() as deluge:
            before = deluge.count()
            time.sleep(_WATCHED * self.machine.hardware.patience)
            after = deluge.count()
        assert after.sent["line"] > before.sent["line"] + _RATE
        assert all(after.taken[each].taken > before.taken[each].taken for each in after.taken)
        assert after.permitted == before.permitted == 0
        said = self.shell(
            f"systemctl show -p MainPID {ENGINE}; busybox cat /proc/sys/net/ipv4/ip_forward; "
            "python3 -I -m appliance_image.agent status"
        )
        assert "MainPID=0" in said
        assert "0" in said
        assert any(re.match(r"state +CLOSED", line) for line in said), said
        assert any(re.match(r"ended +engine of line: \d times.*GIVEN UP", line) for line in said), said

    def _passes(self, deluge: Deluge) -> bool:
        before = deluge.count().permitted
        return until(lambda: deluge.count().permitted > before, _SECONDS * self.machine.hardware.patience)

    def _told(self, text: str, since: int) -> Event:
        return self.machine.console.await_event(
            lambda event: event.stage == "revive" and event.text.startswith(text),
            _SECONDS * self.machine.hardware.patience,
            since,
        )
