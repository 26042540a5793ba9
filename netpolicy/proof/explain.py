"""Why a packet passes, or does not: in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from netpolicy.proof import fields
from netpolicy.proof.evaluate import Step
from netpolicy.proof.fields import ACK, FIN, RST, SYN, Family
from netpolicy.proof.model import Element, Name, Term, Value
from netpolicy.proof.names import Names
from netpolicy.proof.nearest import Near, nearest_flows
from netpolicy.proof.question import Question
from netpolicy.proof.walk import Journey, Passage, Walker, flow_of
from netpolicy.reasons import DenyReason, deny_counter
from netpolicy.topology.model import Topology

WORDS = {
    DenyReason.FRAGMENT: "it is a fragment",
    DenyReason.IP_OPTION: "it has IP options",
    DenyReason.EXTENSION_HEADER: "it has an IPv6 extension header",
    DenyReason.TTL: "its time to live is over",
    DenyReason.ICMP_ERROR: "it is an ICMP error, which no connection needs",
    DenyReason.SYN_DATA: "it opens or resets a connection, and carries data or asks for TCP Fast Open",
    DenyReason.SPOOFED_SOURCE: "its source does not live behind the interface it came in by",
    DenyReason.NO_ROUTE: "its destination is on no network that the firewall knows",
    DenyReason.INVALID: "connection tracking knows no connection that it could belong to",
    DenyReason.SPOOFED_DESTINATION: "its destination does not live behind the interface it would leave by",
    DenyReason.NOT_CONNECTED: "it would cross the border of a site that is not connected (不接続団体)",
    DenyReason.NOT_SYN: "it begins a connection, but not with SYN alone",
    DenyReason.EXPIRED: "the flow's last day is over",
    DenyReason.OUTSIDE_HOURS: "it is outside the flow's hours",
    DenyReason.SOURCE_RATE: "there are too many new connections from this source",
    DenyReason.SOURCE_CONNECTIONS: "there are too many connections from this source at once",
    DenyReason.RATE: "there are too many new connections of the flow",
    DenyReason.CONNECTIONS: "there are too many connections of the flow at once",
    DenyReason.RELAY: "the firewall's relay does not run",
    DenyReason.FORBIDDEN: "no flow permits it, and its port is that of a forbidden protocol",
    DenyReason.NO_FLOW: "no flow permits it",
    DenyReason.NO_PATH: "no path of the topology goes from this interface to that one",
    DenyReason.INPUT: "it is for the firewall itself, and no flow permits that",
    DenyReason.OUTPUT: "it is from the firewall itself, and answers nothing that a flow permits",
}
_NOT_OF_FLOWS = frozenset(DenyReason) - {
    *(DenyReason.NO_FLOW, DenyReason.FORBIDDEN, DenyReason.INPUT, DenyReason.OUTPUT, DenyReason.NO_PATH),
    *(DenyReason.OUTSIDE_HOURS, DenyReason.EXPIRED, DenyReason.NOT_CONNECTED),
}
_STRANGE = "it permits such connections, but not a packet of this form at this place"
_FOREIGN_RULES = "it permits this packet: these rules are not those of the topology"
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_FLAGS = {"fin": FIN, "syn": SYN, "rst": RST, "psh": 0x08, "ack": ACK, "urg": 0x20}


@dataclass(frozen=True, slots=True)
class Explanation:
    """One packet's way, that of the answer, and what would have let it through."""

    journey: Journey
    answer: Journey | None
    """Of a packet that arrived and can be answered."""
    near: tuple[Near, ...]
    """Of one that did not arrive."""

    @property
    def permitted(self) -> bool:
        """Whether it arrives."""
        return self.journey.arrived


def explain(walker: Walker, question: Question) -> Explanation:
    """Return what becomes of a packet."""
    journey = walker.journey(question)
    answer = None
    if journey.arrived and not question.reply and journey.passages:
        answer = walker.journey(question.answer())
    near = () if journey.arrived else tuple(nearest_flows(walker.topology, question))
    return Explanation(journey, answer, near)


