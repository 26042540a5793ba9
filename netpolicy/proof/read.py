"""What the kernel holds after ``nft -f``: loaded into a network namespace of its own that is gone afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from netpolicy.proof.checks import checks
from netpolicy.proof.lister import APART
from netpolicy.proof.model import ChainId, Ruleset
from netpolicy.proof.parse import parse

FRAME_TABLE = "netpolicy_frames"
"""Of family netdev."""
_LISTER = Path(__file__).with_name("lister.py")
_SECONDS = 120.0
_MAX_BYTES = 1 << 28
_TABLE = re.compile(r"^table (\S+) (\S+) \{")
_CHAIN = re.compile(r"^\tchain (\S+) \{")
_RULE = re.compile(r"^\t\t(.*) # handle (\d+)$")


class Runner(Protocol):
    """Runs a program to its end, in whichever network namespace."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        timeout: float,
        input: str | None,  # noqa: A002 - named as in subprocess.run
        env: Mapping[str, str] | None,
    ) -> subprocess.CompletedProcess[str]:
        """Return what it wrote.

        Args:
            argv: The program with its arguments.
            timeout: Seconds.
            input: Its standard input.
            env: Its whole environment.

        """


class LoadError(RuntimeError):
    """A ruleset cannot be loaded, or not be listed; holds what nft said."""


class MissingError(RuntimeError):
    """The machine lacks something; says what."""


def read_rulesets(groups: Iterable[Sequence[Path]]) -> list[Ruleset]:
    """Load groups of files, each into an empty kernel, and return what it then holds.

    Args:
        groups: Files for ``nft -f``, in order.

    Raises:
        LoadError: nft refuses them.
        MissingError: Only root may, or python3-nftables is not there.
        RefusedError: One has something that the proof does not know.

    """
    wanted = [[str(path.absolute()) for path in group] for group in groups]
    return [_understood(each) for each in _list([APART], wanted, run_here)]


def read_live(run: Runner | None = None) -> Ruleset:
    """Return what the kernel of a network namespace holds.

    Args:
        run: Runs programs inside it; by default, in this process's own.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`read_rulesets`.

    """
    (listed,) = _list([], [None], run or run_here)
    listing = json.loads(listed["json"])
    # Which frames are taken from wires at all is read and judged by netpolicy.proof.frames.
    listing["nftables"] = [each for each in listing["nftables"] if not _of_frames(next(iter(each.items())))]
    return _understood(listed | {"json": json.dumps(listing)})


def _list(options: Sequence[str], wanted: Sequence[Sequence[str] | None], run: Runner) -> list[dict[str, str]]:
    if os.geteuid() != 0:
        raise MissingError("reading rulesets back from the kernel takes root")
    done = run(
        [sys.executable, "-I", str(_LISTER), *options],
        input=json.dumps(wanted),
        timeout=_SECONDS,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC", "LC_ALL": "C.UTF-8"},
    )
    if done.returncode == 3:
        raise MissingError(done.stderr.strip())
    if done.returncode < 0:
        raise LoadError(f"nft was ended by signal {-done.returncode}")
    if done.returncode or len(done.stdout) > _MAX_BYTES:
        raise LoadError(done.stderr.strip() or "the listing is too long")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def run_here(
    argv: Sequence[str],
    *,
    timeout: float,
    input: str | None,  # noqa: A002 - named as in subprocess.run
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[str]:
    """Run a program in this process's own network namespace; a :class:`Runner`."""
    return subprocess.run(argv, input=input, timeout=timeout, env=env, capture_output=True, text=True, check=False)


def _understood(listed: dict[str, str]) -> Ruleset:
    return parse(json.loads(listed["json"]), _texts(listed["text"]), checks(listed["text"]))


def _of_frames(named: tuple[str, dict[str, str]]) -> bool:
    kind, each = named
    return each.get("family") == "netdev" and each.get("name" if kind == "table" else "table") == FRAME_TABLE


def _texts(listing: str) -> dict[tuple[ChainId, int], str]:
    """Return how nft prints each rule, by chain and handle."""
    found: dict[tuple[ChainId, int], str] = {}
    family = table = chain = ""
    for line in listing.splitlines():
        if (begins := _TABLE.match(line)) is not None:
            family, table = begins.groups()
        elif (begins := _CHAIN.match(line)) is not None:
            chain = begins[1]
        elif (rule := _RULE.match(line)) is not None:
            found[ChainId(family, table, chain), int(rule[2])] = rule[1]
    return found
