"""Small faults in a compiled ruleset, as a careless edit, a bug of a compiler or somebody with a plan makes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

Edit = Callable[[re.Match[str]], str | None]
"""From what was found in a line to what stands there instead; None where nothing else can."""

_DROP = "\x00"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault."""

    operator: str
    line: int
    """In the file, from 1 on."""
    before: str
    after: str
    text: str
    """Of the whole file."""

    def __str__(self) -> str:
        return f"{self.operator}, line {self.line}: {self.before.strip()} -> {self.after.strip() or '(nothing)'}"


@dataclass(frozen=True, slots=True)
class Operator:
    """One kind of fault: what it changes in lines that match, once for each."""

    name: str
    pattern: re.Pattern[str]
    edit: Edit

    def mutants(self, text: str) -> Iterator[Mutant]:
        """Yield every ruleset that differs by this fault at one place."""
        lines = text.split("\n")
        for number, line in enumerate(lines):
            if line.lstrip().startswith("#"):
                continue
            for match in self.pattern.finditer(line):
                new = self.edit(match)
                if new is None:
                    continue
                after = "" if _DROP in new else line[: match.start()] + new + line[match.end() :]
                if after != line:
                    kept = [*lines[:number], after, *lines[number + 1 :]]
                    yield Mutant(self.name, number + 1, line, after, "\n".join(kept))


def _operator(name: str, pattern: str, edit: Edit | str) -> Operator:
    if isinstance(edit, str):
        replacement = edit
        return Operator(name, re.compile(pattern), lambda match: match.expand(replacement))
    return Operator(name, re.compile(pattern), edit)


_NUMBERS = r"(?<![\w.:/])(\d+\.\d+\.\d+\.\d+|[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*::[0-9a-f:]*)"
_ADDRESS = _NUMBERS + r"(?![\w.:/])"
_PREFIX = rf"({_NUMBERS}/\d+)"
_ELEMENT = r"^\t\t\t(?=\S)"
_RULE = r"^\t\t(?!type |flags |counter$|elements|\}|#)(?=\S).*$"
_FINAL = r"^\t\tcounter name \w+ drop$"


def _shifted(match: re.Match[str]) -> str:
    return str(ip_address(match[1]) + 1)


def _resized(by: int) -> Edit:
    def edit(match: re.Match[str]) -> str | None:
        network = ip_network(match[1])
        length = network.prefixlen + by
        if not 0 < length <= network.max_prefixlen:
            return None
        return str(ip_network((int(network.network_address), length), strict=False))

    return edit


def _port(by: int) -> Edit:
    return lambda match: f"{match[1]}{int(match[2]) + by}"


def _longer(match: re.Match[str]) -> str:
    return f"{match[1]}{int(match[2]) * 2}{match[3]}"


OTHER_INTERFACES = ("lo", "wan")
"""Names that stand in for others."""


def _other_interface(match: re.Match[str]) -> str:
    return next(f'"{name}"' for name in OTHER_INTERFACES if match[0] != f'"{name}"')


