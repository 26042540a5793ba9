"""The way of one packet through the firewalls of a topology, rule by rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from netpolicy.intent.routing import Routing
from netpolicy.proof import fields
from netpolicy.proof.evaluate import Fate, Judgement, Packet, Step, evaluate
from netpolicy.proof.model import Dispatch, Divert, Hook, Note, Rule, Ruleset, Unknown, Verdict, VerdictKind
from netpolicy.proof.question import Question
from netpolicy.reasons import DenyReason, deny_counter
from netpolicy.topology.model import Address, Firewall, Segment, Topology

_COUNTER, _FORBIDDEN = "deny_", "deny_forbidden_"
_FLOW_CHAINS = ("flow_", "onward_")
_FINAL = {VerdictKind.ACCEPT, VerdictKind.DROP}


@dataclass(frozen=True, slots=True)
class Passage:
    """What one firewall does with the packet, or its relay with its own."""

    firewall: str
    ingress: str | None
    """None: it is the firewall's own."""
    egress: str | None
    """None: it is for the firewall itself."""
    passed: bool
    diverted: bool
    """It is handed to the relay, which goes on by itself."""
    ends: bool
    """It is for the firewall itself."""
    held: bool
    """A fragment, which is kept until the others have come."""
    steps: tuple[Step, ...]
    """Those that decided."""
    flow: str | None
    """Whose element or chain let it through."""
    reason: DenyReason | None
    """Why it was dropped; None if the rules have no such counter."""
    protocol: str | None
    """The forbidden one."""


@dataclass(frozen=True, slots=True)
class Journey:
    """All passages, and what is to be said of the ends."""

    question: Question
    passages: tuple[Passage, ...]
    arrived: bool
    note: str | None
    """Why no firewall judged it."""


class NoWayError(Exception):
    """No firewall judges a packet, and it arrives nowhere; says why."""


@dataclass(frozen=True, slots=True)
class Hop:
    """A firewall on the way."""

    firewall: str
    ingress: str
    egress: str | None
    """None: it is for the firewall itself."""


@dataclass(frozen=True, slots=True)
class Walker:
    """Follows packets."""

    topology: Topology
    routing: Routing
    rulesets: Mapping[str, Ruleset]
    """By firewall."""

    def journey(self, question: Question) -> Journey:
        """Follow one packet from where it begins; of an answer, first what it answers."""
        relays: frozenset[str] = frozenset()
        if question.reply:
            asked = self.journey(question.asked())
            relays = frozenset(each.firewall for each in asked.passages if each.diverted)
        try:
            hops = self._hops(question)
        except NoWayError as none:
            return Journey(question, (), arrived=False, note=str(none))
        if not hops:
            return Journey(question, (), arrived=True, note="both ends are on one segment: no firewall judges it")
        passages = list(self._begun(question))
        if passages and not passages[-1].passed:
            return Journey(question, tuple(passages), arrived=False, note=None)
        ttl = question.packet.number(fields.TTL)
        for hop in hops:
            for passage in self._through(question.packet.changed({fields.TTL: ttl}), hop, hop.firewall in relays):
                passages.append(passage)
                if not passage.passed:
                    return Journey(question, tuple(passages), arrived=False, note=None)
            relayed = passages[-1].ingress is None
            ttl = question.packet.number(fields.TTL) if relayed else max(ttl - 1, 0)
        return Journey(question, tuple(passages), arrived=True, note=None)

    def _begun(self, question: Question) -> Iterator[Passage]:
        """Yield what a firewall does with what it says itself."""
        owner, target = self._owner(question.source), self._segment(question.destination)
        if owner is None or target is None or question.enters is not None:
            return
        beyond = self.routing.interface_towards(owner, target.id)
        if beyond is not None:
            own = question.packet.changed({fields.OIF: beyond.name})
            said = evaluate(self.rulesets[owner.id], (Hook.OUTPUT, Hook.POSTROUTING), own, _oracle)
            yield self._passage(Hop(owner.id, "", beyond.name), (said,), own=True)

    def _hops(self, question: Question) -> list[Hop]:
        """Return the firewalls on the way.

        Raises:
            NoWayError: There is none.

        """
        end, target = self._owner(question.destination), self._segment(question.destination)
        hops: list[Hop] = []
        if question.enters is not None:
            name, ingress = question.enters
            if target is None or (end is not None and end.id == name):
                return [Hop(name, ingress, None)]
            beyond = self.routing.interface_towards(self.topology.firewalls[name], target.id)
            if beyond is None:
                raise NoWayError(f"firewall {name} has no way to segment {target.id}")
            hops, start = [Hop(name, ingress, beyond.name)], beyond.segment
        else:
            source = self._segment(question.source)
            if source is None:
                raise NoWayError(f"no segment has {question.source}; --iif FIREWALL:INTERFACE says where it comes in")
            start = source.id
        if target is None:
            raise NoWayError(f"no segment has {question.destination}: nothing on segment {start} has a route to it")
        path = self.routing.path(start, target.id)
        if path is None:
            raise NoWayError(f"no path leads from segment {start} to segment {target.id}")
        owner = self._owner(question.source)
        sender = None if owner is None or question.enters is not None else owner.id
        hops += [Hop(each.firewall, each.in_interface, each.out_interface) for each in path if each.firewall != sender]
        if end is None:
            return hops
        for place, hop in enumerate(hops):
            if hop.firewall == end.id:
                return [*hops[:place], Hop(end.id, hop.ingress, None)]
        near = next(each.name for each in end.interfaces if each.segment == target.id)
        return [*hops, Hop(end.id, near, None)]

    def _through(self, asked: Packet, hop: Hop, answers_relay: bool) -> Iterator[Passage]:
        packet = asked.changed({fields.IIF: hop.ingress, fields.OIF: hop.egress or ""})
        if answers_relay:
            packet = packet.changed({fields.TRANSPARENT: 1})
        ruleset = self.rulesets[hop.firewall]
        before = evaluate(ruleset, (Hook.PREROUTING,), packet, _oracle)
        if before.fate is not Fate.ACCEPT:
            yield self._passage(hop, (before,))
            return
        relayed = before.diverted is not None or answers_relay
        local = relayed or hop.egress is None
        hooks = (Hook.INPUT,) if local else (Hook.FORWARD, Hook.POSTROUTING)
        after = evaluate(ruleset, hooks, before.packet, _oracle)
        yield self._passage(hop, (before, after), diverted=relayed)
        if relayed and after.fate is Fate.ACCEPT and hop.egress is not None:
            own = asked.changed({fields.OIF: hop.egress, fields.TTL: 64})
            said = evaluate(ruleset, (Hook.OUTPUT, Hook.POSTROUTING), own, _oracle)
            yield self._passage(hop, (said,), own=True)

    def _passage(
        self, hop: Hop, judgements: tuple[Judgement, ...], *, diverted: bool = False, own: bool = False
    ) -> Passage:
        steps = tuple(step for each in judgements for step in decisive(each.steps))
        reason, protocol = _reason(steps)
        passed = judgements[-1].fate is Fate.ACCEPT
        return Passage(
            firewall=hop.firewall,
            ingress=None if own else hop.ingress,
            egress=None if diverted else hop.egress,
            passed=passed,
            diverted=diverted,
            ends=hop.egress is None,
            held=judgements[-1].fate is Fate.HELD,
            steps=steps,
            flow=self._flow(steps),
            reason=None if passed else reason,
            protocol=None if passed else protocol,
        )

    def _flow(self, steps: tuple[Step, ...]) -> str | None:
        found = (flow_of(step) for step in steps)
        return next((flow for flow in found if flow in self.topology.flows), None)

    def _segment(self, address: Address) -> Segment | None:
        return next(
            (
                segment
                for segment in self.topology.segments.values()
                for prefix in segment.prefixes
                if prefix.version == address.version and address in prefix
            ),
            None,
        )

    def _owner(self, address: Address) -> Firewall | None:
        return next(
            (
                firewall
                for firewall in self.topology.firewalls.values()
                for interface in firewall.interfaces
                if address in interface.addresses
            ),
            None,
        )


