"""The clock: not before a time at which this firewall has run, and not set while it runs.

Hours of service, last days of flows, certificates, revocation lists and bundles go by it, and so do the kernel, engines
and relays, each by itself: a clock that goes back lets in whoever was shut out by time alone. Nothing on an appliance
sets it; if it is set, nobody knows which of the two times was right, so nothing passes until it starts again.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

from appliance_image.agent import services
from appliance_image.agent.console import say
from appliance_image.agent.errors import AgentError
from appliance_image.agent.loaded import forget, recall
from appliance_image.agent.lock import locked
from appliance_image.agent.root import Root
from appliance_image.agent.stages import close, drop_all
from appliance_image.agent.state import State

SKEW = 3600.0
"""Seconds that a machine's own clock, which sets the kernel's at a start, may have lost against it: minutes a year."""


def check(state: State) -> None:
    """Refuse a time before the last at which this firewall ran with the bundles that it has.

    A bundle with a higher serial than any before says what time it is: its operators have signed when it begins.

    Raises:
        AgentError: It is before.

    """
    seen, now = state.clock, time.time()
    if seen is not None and seen.serial >= state.serial and now < seen.seconds - SKEW:
        text = f"the clock says {_words(now)}, and this firewall ran at {_words(seen.seconds)}"
        raise AgentError("clock", f"{text}: set the machine's clock, or bring a bundle with a higher serial")


def look(root: Root) -> None:
    """Close if the clock was set since the bundle was verified; else remember that this firewall ran at this time."""
    try:
        recall(root)
    except AgentError as failed:
        if failed.code == "clock":
            _close(root, failed.text)
        return
    try:
        with locked(root, wait=False):
            State(root).keep_clock(time.time())
    except AgentError as failed:
        # It goes on: the time that is remembered is an earlier one.
        say(root, "clock", f"not remembered: {failed.code}: {failed}")


def _close(root: Root, reason: str) -> None:
    forget(root)
    close(root, "clock", f"clock: {reason}")
    with contextlib.suppress(AgentError):
        services.stop(root, [services.FORWARD])
    # A change that was under way may have loaded its rules meanwhile; whatever begins from now on is refused.
    with locked(root, wait=True):
        forget(root)
        for failed in drop_all(root):
            say(root, "clock", failed, closed=True)


def _words(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
