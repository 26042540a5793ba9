"""What was expected of one case, and what happened: the one form every stage of a conformance run reports in."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from netpolicy.reasons import FRAME_COUNTER, DenyReason, deny_counter, flow_counter


class Verdict(enum.StrEnum):
    """What a firewall does with a packet or a path with a connection."""

    PERMIT = "permit"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Expected:
    """What the topology demands; never taken from compiled rules."""

    verdict: Verdict
    flow: str | None = None
    """The flow that permits it; for a denial the flow it comes closest to, where there is one."""
    reason: DenyReason | None = None
    """Only for a denial."""
    protocol: str | None = None
    """The forbidden protocol's id, only for :attr:`DenyReason.FORBIDDEN`."""
    frame: bool = False
    """Whether it is denied for its frame, before anybody asks what is in it."""

    @property
    def counter(self) -> str | None:
        """The firewall's counter that must rise, None where an endpoint decides."""
        if self.verdict is Verdict.PERMIT:
            return flow_counter(self.flow) if self.flow else None
        if self.frame:
            return FRAME_COUNTER
        return deny_counter(self.reason, self.protocol) if self.reason else None


class Status(enum.StrEnum):
    """How a case ended."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    DEVIATION = "deviation"
    """The network did not do what the topology says."""
    SKIP = "skip"
    """The machine could not run it; `observed` names what is missing. Never counted as a pass."""
    ERROR = "error"
    """No verdict: a proof is missing (not sent, not arrived, sentinel lost, capture overflow)."""
    FAULT = "fault"
    """The proof's model of a ruleset is not the kernel's: what rests on the model shows nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case."""

    stage: str
    """One of :data:`conformance.run.ALL_STAGES`."""
    source: str
    """Id of a node or firewall, or ``segment:<id>`` for an unassigned address of a segment."""
    destination: str
    probe: str
    """For a person: ``SMTP tcp/25``, ``juki-app tcp/17000``, ``curl ftp://``."""
    family: int
    """4 or 6."""
    firewall: str | None
    """The firewall that was probed; None for a case from end to end."""
    expected: Expected
    status: Status
    observed: str
    """One line for a person."""
    frames: tuple[bytes, ...] = ()
    """Evidence for a deviation: Ethernet frames as sent and seen."""