def flow_of(step: Step) -> str | None:
    """Return the flow that an element's comment or a chain's name tells."""
    name = step.chain.id.name
    for beginning in _FLOW_CHAINS:
        if name.startswith(beginning):
            return name.removeprefix(beginning).replace("_", "-")
    return next((element.comment for _, element in step.elements if isinstance(element.data, Verdict)), None)


def decisive(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Yield, for each base chain, the rule that decided and those that led to it; no policy that accepts."""
    part: list[Step] = []
    for step in steps:
        part.append(step)
        verdict = verdict_of(step)
        if step.rule is not None and (verdict is None or verdict.kind not in _FINAL):
            continue
        kept, last = [step], step
        for earlier in reversed(part[:-1]):
            led = verdict_of(earlier)
            if led is not None and led.target is not None and earlier.chain.target(led.target) == last.chain.id:
                kept.insert(0, earlier)
                last = earlier
        part = []
        base = step.chain.base
        if step.rule is not None or (base is not None and not base.accepts):
            yield from kept


def verdict_of(step: Step) -> Verdict | None:
    """Return what a rule that matched decided; None if nothing."""
    if step.rule is None or not step.rule.statements:
        return None
    last = step.rule.statements[-1]
    if isinstance(last, Verdict):
        return last
    if isinstance(last, Dispatch) and step.elements and isinstance(step.elements[-1][1].data, Verdict):
        return step.elements[-1][1].data
    return None


def _reason(steps: tuple[Step, ...]) -> tuple[DenyReason | None, str | None]:
    """Return why the last rule dropped, by the counter it raised."""
    rule = steps[-1].rule if steps else None
    for statement in rule.statements if rule is not None else ():
        name = statement.counter if isinstance(statement, Note) else None
        if name is None or not name.startswith(_COUNTER):
            continue
        if name.startswith(_FORBIDDEN):
            return DenyReason.FORBIDDEN, name.removeprefix(_FORBIDDEN).replace("_", "-")
        return next((each for each in DenyReason if name == deny_counter(each)), None), None
    return None, None


def _oracle(_rule: Rule, asked: Unknown | Divert) -> bool:
    """Say that no limit is reached, and that every relay runs."""
    return isinstance(asked, Divert) or "inv True" not in asked.text
