"""How a packet comes to each rule: the calls on the way there, from a base chain on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netpolicy.proof.fields import Family
from netpolicy.proof.model import ChainId, Dispatch, Hook, Rule, Ruleset, Verdict

WAYS = (
    (Hook.PREROUTING, Hook.FORWARD, Hook.POSTROUTING),
    (Hook.PREROUTING, Hook.INPUT),
    (Hook.OUTPUT, Hook.POSTROUTING),
)
"""The hooks that packets come to, in order: those that cross, those that end here, those that begin here."""


@dataclass(frozen=True, slots=True)
class Call:
    """One way in which a rule leads into another chain."""

    rule: Rule
    key: tuple[object, ...] | None
    """Of the element that leads there; None: whatever is looked up, or nothing is."""
    target: ChainId


@dataclass(frozen=True, slots=True)
class Path:
    """The way to a chain."""

    hooks: tuple[Hook, ...]
    base: ChainId
    calls: tuple[Call, ...]

    @property
    def chain(self) -> ChainId:
        """Where it leads."""
        return self.calls[-1].target if self.calls else self.base


def paths(ruleset: Ruleset, family: Family) -> dict[ChainId, list[Path]]:
    """Return the ways to every chain that packets of a family come to.

    There is one for each rule and element that calls it, each by the first way to that rule's chain.
    """
    found: dict[ChainId, list[Path]] = {}
    for hooks in WAYS:
        for hook in hooks:
            for chain in ruleset.hook(hook, family):
                if chain.id not in found:
                    _explore(ruleset, Path(hooks, chain.id, ()), found)
    return found


def _explore(ruleset: Ruleset, begin: Path, found: dict[ChainId, list[Path]]) -> None:
    queue = [begin]
    for path in queue:
        known = found.setdefault(path.chain, [])
        known.append(path)
        if len(known) > 1:
            continue  # what it calls has been reached by the first one
        for rule in ruleset.chains[path.chain].rules:
            queue.extend(Path(path.hooks, path.base, (*path.calls, call)) for call in _calls(ruleset, rule))


def _calls(ruleset: Ruleset, rule: Rule) -> Iterator[Call]:
    """Yield the ways in which a rule leads elsewhere; of the elements of a map, the first that leads to each chain."""
    chain = ruleset.chains[rule.chain]
    seen: set[str] = set()
    for statement in rule.statements:
        if isinstance(statement, Verdict) and statement.target is not None:
            yield Call(rule, None, chain.target(statement.target))
        if isinstance(statement, Dispatch):
            for element in statement.collection.elements:
                verdict = element.data
                if isinstance(verdict, Verdict) and verdict.target is not None and verdict.target not in seen:
                    seen.add(verdict.target)
                    yield Call(rule, element.key, chain.target(verdict.target))
