"""Whole topologies at random: what may stand in the language, put together in ways that nobody has thought of."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

_ZONES = ("Asia/Tokyo", "Etc/UTC", "America/Bogota", "Asia/Kathmandu")
_HOURS = (
    *("Mon-Fri 08:30-17:15", "Sat,Sun 22:00-05:00", "Mon-Sun 00:00-24:00", "Sun 23:59-00:01"),
    *("Wed 00:00-24:00", "Mon-Sun 00:00-12:00", "Mon-Sun 12:00-24:00", "Fri-Mon 09:00-08:59"),
)
_PORTS: tuple[Any, ...] = (17000, [17001, 17005], "17010-17019", ["1024-1030", 61001], "61001-65535", 65535, 1)
_UNTIL = ("2026-11-01", "2027-03-31", "2099-12-31", "2105-12-31")
_FAMILIES = ((4,), (6,), (4, 6))
_MTU = (1500, 1400, 1280)


@dataclass
class _Drawn:
    """A topology that grows."""

    families: tuple[int, ...]
    segments: dict[str, Any] = field(default_factory=dict)
    nodes: dict[str, Any] = field(default_factory=dict)
    firewalls: dict[str, Any] = field(default_factory=dict)
    _hosts: dict[str, int] = field(default_factory=dict)

    def segment(self, name: str, families: tuple[int, ...], mtu: int, **more: str) -> None:
        """Add a segment with prefixes of its own."""
        number = len(self.segments) + 1
        prefixes = {4: f"10.{number}.0.0/24", 6: f"fd00:{number}::/64"}
        held = {"title": name, "prefixes": [prefixes[family] for family in families], **more}
        self.segments[name] = held if mtu == max(_MTU) else {**held, "mtu": mtu}
        self._hosts[name] = 0

    def addresses(self, segment: str) -> list[str]:
        """Return the next addresses of a segment."""
        number = list(self.segments).index(segment) + 1
        self._hosts[segment] += 1
        host = self._hosts[segment]
        own = {"10.": f"10.{number}.0.{host}", "fd0": f"fd00:{number}::{host:x}"}
        return [own[prefix[:3]] for prefix in self.segments[segment]["prefixes"]]

    def node(self, segment: str, role: str, families: tuple[int, ...]) -> None:
        """Add a node; of its segment's families it has those that are asked for, if any are."""
        here = self.addresses(segment)
        wanted = [each for each in here if (6 if ":" in each else 4) in families]
        name = f"node{len(self.nodes)}"
        self.nodes[name] = {"title": name, "role": role, "segment": segment, "addresses": wanted or here}

    def firewall(self, site: str, joined: list[str], cost: int) -> None:
        """Add a firewall that joins segments."""
        name = f"fw{len(self.firewalls)}"
        interfaces = {f"if{n}": {"segment": s, "addresses": self.addresses(s)} for n, s in enumerate(joined)}
        self.firewalls[name] = {
            "title": name,
            "site": site,
            "managed_by": "agency",
            "cost": cost,
            "interfaces": interfaces,
        }