OPERATORS = (
    _operator("delete a rule", _RULE, _DROP),
    _operator("delete an element", _ELEMENT + r".*$", _DROP),
    _operator(
        "add a rule that accepts a port",
        r"^\t\tct state invalid goto deny_invalid$",
        r"\g<0>; tcp dport 80 meta mark set 0x4e000000 accept",
    ),
    _operator(
        "add a rule that accepts a source",
        r"^\t\tct state invalid goto deny_invalid$",
        r"\g<0>; ip saddr 10.0.0.1 meta mark set 0x4e000000 accept",
    ),
    _operator(
        "established is accepted",
        r"^\t\tct state invalid goto deny_invalid$",
        r"\g<0>; ct state established meta mark set 0x4e000000 accept",
    ),
    _operator("widen a prefix", _PREFIX, _resized(-1)),
    _operator("narrow a prefix", _PREFIX, _resized(1)),
    _operator("shift an address by one", _ADDRESS, _shifted),
    _operator("shift a port up by one", r"( tcp \. )(\d+)(?= comment)", _port(1)),
    _operator("shift a port down by one", r"( tcp \. )(\d+)(?= comment)", _port(-1)),
    _operator("swap the protocol", r" \. tcp \. ", " . udp . "),
    _operator("another protocol matches", r"meta l4proto tcp", "meta l4proto udp"),
    _operator("any port", r"meta l4proto \. th dport vmap", "meta l4proto . th sport vmap"),
    _operator("swap the ends of a look-up", r"ip(6?) saddr \. ip\1 daddr", r"ip\1 daddr . ip\1 saddr"),
    _operator("flip a policy", r"policy drop", "policy accept"),
    _operator("remove a final drop", _FINAL, _DROP),
    _operator("only log", r"^(\t\tcounter name \w+) drop$", r"\1"),
    _operator("new is taken for established", r"ct state established(?! ct)", "ct state new,established"),
    _operator("a state is lost", r"ct state established ct direction reply", "ct direction reply"),
    _operator("invalid is not refused", r"ct state invalid goto", "ct state untracked goto"),
    _operator(
        "related is accepted",
        r"^\t\tct state invalid goto deny_invalid$",
        r"\g<0>; ct state related meta mark set 0x4e000000 accept",
    ),
    _operator(
        "a direction is turned",
        r"ct direction (?:original|reply)",
        lambda m: "ct direction reply" if "original" in m[0] else "ct direction original",
    ),
    _operator("a direction is lost", r"ct direction (?:original|reply) ", ""),
    _operator("a flag is not looked at", r"fin \| syn \| rst \| ack\) != syn", "syn) != syn"),
    _operator("other flags", r"\) != syn", ") != ack"),
    _operator("a negation is lost", r" != (?=@|\d|new|syn|tcp|\")", " "),
    _operator("a negation too many", r"(ip6? [sd]addr|iifname|oifname) (?=@|\")", r"\1 != "),
    _operator("a set is no interval any more", r"^\t\tflags interval$", _DROP),
    _operator(
        "another interface",
        r'(?<=\t)"[a-z0-9-]+"|(?<=iifname )"[a-z0-9-]+"|(?<=oifname )"[a-z0-9-]+"',
        _other_interface,
    ),
    _operator("in for out", r"\biifname\b", "oifname"),
    _operator("out for in", r"\boifname\b", "iifname"),
    _operator("another priority", r"priority (-?\w+);", lambda m: "priority 20;" if m[1] == "0" else "priority 0;"),
    _operator(
        "another hook",
        r"hook (forward|input|output) ",
        lambda m: f"hook {'input' if m[1] == 'forward' else 'forward'} ",
    ),
    _operator("jump becomes goto", r"\bjump (?=\w)", "goto "),
    _operator("goto becomes jump", r"\bgoto (?=\w)", "jump "),
    _operator("goto becomes accept", r"\bgoto deny_\w+", "meta mark set 0x4e000000 accept"),
    _operator("return becomes accept", r"\breturn$", "meta mark set 0x4e000000 accept"),
    _operator("another verdict", r"(?<=: )goto flow_\w+$|(?<=: )goto flow_\w+(?=,)", "accept"),
    _operator("accept is not marked", r"meta mark set 0x4e00000[01] ", ""),
    _operator("another mark", r"mark set 0x4e000001", "mark set 0x4e000000"),
    _operator("a hop more", r"(ttl|hoplimit) <= 1", r"\1 <= 0"),
    _operator("fragments with an offset alone", r"0x3fff", "0x1fff"),
    _operator("another header length", r"hdrlength != 5", "hdrlength > 6"),
    _operator("an extension header less", r"hopopt, ", ""),
    _operator("an ICMP type less", r"destination-unreachable, |, nd-redirect", ""),
    _operator("another message", r"nd-neighbor-(?:solicit|advert)", "echo-request"),
    _operator("a flag that may have data", r"\(syn \| rst\) != 0", "(rst) != 0"),
    _operator("four bytes after SYN", r"(meta length )(\d+)", lambda m: f"{m[1]}{int(m[2]) + 4}"),
    _operator("a data offset more", r"(tcp doff )(\d+)", lambda m: f"{m[1]}{(int(m[2]) + 1) % 16}"),
    _operator("another option", r"tcp option (?:fastopen|254) exists", "tcp option fastopen missing"),
    _operator("another listener", r"(to (?:127\.0\.0\.1|\[::1\]):)(\d+)", _port(1)),
    _operator("no limit of rate", r"limit rate over \d+/second burst \d+ packets goto \w+", _DROP),
    _operator("twice the rate", r"(limit rate over )(\d+)(/second)", _longer),
    _operator("twice the connections", r"(ct count over )(\d+)()", _longer),
    _operator("no limit of a source", r"(add @(?:rated|counted)\d_\w+) \{[^}]*\} (?=goto)", ""),
    _operator("twice a source's limit", r"(saddr (?:limit rate|ct count) )(\d+)()", _longer),
    _operator("by destination", r"(add @\w+ \{ ip6?) saddr", r"\1 daddr"),
    _operator("by prefix", r"(add @\w+ \{ ip) saddr", r"\1 saddr and 255.255.255.0"),
    _operator("beyond a source's limit", r"(saddr (?:limit rate|ct count) )(\d+)", r"\1over \2"),
    _operator("no room for a source", r"\b(size )(\d+)$", lambda match: f"{match[1]}{int(match[2]) // 4 or 1}"),
    _operator("an hour more", r'(meta hour "\d\d:\d\d:\d\d"-")(\d\d)', lambda m: f"{m[1]}{(int(m[2]) + 1) % 24:02}"),
    _operator("a day less", r'"Monday", ', ""),
    _operator("no hours", r'meta (day|hour) (\{[^}]*\}|"[^"]*"-"[^"]*") ', ""),
)


def mutants(text: str) -> Iterator[Mutant]:
    """Yield every mutant of a ruleset, by operator, then from top to bottom."""
    for operator in OPERATORS:
        yield from operator.mutants(text)