def text(topology: Topology, found: Explanation) -> Iterator[str]:
    """Yield lines for a terminal."""
    names = Names(topology)
    yield described(names, found.journey.question)
    yield ""
    yield from _way(topology, found.journey)
    if found.answer is not None and found.answer.arrived:
        back = [each for each in found.answer.passages if each.ingress is not None]
        yield f"its answers pass as well: {', '.join(_short(each) for each in back)}"
    elif found.answer is not None:
        yield "but its answer does not pass:"
        yield from _way(topology, found.answer)
    if found.near:
        yield from _nearest(found.near[0], found.journey)
    yield verdict(found)


def described(names: Names, question: Question) -> str:
    """Return a packet in one line."""
    packet = question.packet
    protocol = packet.number(fields.PROTOCOL)
    ends = []
    for address, port in ((question.source, fields.SPORT), (question.destination, fields.DPORT)):
        name = names.address(address)
        shown = f"{name} [{address}]" if name != str(address) else name
        ends.append(f"{shown}:{packet[port]}" if protocol in {fields.TCP, fields.UDP} else shown)
    what = [_PROTOCOLS.get(protocol, f"protocol {protocol}")]
    if protocol == fields.TCP:
        what[0] += f" {' '.join(name for name, bit in _FLAGS.items() if packet.number(fields.TCP_FLAGS) & bit)}"
    if protocol in {fields.ICMP, fields.ICMPV6}:
        what.append(f"type {packet.number(fields.SPORT) >> 8} code {packet.number(fields.SPORT) & 0xFF}")
    what.append("an answer" if question.reply else question.state.name.lower())
    return f"{' → '.join(ends)}  {', '.join(what)}, {question.at:%a %Y-%m-%d %H:%M%z}"


def verdict(found: Explanation) -> str:
    """Return what it comes to, in one line."""
    journey = found.journey
    if journey.note is not None:
        return journey.note if journey.arrived else f"not permitted: {journey.note}"
    count = len({each.firewall for each in journey.passages})
    if journey.arrived:
        return f"permitted by {count} firewall{'s' if count != 1 else ''}, as long as no limit is reached"
    last = journey.passages[-1]
    return f"not permitted: {last.firewall} drops it, since {why(last)}"


def why(passage: Passage) -> str:
    """Return why a firewall drops a packet."""
    if passage.held:
        return "it is a fragment, and the others have not come"
    if passage.reason is None:
        return "a rule says so that gives no reason" if passage.steps else "nothing accepts it"
    said = WORDS[passage.reason]
    return f"{said}, {passage.protocol}" if passage.protocol else said


def _way(topology: Topology, journey: Journey) -> Iterator[str]:
    number, firewall, flow = 0, "", None
    for passage in journey.passages:
        again = passage.firewall == firewall
        number += not again
        yield from _passage(topology, passage, number, again=again, told=again and passage.flow == flow)
        firewall, flow = passage.firewall, passage.flow
        yield ""


def _passage(topology: Topology, passage: Passage, number: int, *, again: bool, told: bool) -> Iterator[str]:
    mark = "✓" if passage.passed else "✗"
    if passage.ingress is None:
        sender = f"the relay of {passage.firewall}" if again else f"{passage.firewall} itself"
        yield f"{'  ' if again else f'{number}.'} {sender} (→ {passage.egress})  {mark} {_outcome(passage)}"
    else:
        yield f"{number}. {_short(passage)}  {mark} {_outcome(passage)}"
    flow = topology.flows.get(passage.flow or "")
    if flow is not None and not told:
        yield f"     flow   {flow.id}  {flow.title}"
        yield f"     basis  {flow.basis}"
    shown, others = _parts(passage)
    for step in shown:
        yield f"     rule   {_place(step)}: {step.rule.text if step.rule else 'policy drop'}"
        yield from (f"            {element_text(step, name, element)}" for name, element in step.elements)
    if others:
        yield f"     also   accepted by {', '.join(others)}"


def _parts(passage: Passage) -> tuple[list[Step], list[str]]:
    """Return the rules to show in full, and in few words those that merely accept."""
    parts: list[list[Step]] = [[]]
    for step in passage.steps:
        if parts[-1] and step.chain.base is not None:
            parts.append([])
        parts[-1].append(step)
    telling = [
        part for part in parts if passage.flow is not None and any(flow_of(step) == passage.flow for step in part)
    ]
    merely = parts[1:2] if passage.diverted else parts[:1]
    shown = (telling or merely) if passage.passed else parts[-1:]
    others = [_place(part[-1]) for part in parts if part not in shown and part]
    return [step for part in shown for step in part], others


