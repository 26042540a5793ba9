"""What is unclear about connection tracking, by where the kernel does it, is refused."""

from __future__ import annotations

from collections.abc import Iterator

from netpolicy.proof import fields
from netpolicy.proof.fields import Family
from netpolicy.proof.model import (
    DEFRAGMENTATION,
    TRACKING,
    Assign,
    Chain,
    Dispatch,
    Hook,
    Rule,
    Ruleset,
    Statement,
    Translate,
    Verdict,
)
from netpolicy.proof.terms import RefusedError

_CONNECTED = {fields.STATE, fields.DIRECTION, fields.ZONE, fields.CT_MARK}


def refuse_unclear(ruleset: Ruleset) -> None:
    """Refuse rulesets whose meaning depends on what was registered first, or on a connection that is none yet.

    Raises:
        RefusedError: A base chain has the very priority of connection tracking or of putting fragments together; or a
            zone is set where connections are known, or asked about where it is set.

    """
    tracks = any(ruleset.tracks(family) for family in Family)
    for chain in ruleset.chains.values():
        if chain.base is None or not tracks:
            continue
        entry = chain.base.hook in {Hook.PREROUTING, Hook.OUTPUT}
        if entry and chain.base.priority in {DEFRAGMENTATION, TRACKING}:
            raise RefusedError(f"priority {chain.base.priority} beside connection tracking", str(chain.id))
        early = entry and chain.base.priority < TRACKING
        for rule, statement in _statements(ruleset, chain, set()):
            if _sets_zone(statement) and not early:
                raise RefusedError("ct zone set where connections are known", str(rule))
    for hook in (Hook.PREROUTING, Hook.OUTPUT):
        _refuse_asking(ruleset, hook)


def _refuse_asking(ruleset: Ruleset, hook: Hook) -> None:
    """Refuse questions about connections before they are known, if zones are set there: those answer with templates."""
    early = [
        each
        for chain in ruleset.chains.values()
        if chain.base is not None and chain.base.hook is hook and chain.base.priority < TRACKING
        for each in _statements(ruleset, chain, set())
    ]
    if any(_sets_zone(statement) for _, statement in early):
        for rule, statement in early:
            if any(term.field in _CONNECTED for term in getattr(statement, "terms", ())):
                raise RefusedError("ct where a zone is set", str(rule))


def _sets_zone(statement: Statement) -> bool:
    return isinstance(statement, Assign | Translate) and statement.field is fields.ZONE


def _statements(ruleset: Ruleset, chain: Chain, seen: set[str]) -> Iterator[tuple[Rule, Statement]]:
    """Yield the statements of a chain and of all that it jumps to."""
    for rule in chain.rules:
        for statement in rule.statements:
            yield rule, statement
            for target in _targets(statement):
                if target not in seen:
                    seen.add(target)
                    yield from _statements(ruleset, ruleset.chains[chain.target(target)], seen)


def _targets(statement: Statement) -> Iterator[str]:
    verdicts = [statement] if isinstance(statement, Verdict) else []
    if isinstance(statement, Dispatch):
        verdicts = [each.data for each in statement.collection.elements if isinstance(each.data, Verdict)]
    yield from (verdict.target for verdict in verdicts if verdict.target is not None)