@st.composite
def topologies(draw: st.DrawFn) -> str:
    """Return the text of a topology: JSON, and so YAML. Most are valid; of the others `check` must say why not."""
    families = draw(st.sampled_from(_FAMILIES))
    tiers = [f"tier{number}" for number in range(draw(st.integers(1, 3)))]
    sites: dict[str, Any] = {"top": {"title": "Top", "tier": tiers[-1]}}
    drawn = _Drawn(families)
    drawn.segment("hall", families, 1500, tier=tiers[-1], site="top")
    joined = ["hall"]
    for number in range(draw(st.integers(1, 3))):
        tier = draw(st.sampled_from(tiers))
        sites[f"site{number}"] = {"title": f"Site {number}", "tier": tier, "parent": "top"}
        if draw(st.sampled_from((False, False, False, True))):
            sites[f"site{number}"]["connected"] = False
        _branch(draw, drawn, f"site{number}", tier, joined)
    drawn.firewall("top", joined, 10)
    for spare in draw(st.lists(st.sampled_from(list(drawn.firewalls)), max_size=1)):
        held = drawn.firewalls[spare]
        segments = [each["segment"] for each in held["interfaces"].values()]
        drawn.firewall(held["site"], segments, draw(st.sampled_from((11, 50))))
    if draw(st.booleans()):
        drawn.segment("outside", families, 1500, kind="external")
        drawn.firewall("top", ["hall", "outside"], 10)
    roles = {f"role-{tier}": {"title": tier, "tier": tier} for tier in tiers}
    for segment, held in list(drawn.segments.items()):
        if "tier" in held:
            for _ in range(draw(st.integers(1, 2))):
                drawn.node(segment, f"role-{held['tier']}", draw(st.sampled_from(_FAMILIES)))
    services = {
        f"app{number}": {"title": "App", "ports": ports, "alpn": f"app{number}/1"}
        for number, ports in enumerate(draw(st.lists(st.sampled_from(_PORTS), min_size=1, max_size=3, unique_by=str)))
    }
    flows = {f"flow{number}": draw(_flow(list(roles), list(services))) for number in range(draw(st.integers(0, 3)))}
    network = {"id": "drawn", "title": "Drawn", "as_of": "2026-11-01", "timezone": draw(st.sampled_from(_ZONES))}
    topology = {
        "network": network,
        "tiers": {tier: {"title": tier} for tier in tiers},
        "sites": sites,
        "roles": roles,
        "managers": {"agency": {"title": "Agency", "segment": "hall"}},
        "segments": drawn.segments,
        "nodes": drawn.nodes,
        "firewalls": drawn.firewalls,
        "services": services,
        "flows": flows,
    }
    text = json.dumps({section: held for section, held in topology.items() if held}, indent=1)
    return _without_quotes(text)


def _branch(draw: st.DrawFn, drawn: _Drawn, site: str, tier: str, joined: list[str]) -> None:
    """Add a site's segment, its firewall and the line up; the line may be one that another site has too."""
    lan, line = f"{site}-lan", f"{site}-line"
    drawn.segment(lan, drawn.families, draw(st.sampled_from(_MTU)), tier=tier, site=site)
    lines = [name for name in joined if name != "hall"]
    if not lines or draw(st.booleans()):
        drawn.segment(line, drawn.families, draw(st.sampled_from(_MTU)), kind="dedicated_line")
        joined.append(line)
    else:
        line = draw(st.sampled_from(lines))
    drawn.firewall(site, [lan, line], 10)


@st.composite
def _flow(draw: st.DrawFn, roles: list[str], services: list[str]) -> dict[str, Any]:
    relation = draw(st.sampled_from((None, None, None, "parent", "child", "same", "other")))
    to: dict[str, Any] = {"role": draw(st.sampled_from(roles))}
    if relation is not None:
        to["site"] = relation
    if draw(st.sampled_from((False, False, False, True))):
        to = {"managed_by": "agency"}
    limits: dict[str, Any] = {}
    if draw(st.booleans()):
        limits["rate"] = draw(st.sampled_from(("1/second", "50/second")))
    if draw(st.booleans()):
        limits["connections"] = draw(st.sampled_from((1, 20)))
    if draw(st.booleans()):
        limits["hours"] = draw(st.lists(st.sampled_from(_HOURS), min_size=1, max_size=3, unique=True))
    sender = {"segment": "hall"} if "managed_by" in to else {"role": draw(st.sampled_from(roles))}
    flow = {
        "title": "Flow",
        "from": sender,
        "to": to,
        "service": draw(st.sampled_from(services)),
        "assurance": draw(st.sampled_from(("inspect", "terminate"))),
        "basis": {"act": "Act", "article": "5", "as_of": "2026-01-01", "confirmed": True},
        "affair": "affairs",
        "owner": "Owner",
        "review": "2027-03-31",
        "limits": limits,
    }
    until = draw(st.sampled_from((None, *_UNTIL)))
    return flow if until is None else {**flow, "effective_until": until}


def _without_quotes(text: str) -> str:
    """Return JSON with dates as YAML has them: a quoted date is text."""
    for key in ("as_of", "review", "effective_until"):
        parts = text.split(f'"{key}": "')
        text = parts[0] + "".join(f'"{key}": {part.replace(chr(34), "", 1)}' for part in parts[1:])
    return text
