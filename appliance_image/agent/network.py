"""Addresses, routes, policy rules and neighbours of a firewall: exactly those of its bundle."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import run
from appliance_image.agent.root import Root
from netpolicy.proof import network
from netpolicy.proof.netlink import MalformedError
from netpolicy.proof.network import Entry, NetworkError


def differences(files: Path, devices: Iterable[str]) -> tuple[set[Entry], set[Entry]]:
    """Return what the kernel lacks of a bundle, and what it has beyond it.

    Raises:
        AgentError: The kernel does not tell, or the bundle has a line of another kind.

    """
    try:
        return network.differences(files, devices)
    except (MalformedError, NetworkError, OSError) as failed:
        raise AgentError("network", str(failed)) from failed


def load(root: Root, files: Path, devices: Iterable[str]) -> None:
    """Have exactly what the bundle says, and leave alone what is so already.

    Raises:
        AgentError: The kernel refuses a line, or has something else afterwards.

    """
    run(root, ["ip", "link", "set", "dev", "lo", "up"], quiet=True)
    missing, surplus = differences(files, devices)
    lines = network.wanted(files)
    # Addresses take routes with them when they go: first what depends on others.
    _batch(root, [(each.family or 4, _removal(each)) for each in sorted(surplus, key=_order, reverse=True)])
    if surplus:
        missing, _ = differences(files, devices)
    _batch(root, [line for each, line in lines.items() if each in missing])
    missing, surplus = differences(files, devices)
    if missing or surplus:
        said = ", ".join([f"no {each}" for each in sorted(missing)] + [str(each) for each in sorted(surplus)])
        raise AgentError("network", f"the kernel has not taken the bundle's network: {said[:500]}")


def _removal(entry: Entry) -> str:
    what = entry.what
    if entry.kind == "address":
        return f"address del {what[0]} dev {what[1]}"
    if entry.kind == "link":
        return f"link set dev {what[0]} down"
    if entry.kind == "neighbour":
        return f"neighbour del {'proxy ' * (what[1] == 'proxy')}{what[0]} dev {what[2]}"
    if entry.kind == "rule":
        mark = f"fwmark {what[0]} " if what[0] else ""
        return f"rule del {mark}lookup {what[1]} priority {what[2]}"
    kind, target, via, device, table, *more = what
    gateway = "" if via == "-" else f"via {via} "
    where = "" if device == "-" else f"dev {device} "
    metric = dict(zip(more[::2], more[1::2], strict=False)).get("metric")
    return f"route del {kind} {target} {gateway}{where}table {table}" + (f" metric {metric}" if metric else "")


def _order(entry: Entry) -> int:
    return ("link", "address", "neighbour", "rule", "route").index(entry.kind)


def _batch(root: Root, lines: list[tuple[int, str]]) -> None:
    for family in (4, 6):
        text = "".join(f"{line}\n" for each, line in lines if each == family)
        if text:
            run(root, ["ip", *(["-6"] if family == 6 else []), "-batch", "-"], given=text, quiet=True)
