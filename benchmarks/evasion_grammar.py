"""Random edits of rulesets, from what nft 1.0.6 takes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

_FAMILIES = ("inet", "ip", "ip6", "netdev", "arp", "bridge")
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_PRIORITIES = ("-500", "-450", "-401", "-400", "-300", "-200", "-150", "-100", "-1", "0", "1", "10", "100", "300")
_MATCHES = (
    *("meta l4proto tcp", "meta l4proto { 0-255 }", "meta nfproto ipv4", "meta nfproto ipv6", "meta length 0-65535"),
    *("tcp dport 80", "tcp dport 0-65535", "th dport { 80, 443, 25 }", "udp dport 53", "tcp flags syn", "tcp sport 25"),
    *("tcp flags & (fin|syn|rst|ack) == syn", "tcp option maxseg size 1-65535", "tcp option fastopen exists"),
    *("ip saddr 10.0.0.0/8", "ip daddr 0.0.0.0/0", "ip6 daddr ::/0", "ip protocol tcp", "ip ttl > 1", "ip dscp cs0"),
    *("ip saddr . tcp dport { 10.0.0.0/8 . 80 }", "ip version 4", "ip frag-off & 0x1fff == 0", "exthdr frag exists"),
    *("ct state new", "ct state established,related", "ct state untracked", "ct status assured", "ct mark 0"),
    *("ct direction original", "ct expiration > 0s", 'ct helper "ftp"', "ct bytes > 0", "ct original saddr 0.0.0.0/0"),
    *("meta mark 0", "meta mark 0x4e000000", "meta mark & 1 == 0", "meta skuid 0", "meta cgroup 0", "meta priority 0"),
    *("meta random < 2147483648", "meta cpu 0-7", "meta pkttype host", "meta iiftype ether", "meta time > 0"),
    *('meta day "Monday"-"Sunday"', 'meta hour "00:00"-"23:59"', "meta secpath missing", "meta rtclassid 0"),
    *("@th,16,16 80", "@nh,0,8 0x45", "@ll,96,16 0x0800", "@th,0,32 & 0xffff == 80", "@nh,72,8 6"),
    *("fib saddr type unicast", "fib daddr . iif type local", "fib saddr oif exists", "socket transparent 1"),
    *(
        "socket mark 0",
        "rt nexthop 0.0.0.0",
        'osf name "Linux"',
        "jhash ip saddr mod 2 seed 1 == 0",
        "numgen inc mod 2 0",
    ),
    *(
        "ether type ip",
        "ether saddr 00:00:00:00:00:00/0",
        "vlan id 0-4095",
        "icmp type echo-request",
        "icmp code 0-255",
    ),
    *("limit rate 1000000/second", "limit rate over 1/day", "ct count 1000", "ct count over 1", "quota 1000000 mbytes"),
    *("quota over 1 bytes", "add @every { ip saddr }", "update @dyn { ip saddr timeout 1m }", "ip saddr @every"),
    *("ip saddr != @every", "meta l4proto @protocols", 'iifname "*"', "iifname INTERFACE", "oifname != INTERFACE"),
    *(
        "iif lo",
        "iifname . meta l4proto { INTERFACE . tcp }",
        "sctp chunk data exists",
        "dccp type request",
        "ah spi 1",
    ),
)
_STATEMENTS = (
    *("counter", "log", 'log prefix "flow"', "notrack", "meta mark set 0x4e000000", "meta mark set 0x4e000001"),
    *("ct mark set 1", "ct zone set 1", "ct label set 1", "meta nftrace set 1", "meta priority set 1", "ip ttl set 64"),
    *("meta pkttype set host", "tcp dport set 17000", "ip daddr set 10.13.210.10", "ip saddr set 10.13.1.74"),
    *("ip dscp set cs1", "ct event set new", "tcp option maxseg size set 1400", "reset tcp option maxseg"),
    *("@th,16,16 set 17000", "@nh,128,32 set 0x0a0dd20a", 'counter name "more"', 'quota name "enough"'),
    *('limit name "often"', 'ct helper set "files"', 'ct timeout set "long"', 'ct expectation set "next"'),
    *("synproxy mss 1460 wscale 7", "dup to 10.0.0.1", "dup to 10.0.0.1 device INTERFACE", "fwd to INTERFACE"),
    *(
        "flow add @fast",
        'secmark name "s"',
        "add @dyn { ip saddr }",
        "delete @dyn { ip saddr }",
        "set add ip saddr @dyn",
    ),
    *("add @dyn { ip saddr limit rate over 1/second }", "meter m { ip saddr limit rate over 9/second }"),
)
_VERDICTS = (
    *("accept", "accept", "accept", "drop", "return", "continue", "queue num 0", "queue num 0 bypass", "reject"),
    *(
        "goto CHAIN",
        "jump CHAIN",
        "jump CHAIN",
        "masquerade",
        "redirect to :80",
        "dnat to 10.13.210.10",
        "snat to 10.0.0.1",
    ),
    *("dnat ip to 10.13.210.10:17000", "tproxy to :61001", "tproxy ip to 127.0.0.1:61001", "jump { accept; }"),
    *(
        "goto { ct state new accept; }",
        "ct state vmap { new : accept, established : jump CHAIN }",
        "tcp dport vmap @ports",
    ),
    *("meta l4proto vmap { tcp : accept }", "ip saddr vmap { 0.0.0.0/0 : accept }", "reject with tcp reset"),
    *("ip daddr . tcp dport vmap { 0.0.0.0/0 . 0-65535 : accept }", ""),
)
_SETS = (
    "set every { type ipv4_addr; flags interval; elements = { 0.0.0.0/0 } }",
    "set every { type ipv4_addr; flags interval, timeout; timeout 1s; elements = { 0.0.0.0/0 timeout 5s } }",
    "set every { type ipv4_addr; flags interval; limit rate over 1000000/second; elements = { 0.0.0.0/0 } }",
    "set every { type ipv4_addr; quota over 1 mbytes; flags interval; elements = { 0.0.0.0/0 } }",
    "set every { type ipv4_addr; ct count over 1000; flags interval; elements = { 0.0.0.0/0 } }",
    "set every { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 10.1.0.0/16 } }",
    "set every { typeof ip saddr; flags constant; size 9; policy memory; gc-interval 1s; elements = { 10.13.1.74 } }",
    "set dyn { type ipv4_addr; flags dynamic, timeout; timeout 1m; size 65535; }",
    "set protocols { type inet_proto; flags interval; limit rate over 1000000/second; elements = { 0-255 } }",
    "map ports { type inet_service : verdict; flags interval; elements = { 0-65535 : accept } }",
    "map ports { type inet_service : verdict; elements = { 80 timeout 1m : accept, 443 limit rate 9/day : accept } }",
    "counter more { packets 1 bytes 1 }",
    "quota enough { over 1 mbytes }",
    "limit often { rate 1000000/second }",
    'ct helper files { type "ftp" protocol tcp; }',
    "ct timeout long { protocol tcp; l3proto ip; policy = { established : 9999 } }",
    "ct expectation next { protocol tcp; dport 80; timeout 1m; size 9; l3proto ip; }",
    "synproxy far { mss 1460; wscale 7; timestamp; sack-perm; }",
    'secmark s { "system_u:object_r:x_t:s0" }',
    "flowtable fast { hook ingress priority 0; devices = { INTERFACE }; }",
)
_COMMANDS = (
    *("flush ruleset", "flush table inet netpolicy", "delete table inet netpolicy", "flush chain inet netpolicy CHAIN"),
    *(
        "add rule inet netpolicy CHAIN RULE",
        "insert rule inet netpolicy CHAIN RULE",
        "delete chain inet netpolicy CHAIN",
    ),
    *(
        "insert rule inet netpolicy CHAIN index 1 RULE",
        "flush set inet netpolicy SET",
        "rename chain inet netpolicy CHAIN x",
    ),
    *(
        "add table inet netpolicy { flags dormant; }",
        "add table inet netpolicy_guard { flags dormant; }",
        "reset counters",
    ),
    *(
        "add chain inet netpolicy CHAIN { policy accept; }",
        "add element inet netpolicy SET { 0.0.0.0/0 }",
        "list ruleset",
    ),
    *("define x = accept", "define x = { 0-65535 }\nadd rule inet netpolicy CHAIN tcp dport $x accept", "undefine x"),
    *('include "/dev/null"', 'include "/etc/hostname"', 'include "./*.nft"', "delete table inet netpolicy_guard"),
    *(
        "destroy table inet netpolicy",
        "replace rule inet netpolicy CHAIN handle 4 accept",
        "flush table inet netpolicy_guard",
    ),
)
_OF_SETS = (
    *("flags interval", "flags timeout", "flags dynamic", "flags constant", "timeout 1s", "auto-merge", "size 1"),
    *("limit rate 1/second", "limit rate over 1/second", "quota 1 bytes", "ct count over 1", "counter"),
)
_COMMENTS = ("shortcut", "flow-1", "\\", "a\tb", "ip saddr 10.0.0.1 accept", "x # y", "} chain c {", "a" * 128, "é")


@dataclass(frozen=True, slots=True)
class Edit:
    """One edit, or a few at once."""

    texts: Mapping[str, str]
    """Of all rulesets, by name."""
    what: str
    """In words."""


@dataclass(slots=True)
class _Writer:
    """Writes text that nft may take."""

    chance: random.Random
    interfaces: Sequence[str]
    chains: Sequence[str]
    sets: Sequence[str]

    def rule(self) -> str:
        words = self.chance.sample(_MATCHES, self.chance.choice((0, 0, 1, 1, 1, 2, 3)))
        words += self.chance.sample(_STATEMENTS, self.chance.choice((0, 0, 1, 1, 2)))
        if self.chance.random() < 0.3:
            self.chance.shuffle(words)
        words.append(self.chance.choice(_VERDICTS))
        if self.chance.random() < 0.2:
            words.append(f'comment "{self.chance.choice(_COMMENTS)}"')
        return self.filled(" ".join(words))

    def filled(self, text: str) -> str:
        for name, values in (
            ("INTERFACE", [f'"{each}"' for each in self.interfaces]),
            ("CHAIN", self.chains),
            ("SET", self.sets),
        ):
            while name in text and values:
                text = text.replace(name, self.chance.choice(list(values)), 1)
        return text.replace("RULE", self.rule()) if "RULE" in text else text

    def table(self) -> str:
        family = self.chance.choice(_FAMILIES)
        hook = self.chance.choice((*_HOOKS, "ingress", "egress"))
        device = f' device "{self.chance.choice(self.interfaces)}"' if hook in {"ingress", "egress"} else ""
        kind = self.chance.choice(("filter", "filter", "filter", "nat", "route"))
        policy = self.chance.choice(("accept", "accept", "drop"))
        flags = self.chance.choice(("", "", "flags dormant;", f'comment "{self.chance.choice(_COMMENTS)}";'))
        own = "".join(f"\n{self.filled(each)}" for each in self.chance.sample(_SETS, self.chance.choice((0, 0, 1, 2))))
        rules = "\n".join(
            _Writer(self.chance, self.interfaces, ["c"], []).rule() for _ in range(self.chance.choice((1, 2, 3)))
        )
        name = self.chance.choice(("other", "netpolicy", "netpolicy_guard", "filter"))
        priority = self.chance.choice(_PRIORITIES)
        return (
            f"table {family} {name} {{\n{flags}{own}\nchain c {{ }}\n"
            f"chain b {{ type {kind} hook {hook}{device} priority {priority}; policy {policy};\n{rules}\n}}\n}}\n"
        )


Kind = Callable[[list[str], _Writer], str]


def _rule_inserted(lines: list[str], writer: _Writer) -> str:
    places = [at for at, line in enumerate(lines) if re.match(r"\t\t(?!type|flags|elements|counter$|\}|\t)\S", line)]
    at = writer.chance.choice(places)
    rule = writer.rule()
    lines.insert(at, f"\t\t{rule}")
    return f"line {at + 1}: {rule}"


def _rule_grown(lines: list[str], writer: _Writer) -> str:
    places = [at for at, line in enumerate(lines) if re.match(r"\t\t(?!type|flags|elements|counter$|\}|\t|#)\S", line)]
    at = writer.chance.choice(places)
    words = lines[at].split()
    words.insert(
        writer.chance.randrange(len(words) + 1), writer.filled(writer.chance.choice((*_MATCHES, *_STATEMENTS)))
    )
    lines[at] = "\t\t" + " ".join(words)
    return f"line {at + 1}: {lines[at].strip()}"


def _set_and_rules(lines: list[str], writer: _Writer) -> str:
    begins = [at for at, line in enumerate(lines) if re.match(r"table \S+ \S+ \{", line)]
    declared = writer.filled(writer.chance.choice(_SETS))
    said = _rule_inserted(lines, writer)
    lines.insert(writer.chance.choice(begins) + 1, f"\t{declared}")
    return f"{declared}; {said}"


def _set_changed(lines: list[str], writer: _Writer) -> str:
    places = [at for at, line in enumerate(lines) if re.match(r"\t(?:set|map) \S+ \{", line)]
    if not places:
        return _rule_inserted(lines, writer)
    at = writer.chance.choice(places)
    more = writer.chance.choice(_OF_SETS)
    lines.insert(at + 2, f"\t\t{more}")
    return f"line {at + 1}: {more}"


def _element_changed(lines: list[str], writer: _Writer) -> str:
    places = [at for at, line in enumerate(lines) if re.match(r"\t\t\t\S", line)]
    if not places:
        return _rule_inserted(lines, writer)
    at = writer.chance.choice(places)
    key, colon, verdict = lines[at].rstrip(",").partition(" : ")
    more = writer.chance.choice(
        (
            "timeout 1m",
            "timeout 1s expires 1s",
            "limit rate over 1/second",
            "quota over 1 bytes",
            "counter",
            'comment "x"',
        )
    )
    if colon and writer.chance.random() < 0.5:
        verdict = writer.filled(
            writer.chance.choice(("accept", "drop", "return", "continue", "jump CHAIN", "goto CHAIN"))
        )
    else:
        key = f"{key} {more}"
    lines[at] = f"{key}{colon}{verdict},"
    return f"line {at + 1}: {lines[at].strip()}"


def _header_changed(lines: list[str], writer: _Writer) -> str:
    places = [at for at, line in enumerate(lines) if "hook " in line]
    at = writer.chance.choice(places)
    for pattern, values in (
        (r"priority [^;]+", [f"priority {each}" for each in _PRIORITIES]),
        (r"policy \w+", ["policy accept", "policy drop"]),
        (r"hook \w+", [f"hook {each}" for each in _HOOKS]),
        (r"type filter", ["type filter", "type nat", "type route"]),
    ):
        if writer.chance.random() < 0.4:
            lines[at] = re.sub(pattern, writer.chance.choice(values), lines[at])
    return f"line {at + 1}: {lines[at].strip()}"


def _flag(lines: list[str], writer: _Writer) -> str:
    begins = [at for at, line in enumerate(lines) if re.match(r"table \S+ \S+ \{", line)]
    at = writer.chance.choice(begins)
    more = writer.chance.choice(
        ("flags dormant", f'comment "{writer.chance.choice(_COMMENTS)}"', "flags owner", "flags persist")
    )
    lines.insert(at + 1, f"\t{more}")
    return f"line {at + 2}: {more}"


def _table_added(lines: list[str], writer: _Writer) -> str:
    table = writer.table()
    lines.insert(writer.chance.choice((3, len(lines))), table)
    return " ".join(table.split())


def _command(lines: list[str], writer: _Writer) -> str:
    command = writer.filled(writer.chance.choice(_COMMANDS))
    lines.insert(writer.chance.choice((3, len(lines), len(lines))), command)
    return command


def _line_moved(lines: list[str], writer: _Writer) -> str:
    at, to = writer.chance.randrange(len(lines)), writer.chance.randrange(len(lines))
    kind = writer.chance.choice(("deleted", "doubled", "moved"))
    line = lines[at]
    if kind != "doubled":
        del lines[at]
    if kind != "deleted":
        lines.insert(min(to, len(lines)), line)
    return f"line {at + 1} {kind}: {line.strip()}"


_KINDS: Sequence[tuple[Kind, int]] = (
    (_rule_inserted, 8),
    (_rule_grown, 4),
    (_set_and_rules, 4),
    (_set_changed, 2),
    (_element_changed, 3),
    (_header_changed, 2),
    (_flag, 1),
    (_table_added, 4),
    (_command, 3),
    (_line_moved, 4),
)


def edited(texts: Mapping[str, str], chance: random.Random, interfaces: Sequence[str]) -> Edit:
    """Return rulesets after one to three edits of one of them, the larger one mostly."""
    name = chance.choice(("guard.nft", *["nftables.nft"] * 4))
    lines = texts[name].split("\n")
    chains = re.findall(r"^\tchain (\S+)", texts[name], re.MULTILINE)
    sets = re.findall(r"^\t(?:set|map) (\S+)", texts[name], re.MULTILINE)
    writer = _Writer(chance, interfaces, chains, sets or ["x"])
    kinds, weights = zip(*_KINDS, strict=True)
    said = [kind(lines, writer) for kind in chance.choices(kinds, weights, k=chance.choice((1, 1, 1, 1, 2)))]
    return Edit({**texts, name: "\n".join(lines)}, f"{name}: {'; '.join(said)}")
