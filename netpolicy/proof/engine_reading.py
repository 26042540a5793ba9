"""What an inline engine must be told, by its own reading; and its signatures (theorem ``engines``).

What is demanded follows from four principles: what cannot be inspected is not passed on; every byte of a stream is
looked at, from its first SYN on; what is copied goes through this engine and nowhere else; and no signature, list or
threshold lets something pass that another one stops.  Settings that are not known here are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from ids_rules.vendor import ACTIONS, SEEN_NO_MORE, keywords

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Of configurations: libyaml, which reads for Suricata too; PyYAML's own is ten times slower."""
_CLOSED = frozenset({"drop-flow", "drop-packet"})
_YES, _NO = frozenset({"yes", "true", "on", "1"}), frozenset({"no", "false", "off", "0"})
_POLICY = re.compile(r"(^|\.|-)policy$")
_MUST: Mapping[str, frozenset[str]] = {
    "exception-policy": _CLOSED,
    "app-layer.error-policy": _CLOSED,
    "stream.midstream-policy": _CLOSED,
    "stream.memcap-policy": _CLOSED,
    "stream.reassembly.memcap-policy": _CLOSED,
    "flow.memcap-policy": _CLOSED,
    "defrag.memcap-policy": _CLOSED,
    "stream.midstream": _NO,
    "stream.inline": _YES,
    "stream.checksum-validation": _YES,
    "stream.drop-invalid": _YES,
    "stream.reassembly.depth": frozenset({"0"}),
    "stream.reassembly.urgent.policy": frozenset({"drop"}),
    "decoder.teredo.enabled": _NO,
    "decoder.vxlan.enabled": _NO,
    "decoder.geneve.enabled": _NO,
    "app-layer.protocols.tls.enabled": _YES,
    "app-layer.protocols.tls.encryption-handling": frozenset({"full"}),
    "default-rule-path": frozenset({"/etc/suricata"}),
    "classification-file": frozenset({"/etc/suricata/classification.config"}),
    "reference-config-file": frozenset({"/etc/suricata/reference.config"}),
    "threshold-file": frozenset({"/etc/suricata/threshold.config"}),
    "rule-files.0": frozenset({"netpolicy.rules"}),
    "runmode": frozenset({"workers"}),
}
"""Settings, and what each may be. A policy that is not named here is held to the same as these."""
_ABSENT = re.compile(
    r"(^|\.|-)(bypass|async-oneside|multi-detect|tenant[a-z-]*|action-order|include|xdp-[a-z-]+)(\.|$)"
)
"""What takes connections away from the engine, or has others decide for it."""
_KNOWN = frozenset(
    {
        *(
            "suricata-version",
            "sensor-name",
            "vars",
            "app-layer",
            "default-rule-path",
            "rule-files",
            "classification-file",
        ),
        *("reference-config-file", "threshold-file", "default-log-dir", "exception-policy", "stream", "flow", "defrag"),
        *(
            "host",
            "decoder",
            "vlan",
            "runmode",
            "max-pending-packets",
            "detect",
            "mpm-algo",
            "spm-algo",
            "unix-command",
        ),
        *("pcre", "logging", "stats", "outputs", "asn1-max-frames", "default-packet-size", "af-packet"),
    }
)
"""First parts of settings; what is below those of them that :data:`_MUST` does not name passes nothing."""
_STREAM = frozenset(
    {
        "",  # itself
        *("midstream", "midstream-policy", "inline", "checksum-validation", "drop-invalid", "memcap", "memcap-policy"),
        *("prealloc-sessions", "reassembly", "max-syn-queued", "max-synack-queued"),
    }
)
_REASSEMBLY = frozenset(
    {
        *("", "memcap", "memcap-policy", "depth", "urgent", "urgent.policy", "toserver-chunk-size"),
        *("toclient-chunk-size", "randomize-chunk-size", "segment-prealloc"),
    }
)
"""Below ``stream.reassembly``: not ``raw``, without which no signature sees bytes of a stream."""
_WIRE = frozenset(
    {
        *("interface", "copy-iface", "copy-mode", "threads", "cluster-id", "cluster-type", "defrag", "use-mmap"),
        *("ring-size", "buffer-size", "bpf-filter", "tpacket-v3", "mmap-locked", "block-size", "block-timeout"),
    }
)
"""Of each side of an engine. What its `bpf-filter` leaves out is not copied, and so dropped."""
_PARSER = re.compile(r"app-layer\.protocols\.[a-z0-9-]+\.enabled")
_NOT_LOOKED_FOR = {"app-layer.protocols.quic.enabled"}
"""Its parser drops without a word."""
_INNER = "inner"
_SIDES = 2
_THRESHOLD = re.compile(r"threshold gen_id 1, sig_id (\d+), type limit, track \w+, count \d+, seconds \d+")


@dataclass(frozen=True, slots=True)
class Signatures:
    """Of one firewall."""

    count: int
    dropping: frozenset[int]
    """Numbers of those that drop."""
    wrong: tuple[str, ...]


