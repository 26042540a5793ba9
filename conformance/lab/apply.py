"""How a firewall takes its build files: the same commands in the same order as on a machine of its own."""

from __future__ import annotations

from pathlib import Path

from conformance.lab.errors import LabError
from conformance.lab.namespace import Namespace

TIMEOUT = 30.0
"""Seconds for one file."""

_SYSCTL, _NFT = ("sysctl", "-q", "-p"), ("nft", "-f")
_IP, _IP6 = ("ip", "-batch"), ("ip", "-6", "-batch")

_STEPS = (
    ("sysctl.conf", _SYSCTL),
    ("guard.nft", _NFT),
    ("frames.nft", _NFT),
    ("nftables.nft", _NFT),
    ("ip.batch", _IP),
    ("ip6.batch", _IP6),
    ("forwarding.conf", _SYSCTL),
)
"""Closed first, forwarding last."""


def apply_build(namespace: Namespace, directory: Path) -> None:
    """Apply the files of one firewall in order, and stop at the first that the kernel does not take whole.

    Raises:
        LabError: A file is missing or was refused; holds the tool's own message.

    """
    for name, command in _STEPS:
        _apply(namespace, directory / name, command)


def load_ruleset(namespace: Namespace, ruleset: Path) -> None:
    """Load one nftables file, as a single transaction.

    Raises:
        LabError: It was refused; holds nft's message.

    """
    _apply(namespace, ruleset, _NFT)


def _apply(namespace: Namespace, path: Path, command: tuple[str, ...]) -> None:
    if not path.is_file():
        raise LabError(f"{namespace.name}: {path} is missing")
    done = namespace.run([*command, str(path)], timeout=TIMEOUT)
    # sysctl and ip report some refusals only on standard error.
    if done.returncode != 0 or done.stderr:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise LabError(f"{namespace.name}: {command[0]} refused {path}:\n{said}")
