"""A difference in words: for a terminal, for a merge request, for a program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from netpolicy.proof.boxes import IIF, OIF, Box
from netpolicy.proof.diff import Change, Difference, LimitChange, Piece
from netpolicy.proof.fold import Line, some
from netpolicy.topology.model import Topology

_NEEDS = {
    "relay": "answers to the relay's own connections",
    "path-mtu": "ICMP errors about live connections (path MTU discovery)",
    "neighbours": "neighbour discovery",
    "loopback": "what stays on the firewall itself",
}
_SIGN = {Change.PERMITTED: "+", Change.STOPPED: "-"}


@dataclass(frozen=True, slots=True)
class Group:
    """What has changed of one flow."""

    change: Change
    flow: str | None
    title: str
    basis: str | None
    lines: tuple[Line, ...]
    pieces: tuple[Piece, ...]

    @property
    def consequence(self) -> bool:
        """Whether it is no flow, but what a network needs beside its flows."""
        return self.flow in _NEEDS

    @property
    def firewalls(self) -> tuple[str, ...]:
        """Return where."""
        return tuple(dict.fromkeys(piece.firewall for piece in self.pieces))


def groups(found: Difference, lines: Iterable[Line], topologies: Mapping[Change, Topology | None]) -> tuple[Group, ...]:
    """Return a difference by flow: what is permitted first, flows in their order, then what belongs to none."""
    by_flow: dict[tuple[Change, str | None], list[Piece]] = {}
    for piece in found.pieces:
        by_flow.setdefault((piece.change, piece.flow), []).append(piece)
    by_line: dict[tuple[Change, str | None], list[Line]] = {}
    for line in lines:
        by_line.setdefault((line.change, line.flow), []).append(line)
    result = []
    for (change, flow), pieces in by_flow.items():
        topology = topologies[change]
        known = topology.flows.get(flow) if topology is not None and flow is not None else None
        title = str(known.title) if known else _NEEDS.get(flow or "", "" if flow else "no flow permits this by name")
        basis = str(known.basis) if known else None
        told = tuple(by_line.get((change, flow), ()))
        result.append(Group(change, flow, title, basis, told, tuple(pieces)))
    return tuple(sorted(result, key=lambda group: _rank(group, topologies[group.change])))


def text(found: Difference, parts: tuple[Group, ...], most: int, *, everything: bool) -> Iterator[str]:
    """Yield lines for a terminal.

    Args:
        found: All of it.
        parts: Of it, by flow.
        most: So many lines at most; the last one then tells how many are left.
        everything: Whether what follows from other changes is told in full as well.

    """
    left, hidden = most, 0
    for change in Change:
        mine = [group for group in parts if group.change is change and (everything or not group.consequence)]
        if mine:
            yield str(change)
        for group in mine:
            yield from _headed(group)
            for line in group.lines:
                if left <= 0:
                    hidden += 1
                    continue
                left -= 1
                yield f"    {_SIGN[change]} {line}"
                yield from (f"        {at}" for at in line.at)
            yield ""
    if hidden:
        yield f"and {hidden} more lines, not shown: --most 0 or --json has all of them"
        yield ""
    if not everything:
        yield from _consequences(parts)
    yield from _limits(found.limits)
    if found.beside:
        yield "beside the rules"
        yield from (f"    {each}" for each in found.beside)
        yield ""
    yield from (f"not looked at: {each}" for each in found.unseen)
    yield summary(found)
    if parts and all(group.basis is None for group in parts):
        yield "names and legal bases of builds: --topology FILE"


def markdown(found: Difference, parts: tuple[Group, ...], most: int, *, everything: bool) -> Iterator[str]:
    """Yield the same for a merge request."""
    yield f"**{summary(found)}**"
    left, hidden = most, 0
    for group in parts:
        if group.consequence and not everything:
            continue
        basis = f" — {group.basis}" if group.basis else ""
        name = f"`{group.flow}` {group.title}".strip() if group.flow else group.title
        yield from ("", f"### {str(group.change).capitalize()}: {name}{basis}", "")
        yield from ("| from | to | service | firewalls |", "|---|---|---|---|")
        for line in group.lines:
            if left <= 0:
                hidden += 1
                continue
            left -= 1
            cells = (
                some(line.clients, "<br>"),
                some(line.servers, "<br>"),
                ", ".join((line.service, *line.conditions)),
                "<br>".join(map(str, line.at)),
            )
            yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
    if hidden:
        yield from ("", f"And {hidden} more lines, not shown: `--most 0` or `--json` has all of them.")
    consequences = [] if everything else [group for group in parts if group.consequence]
    if consequences:
        yield from ("", "### What is no flow, but follows (`--all` has it in full)", "")
        yield from (f"- {group.change}: {_counted(group)}" for group in consequences)
    if found.limits:
        yield from ("", "### Limits", "")
        yield from (f"- `{each.flow}`: {_limit(each)}, at {', '.join(each.firewalls)}" for each in found.limits)
    if found.beside:
        yield from ("", "### Beside the rules", "", *(f"- {each}" for each in found.beside))
    if found.unseen:
        yield from ("", *(f"Not looked at: {each}." for each in found.unseen))


def document(found: Difference, parts: tuple[Group, ...]) -> dict[str, object]:
    """Return all of it for a program; boxes are exact: intervals by field, within their frame."""
    return {
        "different": not found.empty,
        "summary": summary(found),
        "changes": [
            {
                "change": group.change.name.lower(),
                "flow": None if group.consequence else group.flow,
                "title": group.title,
                "basis": group.basis,
                "firewalls": list(group.firewalls),
                "lines": [_plain(line) for line in group.lines],
                "boxes": [_exact(piece) for piece in group.pieces],
            }
            for group in parts
        ],
        "limits": [
            {"flow": each.flow, "old": each.old, "new": each.new, "firewalls": each.firewalls} for each in found.limits
        ],
        "beside": list(found.beside),
        "not_looked_at": list(found.unseen),
    }


def summary(found: Difference) -> str:
    """Return one sentence."""
    where = {piece.firewall for piece in found.pieces} | {name for each in found.limits for name in each.firewalls}
    if found.empty:
        return f"no difference: {_count(len(found.firewalls), 'firewall')} pass the same packets"
    parts = []
    for change in Change:
        firewalls = {piece.firewall for piece in found.pieces if piece.change is change}
        parts.append(f"packets {change} at {_count(len(firewalls), 'firewall')}" if firewalls else f"nothing {change}")
    if found.limits:
        parts.append(f"limits of {_count(len({each.flow for each in found.limits}), 'flow')} changed")
    if found.beside:
        parts.append(f"{_count(len(found.beside), 'difference')} beside the rules")
        where |= {*found.firewalls}  # a running kernel is one firewall
    return f"{'; '.join(parts)} ({len(where)} of {len(found.firewalls)} firewalls differ)"


def _rank(group: Group, topology: Topology | None) -> tuple[bool, int, int]:
    flows = list(topology.flows) if topology is not None else []
    place = flows.index(group.flow) if group.flow in flows else len(flows)
    return group.change is Change.STOPPED, 1 if group.consequence else 2 if group.flow is None else 0, place


def _headed(group: Group) -> Iterator[str]:
    yield f"  {'  '.join(filter(None, (group.flow, group.title)))}"
    if group.basis:
        yield f"  {group.basis}"


def _consequences(parts: tuple[Group, ...]) -> Iterator[str]:
    mine = [group for group in parts if group.consequence]
    if not mine:
        return
    yield "what is no flow, but follows (--all has it in full)"
    for group in mine:
        yield f"    {_SIGN[group.change]} {_counted(group)}"
    yield ""


def _limits(changes: tuple[LimitChange, ...]) -> Iterator[str]:
    if not changes:
        return
    yield "limits"
    for each in changes:
        yield f"    {each.flow}: {_limit(each)}"
        yield f"        at {', '.join(each.firewalls)}"
    yield ""


def _limit(change: LimitChange) -> str:
    gone = [text for text in change.old if text not in change.new]
    come = [text for text in change.new if text not in change.old]
    return f"{', '.join(gone) or 'no other'} → {', '.join(come) or 'no other'}"


def _counted(group: Group) -> str:
    where = _count(len(group.firewalls), "firewall")
    return f"{group.title}: {_count(len(group.pieces), 'box', 'boxes')} at {where}"


def _plain(line: Line) -> dict[str, object]:
    return {
        "from": list(line.clients),
        "to": list(line.servers),
        "service": line.service,
        "conditions": list(line.conditions),
        "at": [
            {"firewall": place.firewall, "in": place.ingress or None, "out": place.egress or None, "how": at.how}
            for at in line.at
            for place in at.places
        ],
    }


def _exact(piece: Piece) -> dict[str, object]:
    return {
        "firewall": piece.firewall,
        "family": piece.family.version,
        "way": str(piece.way),
        "packets": str(piece.box.frame.shape),
        "header": piece.box.frame.header.name.lower(),
        "fields": _fields(piece.box, piece.interfaces),
    }


def _fields(box: Box, interfaces: tuple[str, ...]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    for dimension, spans in box.sides:
        if dimension in {IIF, OIF}:
            found[dimension.name] = [interfaces[each] for span in spans for each in range(span.first, span.last + 1)]
        else:
            found[dimension.name] = [[span.first, span.last] for span in spans]
    return found


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
