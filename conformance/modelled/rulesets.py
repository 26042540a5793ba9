"""Random rulesets that use everything the model knows: the same seed, the same text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from conformance.modelled.coherent import coherent
from conformance.modelled.expressions import Expression, Place, expressions
from conformance.modelled.lookups import KEYS, declared_type, elements, fits, intervals, selector
from conformance.modelled.plan import LISTENED
from netpolicy.proof.model import Unknown

_FAMILIES = ("inet", "inet", "inet", "ip", "ip6")
_HOOKS = ("prerouting", "forward", "forward", "input", "output", "postrouting")
_PRIORITIES = (-450, -300, -150, -10, 0, 0, 10, 100)
_RAW = -200
"""Below this priority connections are not known."""
_CERTAIN = {
    "limit rate 1000000/second burst 60000 packets": True,
    "limit rate over 1000000/second burst 60000 packets": False,
    "quota over 1 bytes": True,
    "quota until 1 bytes": False,
    "quota over 100000 mbytes": False,
    "quota until 100000 mbytes": True,
    "ct count over 60000": False,
    "ct count 60000": True,
}
"""Limits whose answer is beyond doubt, and the answer."""
_VERDICTS = ("accept", "drop", "continue", "return")
_MOST_COMMENT = 120


def certain(unknown: Unknown) -> bool | None:
    """Return the answer of a limit of these rulesets."""
    text = unknown.text
    kind = next(each for each in ("limit", "quota", "ct count") if text.startswith(each))
    inverted = "inv True" in text
    if kind == "quota":
        return ("val 1 val_unit bytes" in text) is inverted
    return not inverted


@dataclass(slots=True)
class _Table:
    """One table in the making."""

    family: str
    name: str
    random: Random
    known: tuple[Expression, ...]
    zones: bool
    """Chains before connection tracking set zones, instead of asking about connections."""
    lines: list[str] = field(default_factory=list)
    sets: dict[str, str] = field(default_factory=dict)
    maps: list[tuple[tuple[str, ...], str, str]] = field(default_factory=list)
    """Key, name, and ``verdict`` or ``mark``."""

    def text(self) -> str:
        """Return the table."""
        self._declare()
        regular = [f"more{number}" for number in range(self.random.randint(0, 3))]
        bodies = []
        for number, name in enumerate(regular):
            place = Place(self.family, None, False, self.sets)
            bodies.append(self._chain(name, "", place, regular[number + 1 :]))
        used: set[tuple[str, int]] = set()
        for number in range(self.random.randint(2, 4)):
            hook, priority = self.random.choice(_HOOKS), self.random.choice(_PRIORITIES)
            early = priority < _RAW and hook in {"prerouting", "output"}
            used.add((hook, priority))
            kind = "route" if hook == "output" and self.random.random() < 0.3 else "filter"
            policy = self.random.choice(["accept", "accept", "accept", "drop"])
            head = f"type {kind} hook {hook} priority {priority}; policy {policy};"
            place = Place(self.family, hook, not early, self.sets)
            bodies.append(self._chain(f"base{number}", head, place, [] if early and self.zones else regular))
        return "\n".join([f"table {self.family} {self.name} {{", *self.lines, *bodies, "}"])

    def _declare(self) -> None:
        random = self.random
        self.lines.append("counter seen { }")
        keys = [key for key in KEYS if fits(key, Place(self.family, None, True))]
        for number, key in enumerate(random.sample(keys, k=min(4, len(keys)))):
            flags = "flags interval;"
            several = (
                intervals(random, key) if len(key) == 1 and random.random() < 0.7 and "meta" not in key[0] else None
            )
            kind = random.choice(["set", "verdict", "mark"])
            name = f"{kind}{number}"
            several = several or elements(random, key, random.randint(1, 6))
            if kind == "set":
                self.sets[selector(key)] = name
                self._add("set", name, declared_type(key), flags, several)
                continue
            if kind == "verdict":
                data = [f"{each} : {random.choice(_VERDICTS)}" for each in several]
                if random.random() < 0.4:
                    data.append(f"* : {random.choice(_VERDICTS)}")
            else:
                data = [f"{each} : {random.choice([1, 2, 3, 256])}" for each in several]
            self.maps.append((key, name, kind))
            self._add("map", name, f"{declared_type(key)} : {kind}", flags, data)

    def _add(self, kind: str, name: str, made_for: str, flags: str, several: list[str]) -> None:
        self.lines.append(f"{kind} {name} {{ type {made_for}; {flags} elements = {{ {', '.join(several)} }}; }}")

    def _chain(self, name: str, head: str, place: Place, below: list[str]) -> str:
        rules = [self._rule(place, below) for _ in range(self.random.randint(2, 8))]
        return "\n".join([f"chain {name} {{", *([head] if head else []), *rules, "}"])

    def _rule(self, place: Place, below: list[str]) -> str:
        while True:
            parts, names = self._parts(place, below)
            if coherent(parts, self.family):
                return f'{" ".join(parts)} comment "{";".join(dict.fromkeys(names))[:_MOST_COMMENT]}"'

    def _parts(self, place: Place, below: list[str]) -> tuple[list[str], list[str]]:
        """Return the parts of a rule, and the names of what is in them."""
        random = self.random
        allowed = [each for each in self.known if each.fits(place) and self._may(each.name, place)]
        chosen = random.sample(allowed, k=random.choice([1, 1, 1, 2, 2, 3]))
        names = [each.name for each in chosen]
        parts = [each.make(random, place) for each in chosen]
        for name, part in self._lookup(place), self._statement(place):
            if part:
                names.append(name)
                parts.append(part)
        name, part = self._verdict_map(place, below) if random.random() < 0.12 else self._verdict(place, below)
        return [*parts, "counter", *([part] if part else [])], [*names, *([name] if name else [])]

    def _may(self, name: str, place: Place) -> bool:
        return not (name.startswith("ct ") and self.zones and not place.tracked)

    def _lookup(self, place: Place) -> tuple[str, str]:
        """Return a look-up of several things at once."""
        random = self.random
        key = random.choice(KEYS)
        if random.random() > 0.2 or not fits(key, place) or len(key) == 1:
            return "", ""
        negated = random.choice(["", "", "!= "])
        if selector(key) in self.sets and random.random() < 0.7:
            return "concatenation, named", f"{selector(key)} {negated}@{self.sets[selector(key)]}"
        several = elements(random, key, random.randint(1, 4))
        return "concatenation", f"{selector(key)} {negated}{{ {', '.join(several)} }}"

    def _statement(self, place: Place) -> tuple[str, str]:
        random = self.random
        zone = place.hook in {"prerouting", "output"} and not place.tracked and self.zones
        forms: list[tuple[str, str]] = [("", "")] * 6
        forms += [
            ("meta mark set", f"meta mark set {random.choice([0, 1, 2, 0x100, 0xFFFFFFFF])}"),
            (
                "meta mark set &|",
                f"meta mark set meta mark {random.choice(['& 0xff', '| 0x100', '& 0xff00 | 0x1', '& 0xfffffffe'])}",
            ),
            ("log", 'log prefix "seen " level debug'),
            ("counter, named", "counter name seen"),
        ]
        if place.tracked or (place.hook is None and not self.zones):
            forms += [("ct mark set", f"ct mark set {random.choice([1, 2, 256])}")]
            forms += [("ct mark set &|", f"ct mark set ct mark {random.choice(['& 0xff', '| 0x100'])}")]
        limit = random.choice(list(_CERTAIN))
        if place.tracked or not limit.startswith("ct "):
            forms.append((" ".join(limit.split()[: 2 if limit.startswith("ct") else 1]), limit))
        if zone:
            forms += [("ct zone set", f"ct zone set {random.choice([1, 7])}")] * 6
        if place.hook == "prerouting" and place.tracked:
            family = place.family if place.family != "inet" else random.choice(["ip", "ip6"])
            port = random.choice([*LISTENED, 7])
            lead = f"meta nfproto {'ipv4' if family == 'ip' else 'ipv6'} " if place.family == "inet" else ""
            to = f"tproxy {family if place.family == 'inet' else ''} to :{port}".replace("  ", " ")
            forms += [("tproxy", f"{lead}meta l4proto {random.choice(['tcp', 'udp'])} {to}")] * 2
        marks = [each for each in self.maps if each[2] == "mark" and fits(each[0], place)]
        if marks:
            key, name, _ = random.choice(marks)
            forms += [("meta mark set map", f"meta mark set {selector(key)} map @{name}")] * 3
        forms.append(("meta mark set map", "meta mark set meta l4proto map { tcp : 1, udp : 2, icmp : 3 }"))
        return random.choice(forms)

    def _verdict_map(self, place: Place, below: list[str]) -> tuple[str, str]:
        random = self.random
        verdicts = [each for each in self.maps if each[2] == "verdict" and fits(each[0], place)]
        if verdicts and random.random() < 0.6:
            key, name, _ = random.choice(verdicts)
            return "verdict map, named", f"{selector(key)} vmap @{name}"
        goals = [*_VERDICTS, *(f"jump {each}" for each in below), *(f"goto {each}" for each in below)]
        if random.random() < 0.4 and self._may("ct state", place):
            states = random.sample(["new", "established", "related", "invalid", "untracked"], k=3)
            return (
                "ct state vmap",
                f"ct state vmap {{ {', '.join(f'{each} : {random.choice(goals)}' for each in states)} }}",
            )
        keys = [key for key in KEYS if fits(key, place)]
        key = random.choice(keys)
        several = [f"{each} : {random.choice(goals)}" for each in elements(random, key, random.randint(1, 5))]
        if random.random() < 0.3:
            several.append(f"* : {random.choice(goals)}")
        return "verdict map", f"{selector(key)} vmap {{ {', '.join(several)} }}"

    def _verdict(self, place: Place, below: list[str]) -> tuple[str, str]:
        random = self.random
        forms: list[tuple[str, str]] = [("", "")] * 5
        forms += [(each, each) for each in ("accept", "drop", "return", "continue")]
        forms += [("jump", f"jump {each}") for each in below] * 2
        forms += [("goto", f"goto {each}") for each in below]
        if place.hook in {"input", "forward", "output"}:
            forms.append(("reject", self._reject()))
        forms.append(("tcp option maxseg size set", f"tcp option maxseg size set {random.choice([536, 1220, 1460])}"))
        return random.choice(forms)

    def _reject(self) -> str:
        forms = ["reject"]
        if self.family == "inet":
            forms += ["reject with icmpx admin-prohibited", "reject with icmpx host-unreachable"]
        if self.family != "ip6":
            forms.append("reject with icmp host-unreachable")
        if self.family != "ip":
            forms.append("reject with icmpv6 admin-prohibited")
        return self.random.choice([*forms, "reject with tcp reset"])


def ruleset(seed: int) -> str:
    """Return a random ruleset."""
    random = Random(seed)  # noqa: S311 - the same ruleset every time
    known = expressions()
    zones = random.random() < 0.3
    several = [
        _Table(random.choice(_FAMILIES), f"t{number}", random, known, zones).text()
        for number in range(random.randint(1, 3))
    ]
    return "\n".join([*several, ""])


def rulesets(first: int, count: int) -> Iterator[tuple[int, str]]:
    """Yield so many rulesets with their seeds."""
    for seed in range(first, first + count):
        yield seed, ruleset(seed)
