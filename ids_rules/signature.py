"""One signature, and how it is written."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ids_rules.version import Suricata


class Action(enum.StrEnum):
    """What the engine does with what a signature matches."""

    ALERT = "alert"
    """Say so and hand it on: the kernel's rules judge it by themselves, and log it."""
    DROP = "drop"
    """Say so and drop it: nothing behind the engine could tell."""


class Classtype(enum.StrEnum):
    """Suricata's stock classification types that occur here."""

    ATTEMPTED_RECON = "attempted-recon"
    NETWORK_SCAN = "network-scan"
    BAD_UNKNOWN = "bad-unknown"
    NON_STANDARD_PROTOCOL = "non-standard-protocol"
    POLICY_VIOLATION = "policy-violation"
    PROTOCOL_COMMAND_DECODE = "protocol-command-decode"
    ATTEMPTED_USER = "attempted-user"
    ATTEMPTED_DOS = "attempted-dos"
    MISC_ATTACK = "misc-attack"


SILENT = "flowbits:noalert"
"""The keyword of a signature that says nothing, and only lets another one know."""
NUMBER = "{number}"
"""Where a rule's number and revision belong: before its metadata, as everywhere (OISF, Emerging Threats)."""
_ODD = re.compile(r"[^A-Za-z0-9./_-]+")
_SEVERITIES = {Action.DROP: "Major", Action.ALERT: "Minor"}


@dataclass(frozen=True, slots=True)
class Signature:
    """What a rule says, before it has a number."""

    id: str
    """The kind of signature; each kind has cases that must and must not raise it."""
    action: Action
    header: str
    """Protocol, addresses, ports and direction."""
    message: str
    match: tuple[str, ...]
    """Keywords with their values, in order, without the closing semicolons."""
    classtype: Classtype
    technique: str
    """Of MITRE ATT&CK, ``T1071`` or ``T1071.001``."""
    reference: str
    """Where the demand comes from: a URL without its scheme."""
    flow: str | None = None
    end: str | None = None
    """The node or firewall it is about, of those that the flow joins."""
    basis: str | None = None
    """The law that the flow rests on."""
    version: Suricata | None = None
    """The only one that takes it; None for all."""

    @property
    def silent(self) -> bool:
        """Whether it raises nothing: the case of the one that it lets know is its own as well."""
        return SILENT in self.match

    @property
    def key(self) -> str:
        """What identifies it among the signatures of one firewall."""
        only = () if self.version is None else (str(self.version.value),)
        return "/".join((self.id, self.flow or "-", self.end or "-", *only))

    def text(self, network: str, firewall: str) -> str:
        """Return the rule of one firewall without its dates and with NUMBER for its own, as hashed for its revision."""
        about = f" {self.flow}" if self.flow else ""
        options = [
            f'msg:"{network.upper()}{_plain(about)} {_plain(self.message)}"',
            *self.match,
            "target:dest_ip",
            f"reference:url,{self.reference}",
            f"classtype:{self.classtype}",
        ]
        facts = [
            ("attack_target", "Server"),
            ("deployment", "Internal"),
            ("signature_severity", _SEVERITIES[self.action]),
            ("firewall", firewall),
            ("signature", self.id),
        ]
        if self.flow:
            facts.append(("flow", self.flow))
        if self.end:
            facts.append(("end", self.end))
        if self.basis:
            facts.append(("basis", _plain(self.basis)))
        facts.append(("mitre_technique_id", self.technique))
        return f"{self.action} {self.header} ({'; '.join(options)}; {NUMBER}metadata:{', '.join(map(' '.join, facts))}"


def content(text: str) -> str:
    """Return `text` for the quotes of a ``content``, whatever it holds: what is not plain as its octets (UTF-8)."""
    return _ODD.sub(lambda found: f"|{found[0].encode().hex(' ')}|", text)


def _plain(text: str) -> str:
    """Return `text` without the characters that mean something in a rule, or to whoever prints an alert."""
    return "".join(each if each.isprintable() else "?" for each in re.sub(r'[";:\\,()|]+', " ", text)).rstrip()
