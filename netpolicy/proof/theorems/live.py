"""No rule, element or flow is dead, hidden or needless."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from netpolicy.proof import fields
from netpolicy.proof.alike import alike
from netpolicy.proof.case import Case, Finding
from netpolicy.proof.judged import Judged, judge
from netpolicy.proof.model import Base, Chain, Dispatch, Match, Rule, Ruleset, Translate, Verdict, VerdictKind
from netpolicy.proof.packetset import PacketSet, Space
from netpolicy.proof.written import Sets, Unit, merge, together

LIVE = "live"

Named = tuple[str, str, str]
"""A set or map by family, table and name: tables have their own."""


@dataclass(frozen=True, slots=True)
class Life:
    """What of one firewall's ruleset some packet of one family needs."""

    rules: frozenset[Unit]
    elements: frozenset[tuple[Named, int]]
    """Of named sets and maps, by place."""
    looked_up: frozenset[Named]
    """Named sets and maps that some packet is looked up in."""
    hidden: Mapping[Unit, str]
    """Why no packet needs a rule."""


def life(judged: Judged) -> Life:
    """Find out what is needed."""
    matched = {unit for unit, packets in judged.kernel.record.matched.items() if packets.satisfiable()}
    needless = dict(_needless(judged))
    elements, names = _elements(judged)
    hidden = {
        (rule.chain, rule.number): _why(judged, chain, rule)
        for chain in judged.ruleset.chains.values()
        for rule in chain.rules
        if (rule.chain, rule.number) not in matched
    }
    return Life(frozenset(matched - set(needless)), frozenset(elements), frozenset(names), {**hidden, **needless})


def lives_by_table(
    firewall: str, ruleset: Ruleset, tables: Iterable[tuple[str, str]], spaces: Iterable[Space]
) -> Iterator[Life]:
    """Yield what is needed of some tables if each were alone and packets had any mark.

    What one table drops another must not be blamed for: a second door makes sense although the first is shut.
    """
    for family, table in tables:
        chains = {
            each.id: each for each in ruleset.chains.values() if (each.id.family, each.id.table) == (family, table)
        }
        part = Ruleset(chains, ruleset.collections)
        for space in spaces:
            yield life(judge(firewall, part, space, marked=True))


def _elements(judged: Judged) -> tuple[set[tuple[Named, int]], set[Named]]:
    kernel = judged.kernel
    rules = {(rule.chain, rule.number): rule for rule in judged.ruleset.rules()}
    live: set[tuple[Named, int]] = set()
    names: set[Named] = set()
    for (unit, place), looks in judged.kernel.record.looked_up.items():
        statement = rules[unit].statements[place]
        if not isinstance(statement, Match | Dispatch | Translate) or statement.collection.name is None:
            continue
        name = (unit[0].family, unit[0].table, statement.collection.name)
        for at, written, packets in looks:
            readable = packets & kernel.readable(statement.terms, at)
            if not readable.satisfiable():
                continue
            names.add(name)
            missing = [n for n in range(len(statement.collection.elements)) if (name, n) not in live]
            if not missing:
                continue
            bits = [bit for term in statement.terms for bit in kernel.bits(term, at, written)]
            looked_at = judged.space.projected(readable, bits)
            holding = kernel.holding(statement.terms, statement.collection, at, written)
            live.update((name, n) for n in missing if (looked_at & holding[n]).satisfiable())
    return live, names


def _why(judged: Judged, chain: Chain, rule: Rule) -> str:
    """Return why nothing that a rule says ever comes to pass."""
    reached = judged.kernel.record.reached

    def comes(number: int) -> PacketSet:
        return reached.get((chain.id, number), judged.space.false)

    if not comes(1).satisfiable():
        return "no packet comes to its chain"
    if not comes(rule.number).satisfiable():
        last = max(number for number in range(1, rule.number) if comes(number).satisfiable())
        return f"rule {last} leaves nothing: {chain.rules[last - 1].text}"
    for earlier in chain.rules[: rule.number - 1]:
        taken = comes(earlier.number) & ~comes(earlier.number + 1)
        if (taken & _condition(judged, rule)).satisfiable():
            return f"rule {earlier.number} hides it: {earlier.text}"
    return "it contradicts itself, or what comes to it"


def _condition(judged: Judged, rule: Rule) -> PacketSet:
    """Return the packets that fit the comparisons of a rule which some packet has come to."""
    kernel = judged.kernel
    found = judged.space.true
    for place, statement in enumerate(rule.statements):
        looks = judged.kernel.record.looked_up.get(((rule.chain, rule.number), place), ())
        if isinstance(statement, Match) and looks:
            at, written, _ = looks[0]
            held = kernel.held(statement.terms, statement.collection, at, written)
            found &= kernel.readable(statement.terms, at) & ~held if statement.negated else held
    return found


