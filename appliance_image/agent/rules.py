"""The ruleset of a firewall: loaded in one transaction, and read back."""

from __future__ import annotations

import json
from pathlib import Path

from appliance_image.agent.errors import AgentError
from appliance_image.agent.programs import attempt, run
from appliance_image.agent.root import Root
from netpolicy.proof.read import LOADED

OWN = (("inet", "netpolicy_guard"), ("netdev", "netpolicy_frames"), ("inet", "netpolicy"))
"""Family and name of the tables that a bundle has, in the order of its files."""


def text_of(files: Path) -> str:
    """Return the rules of a bundle, in the order in which they are loaded.

    Raises:
        AgentError: A file is missing.

    """
    return "\n".join(_text(files, name) for name in LOADED)


def load_first(root: Root, files: Path) -> None:
    """Replace all that the kernel has, the drop-all rules of the initrd among it, in one transaction.

    Raises:
        AgentError: nft or the kernel refuses; what was there stays.

    """
    run(root, ["nft", "-f", "-"], given=f"flush ruleset\n{text_of(files)}", quiet=True)


def replace(root: Root, files: Path) -> None:
    """Replace the rules of one bundle by those of another while packets come.

    The guard table stays behind the main one meanwhile, so that at no moment anything passes that neither permits: a
    table that is replaced is for an instant not everywhere (see ``conformance.reload``).

    Raises:
        AgentError: nft or the kernel refuses; what was there stays.

    """
    others = [each for each in tables(root) if each not in OWN]
    gone = "".join(f"delete table {family} {name}\n" for family, name in others)
    guard, frames, main = (_text(files, name) for name in LOADED)
    run(root, ["nft", "-f", "-"], given=guard, quiet=True)
    run(root, ["nft", "-f", "-"], given=f"{gone}{frames}{main}", quiet=True)


def load_frames(root: Root, files: Path) -> None:
    """Load the frame table again: a chain is gone with the device that it stood at, also if one of the name comes back.

    Raises:
        AgentError: nft or the kernel refuses.

    """
    run(root, ["nft", "-f", "-"], given=_text(files, "frames.nft"), quiet=True)


def load_closed(root: Root) -> None:
    """Drop everything, whatever the bundle says.

    Raises:
        AgentError: nft or the kernel refuses.

    """
    chains = "".join(
        f"chain {hook} {{ type filter hook {hook} priority -300; policy drop; drop; }}\n"
        for hook in ("input", "forward", "output")
    )
    run(root, ["nft", "-f", "-"], given=f"flush ruleset\ntable inet netpolicy_closed {{\n{chains}}}\n", quiet=True)


def check(root: Root, files: Path) -> None:
    """Have nft and the kernel say whether they would take the rules; nothing changes.

    Raises:
        AgentError: They would not.

    """
    done = attempt(root, ["nft", "--check", "-f", "-"], given=f"flush ruleset\n{text_of(files)}")
    if done.returncode != 0 or done.stderr.strip():
        raise AgentError("rules", f"nft refuses the bundle's rules: {done.stderr.strip()[-1000:]}")


def tables(root: Root) -> list[tuple[str, str]]:
    """Return family and name of every table in this network namespace.

    Raises:
        AgentError: The kernel does not tell.

    """
    listed = json.loads(run(root, ["nft", "-json", "list", "tables"]))["nftables"]
    return [(str(each["table"]["family"]), str(each["table"]["name"])) for each in listed if "table" in each]


def _text(files: Path, name: str) -> str:
    try:
        return (files / name).read_text(encoding="utf-8")
    except OSError as missing:
        raise AgentError("rules", f"the bundle has no {name}: {missing}") from missing
