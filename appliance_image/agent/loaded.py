"""What was verified at boot, for the stages after it: in memory, written by the agent alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root

_STEP = 10.0
"""Seconds by which the clock may differ from what it was when the bundle was verified."""
_BY = "began"
_WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bundle that runs, or is about to."""

    firewall: str
    serial: int
    sha256: str
    interfaces: Mapping[str, str]
    """MAC by name."""


def began() -> float:
    """Return when this machine was switched on, by what its clock says now: seconds since 1970.

    It stays the same until the clock is set, since that goes as the seconds since power-on do, which nobody sets.
    """
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def remember(root: Root, loaded: Loaded, by: float) -> None:
    """Keep it for the stages that follow.

    Args:
        root: Where everything is.
        loaded: What was verified.
        by: What :func:`began` said when the bundle of this boot was verified.

    """
    fresh = root.run / "loaded.new"
    fresh.write_text(json.dumps({**asdict(loaded), _BY: by}), encoding="utf-8")
    fresh.replace(root.run / "loaded.json")


def replace(root: Root, loaded: Loaded) -> None:
    """Keep another one in its place.

    Raises:
        AgentError: Nothing was verified since power-on, or not by the time that it is now.

    """
    _, by = _read(root)
    remember(root, loaded, by)


def forget(root: Root) -> None:
    """Have nothing verified any more: until the next start nothing runs, is applied or renewed."""
    (root.run / "loaded.json").unlink(missing_ok=True)
    forget_whole(root)


def remember_whole(root: Root, loaded: Loaded) -> None:
    """Note that a bundle runs, whole: what has ended of it may be begun again."""
    fresh = root.run / f"{_WHOLE}.new"
    fresh.write_text(loaded.sha256, encoding="ascii")
    fresh.replace(root.run / _WHOLE)


def forget_whole(root: Root) -> None:
    """Note that what runs is about to change, or is closed: nobody but who does that begins anything."""
    (root.run / _WHOLE).unlink(missing_ok=True)


def runs_whole(root: Root) -> bool:
    """Tell whether the bundle that was verified last has come to run, whole, and nothing has changed since."""
    try:
        return (root.run / _WHOLE).read_text(encoding="ascii") == recall(root).sha256
    except (OSError, AgentError):
        return False


def recall(root: Root) -> Loaded:
    """Return what was kept.

    Raises:
        AgentError: Nothing was verified since power-on, or not by the time that it is now.

    """
    return _read(root)[0]


def _read(root: Root) -> tuple[Loaded, float]:
    try:
        document = json.loads((root.run / "loaded.json").read_text(encoding="utf-8"))
        found = Loaded(
            str(document["firewall"]), int(document["serial"]), str(document["sha256"]), dict(document["interfaces"])
        )
        by = float(document[_BY])
    except (OSError, ValueError, KeyError, TypeError) as missing:
        raise AgentError("not-verified", "no bundle has been verified since power-on") from missing
    if not abs(step := began() - by) <= _STEP:
        text = f"the clock was set by {step:+.0f} s since the bundle was verified: nothing passes until the next start"
        raise AgentError("clock", text)
    return found, by
