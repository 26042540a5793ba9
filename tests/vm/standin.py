"""A firewall that runs elsewhere without a virtual machine: a namespace of its own behind the lab's taps."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pyroute2 import IPRoute

from conformance.lab import Lab, Namespace
from conformance.lab.apply import apply_build
from conformance.lab.network import index_of
from conformance.lab.reaper import Reaper
from conformance.lab.tap import make_tap
from conformance.pki import Identities

_FRAME = 2048


@contextmanager
def stand_in(lab: Lab, _identities: Identities | None = None) -> Iterator[None]:
    """Run the firewall that is elsewhere, with the lab's own build of it."""
    (firewall,) = lab.elsewhere
    interfaces = lab.topology.firewalls[firewall].interfaces
    with ExitStack() as stack:
        reaper = stack.enter_context(Reaper())
        namespace = Namespace("stand-in", reaper)
        stack.callback(namespace.close)
        ends = {}
        for each in interfaces:

            def make(name: str = each.name, mac: str = each.mac) -> int:
                tap = make_tap(name)
                with IPRoute() as route:
                    route.link("set", index=index_of(route, [name])[name], address=mac)
                return tap

            inner = namespace.call(make)
            stack.callback(os.close, inner)
            ends[inner] = lab.wiring.taps[firewall, each.name]
        apply_build(namespace, lab.build / firewall)
        ended = threading.Event()
        pumping = threading.Thread(target=_pump, args=({**ends, **{b: a for a, b in ends.items()}}, ended))
        pumping.start()
        try:
            yield
        finally:
            ended.set()
            pumping.join()


def _pump(ends: dict[int, int], ended: threading.Event) -> None:
    while not ended.is_set():
        readable, _, _ = select.select(list(ends), [], [], 0.1)
        for each in readable:
            try:
                os.write(ends[each], os.read(each, _FRAME))
            except (BlockingIOError, OSError):
                continue  # an interface that is down takes nothing
