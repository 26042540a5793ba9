"""Alerts from EVE files (docs.suricata.io, "EVE JSON Output"), ends of engines and relays, and drops of the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netpolicy.inputs import parse_document

MAX_LINE = 1 << 20
"""Bytes; an event is some kilobytes."""
EVE = "eve*.json"
ENDS = ("daemons.jsonl", "[0-9][0-9][0-9][0-9][0-9][0-9].jsonl")
"""What a lab tells of its engines and relays, and the segments of an appliance's journal, or of a copy of it."""
_ENDS = frozenset({"ended", "given-up", "not-back"})

_PREFIX = re.compile(r"netpolicy fw=(?P<firewall>\S+) deny=(?P<reason>\S+) (?P<fields>.*)")
_FIELD = re.compile(r"(?P<name>[A-Z]+)=(?P<value>\S*)")

Packet = tuple[str, str, str, int, int]
"""Transport, source, destination, ports (0 where there are none): what joins an alert and a drop."""


class AlertsError(Exception):
    """A file cannot be read as what it should be; says where."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One alert."""

    time: str
    firewall: str
    signature: str
    sid: int
    flow: str
    """Empty where it is about none."""
    technique: str
    blocked: bool
    packet: Packet
    message: str


@dataclass(frozen=True, slots=True)
class Drop:
    """One line of the kernel's log about a packet that a ruleset has dropped."""

    firewall: str
    reason: str
    packet: Packet


def sources(place: Path) -> list[Path]:
    """Return the files with events below a directory, or the file itself.

    Raises:
        AlertsError: There is none.

    """
    if place.is_file():
        return [place]
    found = {path for name in (EVE, *ENDS) for path in place.rglob(name) if path.is_file()} if place.is_dir() else set()
    if not found:
        raise AlertsError(
            f"{place}: there is no {EVE} here, nor {' nor '.join(ENDS)}; expected such a file, or a directory that "
            "holds some"
        )
    return sorted(found)


def read_alerts(path: Path) -> Iterator[Seen]:
    """Yield the alerts of a file; other events are passed over, and so is a last line that is not whole.

    In one whose name says that it tells of engines and relays (:data:`ENDS`), these are their ends.

    Raises:
        AlertsError: A line is not an event.
        OSError: The file cannot be read.

    """
    ends = any(path.match(name) for name in ENDS)
    with path.open("rb") as stream:
        for number, line in enumerate(iter(lambda: stream.readline(MAX_LINE), b""), 1):
            if not line.endswith(b"\n"):
                if len(line) >= MAX_LINE:
                    raise AlertsError(f"{path}:{number}: the line is longer than {MAX_LINE} bytes")
                return
            try:
                event = parse_document(line)
                if ends and event["event"] in _ENDS:
                    yield _end(event)
                elif not ends and event["event_type"] == "alert":
                    yield _seen(event)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                what = "a record" if ends else "an event of Suricata"
                raise AlertsError(f"{path}:{number}: this is not {what}: {error!r}") from error


def read_drops(path: Path) -> Iterator[Drop]:
    """Yield the drops of a kernel log (``dmesg``, ``journalctl -k``); lines of others are passed over.

    Raises:
        OSError: The file cannot be read.

    """
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in iter(lambda: stream.readline(MAX_LINE), ""):
            found = _PREFIX.search(line)
            if found is None:
                continue
            fields = {field["name"]: field["value"] for field in _FIELD.finditer(found["fields"])}
            if {"SRC", "DST", "PROTO"} <= fields.keys():
                yield Drop(found["firewall"], found["reason"], _packet(fields))


def _end(event: dict[str, Any]) -> Seen:
    fields = event["fields"]
    return Seen(
        time=event["time"],
        firewall=str(fields["firewall"]),
        signature=f"{event['event']} {fields['daemon']}",
        sid=0,
        flow="",
        technique="",
        blocked=False,
        packet=("", "", "", 0, 0),
        message=str(fields["why"]),
    )


def _seen(event: dict[str, Any]) -> Seen:
    alert = event["alert"]
    facts = alert.get("metadata", {})
    return Seen(
        time=event["timestamp"],
        firewall=facts.get("firewall", [event.get("host", "")])[0],
        signature=facts.get("signature", [""])[0],
        sid=alert["signature_id"],
        flow=facts.get("flow", [""])[0],
        technique=facts.get("mitre_technique_id", [""])[0],
        blocked=alert["action"] == "blocked",
        packet=(
            event.get("proto", "").upper(),
            _canonical(event.get("src_ip", "")),
            _canonical(event.get("dest_ip", "")),
            int(event.get("src_port", 0)),
            int(event.get("dest_port", 0)),
        ),
        message=alert["signature"],
    )


def _packet(fields: dict[str, str]) -> Packet:
    return (
        fields["PROTO"].upper(),
        _canonical(fields["SRC"]),
        _canonical(fields["DST"]),
        int(fields.get("SPT", "0") or 0),
        int(fields.get("DPT", "0") or 0),
    )


def _canonical(address: str) -> str:
    """Return one form for an address: the kernel writes IPv6 in full."""
    return str(ip_address(address)) if address else ""
