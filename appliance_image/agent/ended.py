"""How often engines and the relay have ended since an operator last changed something: in memory, and bounded.

There is one entry for each unit of the bundle that runs, with no more ends than are needed to see that it is enough.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from netpolicy.inputs import read_document

MOST, WITHIN = 3, 60.0
"""So many ends in so many seconds, and it is not begun again: somebody has to look."""
_FILE = "ended.json"
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Ended:
    """The ends of one engine, or of the relay."""

    daemon: str
    """``engine of INTERFACE`` or ``relay``."""
    count: int
    """All ends."""
    ends: tuple[float, ...]
    """The last ones, at most :data:`MOST`: seconds since power-on (CLOCK_BOOTTIME)."""
    when: str
    """The last one (RFC 3339, UTC)."""
    why: str
    invocation: str
    """What the service manager called the run that ended last: none is counted twice."""
    out: bool
    """Whether it has not come back since."""
    given_up: bool

    @property
    def within(self) -> int:
        """How many ends there were in the :data:`WITHIN` seconds before the last, that one too."""
        return sum(each > self.ends[-1] - WITHIN for each in self.ends)

    def text(self) -> str:
        """Return it for people."""
        times = f"{self.count} time{'s' if self.count > 1 else ''}, last {self.when}: {self.why}"
        how = "GIVEN UP" if self.given_up else "being begun again" if self.out else "runs again"
        return f"{self.daemon}: {times}; {how}"


def read(root: Root) -> dict[str, Ended]:
    """Return what has ended, by unit.

    Raises:
        AgentError: The file is damaged.

    """
    try:
        document = read_document(root.run / _FILE, _MOST_BYTES, follow=False)
        return {unit: Ended(**{**each, "ends": tuple(each["ends"])}) for unit, each in document.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise AgentError("state", f"{root.run / _FILE} is damaged: {wrong!r}") from wrong


def write(root: Root, found: Mapping[str, Ended]) -> None:
    """Keep it; whoever reads sees all of it, or what was there before."""
    fresh = root.run / f"{_FILE}.new"
    fresh.write_text(json.dumps({unit: asdict(each) for unit, each in found.items()}), encoding="utf-8")
    fresh.replace(root.run / _FILE)


def forget(root: Root) -> None:
    """Begin to count anew."""
    (root.run / _FILE).unlink(missing_ok=True)