def _needless(judged: Judged) -> Iterator[tuple[Unit, str]]:
    """Yield rules that accept, or drop without a name for it, what the rest of their chain treats the same.

    One that is needed at one hook is needed, whatever it is at others that call its chain.
    """
    needless: dict[Unit, bool] = {}
    for (unit, at), entered in judged.kernel.record.final.items():
        matched = judged.kernel.record.matched.get(unit, judged.space.false)
        for written, packets in entered.items():
            same = _says_the_same(judged, unit, at, {written: packets & matched})
            if same is not None:
                needless[unit] = needless.get(unit, True) and same
    yield from ((unit, "the rules after it say the same") for unit, same in needless.items() if same)


def _says_the_same(judged: Judged, unit: Unit, at: Base, comes: Sets) -> bool | None:
    """Tell whether the rest of a chain ends what a rule ends as the rule does; None if it ends nothing."""
    chain, kernel = judged.ruleset.chains[unit[0]], judged.kernel.apart()
    alone = kernel.part(Chain(chain.id, at, chain.rules[unit[1] - 1 : unit[1]]), comes)
    mine = alone.accepted or alone.dropped
    if not mine:
        return None
    ended = together(judged.space, mine)
    rest = kernel.part(
        Chain(chain.id, at, chain.rules[unit[1] :]), {each: ended & sets for each, sets in comes.items()}
    )
    ends = rest.accepted if alone.accepted else rest.dropped
    if chain.base is not None and chain.base.accepts is bool(alone.accepted):
        ends = merge(ends, rest.rest)
    # What is written on a packet that is dropped nobody reads.
    return alike(judged.space, ends, mine) if alone.accepted else together(judged.space, ends) == ended


def is_shortcut(rule: Rule) -> bool:
    """Tell whether a rule is one that is needless on purpose, to spare packets what follows; it must be.

    It is known by what it does, never by what is written beside it: it accepts senders, by interface, to receivers.
    """
    if len(rule.statements) != 3:
        return False
    sender, receiver, verdict = rule.statements
    looks = [each for each in (sender, receiver) if isinstance(each, Match) and not each.negated]
    return (
        [[term.field for term in each.terms] for each in looks] == [[fields.IIF, fields.SADDR], [fields.DADDR]]
        and all(each.collection.name is not None for each in looks)
        and verdict == Verdict(VerdictKind.ACCEPT)
    )


def dead(firewall: str, ruleset: Ruleset, lives: Sequence[Life], spaces: Sequence[Space]) -> Iterator[Finding]:
    """Yield what no packet of any family needs.

    Args:
        firewall: Whose ruleset it is.
        ruleset: Of it.
        lives: One of each family.
        spaces: One of each family, to try single tables in.

    """
    unneeded = [rule for rule in ruleset.rules() if not is_shortcut(rule) and not _needed(rule, lives)]
    tables = dict.fromkeys((rule.chain.family, rule.chain.table) for rule in unneeded)
    alone = list(lives_by_table(firewall, ruleset, tables, spaces))
    for rule in unneeded:
        if not _needed(rule, alone):
            unit: Unit = (rule.chain, rule.number)
            why = "; ".join(dict.fromkeys(life.hidden[unit] for life in alone if unit in life.hidden))
            yield Finding(LIVE, firewall, f"no packet needs a rule: {why}", rule=str(rule), flow=rule.comment)
    for rule in ruleset.rules():
        if is_shortcut(rule) and _needed(rule, lives):
            yield Finding(LIVE, firewall, "a shortcut leads elsewhere than the rules after it", rule=str(rule))
    for name, collection in ruleset.collections.items():
        why = "another one hides it" if any(name in life.looked_up for life in lives) else "nothing is looked up"
        for number, element in enumerate(collection.elements):
            if not any((name, number) in life.elements for life in lives):
                what = f"no packet needs element {number + 1} of {' '.join(name)}: {why}"
                yield Finding(LIVE, firewall, what, element=element.comment, flow=element.comment)


def _needed(rule: Rule, lives: Iterable[Life]) -> bool:
    return any((rule.chain, rule.number) in life.rules for life in lives)


def flows(case: Case) -> Iterator[Finding]:
    """Yield packets that two flows permit: they would have two legal bases."""
    ids = {flow.id for flow in case.topology.effective_flows()}
    for firewall, demanded in case.demanded.items():
        covered = case.space.false
        for id_, packets in (*demanded.delivered.items(), *demanded.forwarded.items()):
            if id_ not in ids:
                continue
            if (packets & covered).satisfiable():
                yield Finding(LIVE, firewall, f"another flow permits packets of flow '{id_}' as well", flow=id_)
            covered |= packets