def plain(text: str) -> Iterator[str]:
    """Yield why a configuration could be read in two ways: by this, and by the engine, which prints it line by line.

    Raises:
        yaml.YAMLError: It is not YAML.

    """
    for event in yaml.parse(text, Loader=LOADER):
        place = f"line {event.start_mark.line + 1}" if event.start_mark else "somewhere"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            yield f"{place}: an anchor or alias is not judged"
        if isinstance(event, yaml.ScalarEvent) and not event.value.isprintable():
            yield f"{place}: a value has a character that is not printable"


def settings(read: Mapping[str, str], interface: str) -> Iterator[str]:
    """Yield what an engine's settings are not and must be, or are and must not be.

    Args:
        read: By dotted name, as the engine itself reads them.
        interface: That it stands at.

    """
    for name, may in _MUST.items():
        if read.get(name) not in may:
            yield f"{name} is {read.get(name, 'not set')}, not {' or '.join(sorted(may))}"
    for name, value in read.items():
        first, _, rest = name.partition(".")
        part, _, below = rest.partition(".")
        strange = first == "stream" and (part not in _STREAM or (part == "reassembly" and below not in _REASSEMBLY))
        if first not in _KNOWN or _ABSENT.search(name) or strange:
            yield f"{name} = {value} is not judged"
        elif _POLICY.search(name) and name not in _MUST and value not in _CLOSED:
            yield f"{name} is {value}, not {' or '.join(sorted(_CLOSED))}"
        elif first == "rule-files" and rest and (rest, value) not in {("0", "netpolicy.rules"), ("1", "vendor.rules")}:
            yield f"{name} = {value}: rules from elsewhere are not judged"
        elif _PARSER.fullmatch(name) and value not in _YES and name not in _NOT_LOOKED_FOR:
            yield f"{name} is {value}: what it does not look for it does not find"
    yield from _wires(read, interface)


def _wires(read: Mapping[str, str], interface: str) -> Iterator[str]:
    ends: dict[str, dict[str, str]] = {}
    for name, value in read.items():
        if name.startswith("af-packet."):
            number, _, key = name.removeprefix("af-packet.").partition(".")
            ends.setdefault(number, {})
            if key:
                ends[number][key] = value
    pairs = sorted((end.get("interface", ""), end.get("copy-iface", "")) for end in ends.values())
    if pairs != sorted([(interface, _INNER), (_INNER, interface)]) or len(ends) != _SIDES:
        yield f"it copies {pairs}, not between {interface} and {_INNER} alone"
    for end in ends.values():
        where = end.get("interface", "?")
        if end.get("copy-mode") != "ips":
            yield f"copy-mode at {where} is {end.get('copy-mode', 'not set')}, not ips"
        if end.get("defrag") not in _NO:
            yield f"defrag at {where} is {end.get('defrag', 'not set')}, not no: fragments are for the engine to join"
        for key in sorted(set(end) - _WIRE):
            yield f"{key} = {end[key]} at {where} is not judged"


def signatures(directory: Path) -> Signatures:
    """Return what the rule files of an engine's directory are.

    Raises:
        OSError: A file cannot be read.

    """
    from suricata.update import rule as suricata_rule  # noqa: PLC0415 - stands on packages that few commands need

    wrong: list[str] = []
    count, dropping, seen = 0, set[int](), set[tuple[int, int]]()
    for path in sorted(directory.glob("*.rules")):
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
            if not line or line.startswith("#"):
                continue
            place = f"{path.name}, line {number}"
            try:
                parsed = suricata_rule.parse(line)
            except Exception as error:  # noqa: BLE001 - its own kinds, and what int() and slices raise
                parsed = None
                wrong.append(f"{place}: it cannot be parsed: {error}")
            if parsed is None or not parsed.enabled:
                wrong.append(f"{place}: it is no signature")
                continue
            count += 1
            wrong.extend(f"{place}: {each}" for each in _signature(parsed, line, seen))
            if parsed.action == "drop":
                dropping.add(parsed.sid)
    wrong.extend(_thresholds(directory / "threshold.config", dropping))
    return Signatures(count, frozenset(dropping), tuple(wrong))


def _signature(parsed: Mapping[str, object], line: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    if parsed["action"] not in ACTIONS:
        yield f"action '{parsed['action']}' is not {' or '.join(ACTIONS)}"
    for keyword in sorted(keywords(line) & set(SEEN_NO_MORE)):
        yield f"'{keyword}' takes connections away from the engine"
    number = (int(str(parsed["gid"])), int(str(parsed["sid"])))
    if number in seen:
        yield f"number {number[1]} occurs twice"
    seen.add(number)


def _thresholds(path: Path, dropping: Iterable[int]) -> Iterator[str]:
    """Yield lines that do more than limit how often an alert is told."""
    known = frozenset(dropping)
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        limit = _THRESHOLD.fullmatch(line)
        if limit is None:
            yield f"{path.name}, line {number}: '{line}' is not judged"
        elif int(limit[1]) in known:
            yield f"{path.name}, line {number}: signature {limit[1]} drops, and is told whenever it does"