def _outcome(passage: Passage) -> str:
    if not passage.passed:
        counter = "" if passage.reason is None else f"; counter {deny_counter(passage.reason, passage.protocol)}"
        return f"dropped: {why(passage)}{counter}"
    if passage.diverted:
        return f"handed to its relay, which {'has it for the firewall itself' if passage.ends else 'goes on by itself'}"
    if passage.ingress is None:
        return "sent"
    return "forwarded" if passage.egress is not None else "taken by the firewall itself"


def _short(passage: Passage) -> str:
    end = passage.egress or ("relay" if passage.diverted else "itself")
    return f"{passage.firewall} ({passage.ingress} → {end})"


def _place(step: Step) -> str:
    chain = step.chain.id
    table = "" if chain.table == "netpolicy" else f"{chain.table} "
    return f"{table}{chain.name} {step.rule.number if step.rule else 'policy'}"


def element_text(step: Step, name: str, element: Element) -> str:
    """Return an element as nft writes it."""
    statements = step.rule.statements if step.rule else ()
    terms = next(
        (
            statement.terms  # type: ignore[union-attr]
            for statement in statements
            if getattr(getattr(statement, "collection", None), "name", None) == name
        ),
        (),
    )
    if element.key is None:
        key = "*"
    else:
        key = " . ".join(_value(term, value) for term, value in zip(terms, element.key, strict=True))
    comment = f'  "{element.comment}"' if element.comment else ""
    return f"@{name}: {key}{comment}"


def _value(term: Term, value: Value) -> str:
    if isinstance(value, Name):
        return f'"{value.text}"'
    ends = [value.first] if value.first == value.last else [value.first, value.last]
    if term.field in {fields.SADDR, fields.DADDR}:
        wide = term.family is Family.IPV6 or value.last > 0xFFFFFFFF
        return "-".join(str(ip_address(each.to_bytes(16 if wide else 4))) for each in ends)
    if term.field is fields.PROTOCOL and len(ends) == 1:
        return _PROTOCOLS.get(ends[0], str(ends[0]))
    return "-".join(map(str, ends))


def _nearest(near: Near, journey: Journey) -> Iterator[str]:
    flow = near.flow
    yield f"the nearest flow is {flow.id}  {flow.title}"
    yield f"     basis    {flow.basis}"
    if not near.differs:
        last = journey.passages[-1] if journey.passages else None
        strange = last is None or last.reason in _NOT_OF_FLOWS
        yield f"     {_STRANGE if strange else _FOREIGN_RULES}"
    for each in near.differs:
        yield f"     differs  {each}"
    yield ""


def document(topology: Topology, found: Explanation) -> dict[str, object]:
    """Return all of it for a program."""
    question = found.journey.question
    return {
        "packet": described(Names(topology), question),
        "from": str(question.source),
        "to": str(question.destination),
        "permitted": found.permitted,
        "verdict": verdict(found),
        "hops": [_plain(topology, each) for each in found.journey.passages],
        "answer": None
        if found.answer is None
        else {
            "permitted": found.answer.arrived,
            "hops": [_plain(topology, each) for each in found.answer.passages],
        },
        "nearest": [
            {
                "flow": near.flow.id,
                "title": str(near.flow.title),
                "basis": str(near.flow.basis),
                "differs": [
                    {"field": each.field, "is": each.is_now, "instead_of": each.instead_of} for each in near.differs
                ],
            }
            for near in found.near
        ],
    }


def _plain(topology: Topology, passage: Passage) -> dict[str, object]:
    flow = topology.flows.get(passage.flow or "")
    return {
        "firewall": passage.firewall,
        "in": passage.ingress,
        "out": passage.egress,
        "passed": passage.passed,
        "relay": passage.diverted,
        "flow": passage.flow,
        "basis": None if flow is None else str(flow.basis),
        "counter": None if passage.reason is None else deny_counter(passage.reason, passage.protocol),
        "why": None if passage.passed else why(passage),
        "rules": [
            {
                "chain": str(step.chain.id),
                "rule": step.rule.number if step.rule else None,
                "text": step.rule.text if step.rule else "policy drop",
                "elements": [element_text(step, name, element) for name, element in step.elements],
            }
            for step in passage.steps
        ],
    }
