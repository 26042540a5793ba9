"""Rulesets written by others, held against the kernel or refused by name."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from random import Random

from conformance.modelled.bench import RulesetError, benches
from conformance.modelled.judge import Result, hold
from conformance.modelled.plan import Plan, names_for
from conformance.modelled.points import points
from netpolicy.inputs import read_regular
from netpolicy.proof.fields import Family
from netpolicy.proof.model import Ruleset, Unknown
from netpolicy.proof.read import LoadError
from netpolicy.proof.source import refuse_includes
from netpolicy.proof.terms import RefusedError
from netpolicy.proof.witness import witnesses

_MOST_BYTES = 16 << 20
"""Of a file."""
_FEWEST, _MOST = 3, 16
"""Interfaces."""
_WITNESSES, _POINTS = 400, 200
"""Packets of each family."""
_LARGE = 400
"""Rules, from which on there are points only: witnesses take their time in long chains."""
_INTERFACE = re.compile(r"\b[io]if(?:name)?\b\s+(?:[!=]=\s*)?(\{[^}]*\}|[\"\w.$@*-]+)")
_DEFINED = re.compile(r"^\s*(?:re)?define\s+(\w+)\s*=\s*(.+)$", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,14}\*?")


class Answer(enum.StrEnum):
    """What came of a file."""

    AGREES = "agrees"
    DISAGREES = "disagrees"
    REFUSED = "refused"
    """The model does not know something that it has."""
    UNLOADED = "not loaded"
    """nft, or this kernel, does not take it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """One file."""

    file: str
    answer: Answer
    reason: str = ""
    """Why it was refused or not loaded."""
    rules: int = 0
    rules_matched: int = 0
    packets: int = 0
    unsendable: int = 0
    disagreements: tuple[str, ...] = field(default=())


def replay_folder(folder: Path) -> Iterator[Replayed]:
    """Load every ``*.nft`` below a folder, and send packets through those that are understood.

    Raises:
        OSError: A file cannot be read.

    """
    for path in sorted(folder.rglob("*.nft")):
        yield _replay(path, str(path.relative_to(folder)))


def _replay(path: Path, name: str) -> Replayed:
    text = read_regular(path, _MOST_BYTES).decode("utf-8", errors="replace")
    plan = Plan(names_for(interfaces(text), _FEWEST)[:_MOST])
    with benches(plan) as bench:
        try:
            refuse_includes(text, path)
            loaded = bench.load(text)
        except (RulesetError, LoadError) as refused:
            return Replayed(name, Answer.UNLOADED, _short(str(refused)))
        except RefusedError as refused:
            return Replayed(name, Answer.REFUSED, refused.what)
        found = Result()
        for family in Family:
            random = Random(int(family))  # noqa: S311 - the same packets every time
            wished = list(points(loaded.ruleset, family, plan.interfaces, _POINTS, random))
            if sum(1 for _ in loaded.ruleset.rules()) < _LARGE:
                wished.extend(islice(witnesses(loaded.ruleset, family, plan.interfaces), _WITNESSES))
            found.add(hold(bench, loaded, wished, _open))
    rules = [rule for rule in loaded.ruleset.rules() if rule.text != "counter"]
    return Replayed(
        file=name,
        answer=Answer.DISAGREES if found.disagreements else Answer.AGREES,
        rules=len(rules),
        rules_matched=_left(loaded.ruleset, found),
        packets=found.sent,
        unsendable=found.unsendable,
        disagreements=tuple(str(each) for each in found.disagreements),
    )


def interfaces(text: str) -> list[str]:
    """Return the names of interfaces that a file speaks of, as far as one can tell before it is loaded."""
    defined = dict(_DEFINED.findall(text))
    found: dict[str, None] = {}
    for said in _INTERFACE.findall(text):
        for word in _words(said, defined):
            found.setdefault(word)
    return list(found)


def _words(said: str, defined: dict[str, str], depth: int = 0) -> Iterator[str]:
    for variable in re.findall(r"\$(\w+)", said):
        if depth < 5:
            yield from _words(defined.get(variable, ""), defined, depth + 1)
    for word in _NAME.findall(re.sub(r"[$@]\w+|#.*", " ", said)):
        if word not in {"vmap", "map", "accept", "drop", "jump", "goto", "elements"}:
            yield word


def _open(_unknown: Unknown) -> bool | None:
    """Return that a limit may answer either way."""
    return None


def _left(ruleset: Ruleset, found: Result) -> int:
    """Return how many rules were left by fewer packets than came to them: these have matched, and with effect."""
    count = 0
    for chain in ruleset.chains.values():
        reached = [found.matched[chain.id, rule.number] for rule in chain.rules if rule.text == "counter"]
        count += sum(before > after for before, after in pairwise(reached))
    return count


def _short(said: str) -> str:
    """Return the first complaint of nft without its place."""
    lines = said.splitlines() or [""]
    first = next((line for line in lines if "Error: " in line), lines[0])
    return first.partition("Error: ")[2] or first
