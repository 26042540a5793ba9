"""What was verified at boot, for the stages after it: in memory, written by the agent alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bundle that runs, or is about to."""

    firewall: str
    serial: int
    sha256: str
    interfaces: Mapping[str, str]
    """MAC by name."""


def remember(root: Root, loaded: Loaded) -> None:
    """Keep it for the stages that follow."""
    fresh = root.run / "loaded.new"
    fresh.write_text(json.dumps(asdict(loaded)), encoding="utf-8")
    fresh.replace(root.run / "loaded.json")


def recall(root: Root) -> Loaded:
    """Return what was kept.

    Raises:
        AgentError: Nothing was verified since power-on.

    """
    try:
        document = json.loads((root.run / "loaded.json").read_text(encoding="utf-8"))
        return Loaded(
            str(document["firewall"]), int(document["serial"]), str(document["sha256"]), dict(document["interfaces"])
        )
    except (OSError, ValueError, KeyError, TypeError) as missing:
        raise AgentError("not-verified", "no bundle has been verified since power-on") from missing
