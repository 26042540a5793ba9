"""What the kernel holds after ``nft -f``: loaded into a network namespace of its own that is gone afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from netpolicy.environment import ENVIRONMENT
from netpolicy.proof.held import decode, refuse_unfaithful, refuse_unmodelled
from netpolicy.proof.lister import AGAIN, APART
from netpolicy.proof.model import ChainId, Ruleset
from netpolicy.proof.parse import parse
from netpolicy.proof.source import read_source
from netpolicy.proof.terms import RefusedError

FRAME_TABLE = "netpolicy_frames"
"""Of family netdev."""
RULESETS = ("guard.nft", "nftables.nft")
"""Of one firewall's build, in the order in which they are loaded: what is judged packet by packet."""
LOADED = ("guard.nft", "frames.nft", "nftables.nft")
"""All of them, in the order in which they are loaded."""
TABLES = frozenset({("inet", "netpolicy_guard"), ("inet", "netpolicy")})
"""That they hold."""
_LISTER = Path(__file__).with_name("lister.py")
_SECONDS = 120.0
_MOST_SAID = 2000
"""Characters of nft's complaints that are told."""
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
        groups: Rulesets of anybody, in the order in which they are loaded.

    Raises:
        LoadError: nft refuses them.
        MissingError: Only root may, or python3-nftables is not there.
        RefusedError: One has something that the proof does not know.

    """
    return [_understood(each) for each in _list([APART], texts_of(groups, whole=False), run_here)]


def read_builds(firewalls: Iterable[Path]) -> list[Ruleset]:
    """Load the rulesets of firewalls' builds, each into an empty kernel, and return what it then holds.

    Their files say nothing but tables, and what nft lists of them is what the kernel has: it is loaded once more.

    Args:
        firewalls: Directories.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`read_rulesets`.

    """
    groups = [[firewall / name for name in RULESETS] for firewall in firewalls]
    listed = _list([APART, AGAIN], texts_of(groups, whole=True), run_here)
    found = []
    for group, each in zip(groups, listed, strict=True):
        ruleset = _understood(each)
        tables = {(chain.family, chain.table) for chain in ruleset.chains}
        for missing in sorted(TABLES - tables):
            raise RefusedError(f"a build without table {' '.join(missing)}", str(group[0].parent))
        found.append(ruleset)
    return found


def read_live(run: Runner | None = None, *, again: bool = True) -> Ruleset:
    """Return what the kernel of a network namespace holds.

    Args:
        run: Runs programs inside it; by default, in this process's own.
        again: Whether to refuse what nft lists otherwise than it is, found by loading it once more elsewhere.

    Raises:
        LoadError, MissingError, RefusedError: As :func:`read_rulesets`.

    """
    # Which frames are taken from wires at all is read and judged by netpolicy.proof.frames.
    return _understood(_list([AGAIN] if again else [], [None], run or run_here)[0], {("netdev", FRAME_TABLE)})


def texts_of(groups: Iterable[Sequence[Path]], *, whole: bool) -> list[list[tuple[str, str]]]:
    """Return names and the very texts that are loaded: what has been looked at, nobody changes any more."""
    return [[(str(path), read_source(path, whole=whole)) for path in group] for group in groups]


def _list(
    options: Sequence[str], wanted: Sequence[Sequence[tuple[str, str]] | None], run: Runner
) -> list[dict[str, Any]]:
    if os.geteuid() != 0:
        raise MissingError("reading rulesets back from the kernel takes root")
    try:
        done = run(
            [sys.executable, "-I", str(_LISTER), *options],
            input=json.dumps(wanted),
            timeout=_SECONDS,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired as slow:
        raise LoadError(f"nft has not ended after {_SECONDS:.0f} s") from slow
    if done.returncode == 3:
        raise MissingError(done.stderr.strip())
    if done.returncode < 0:
        raise LoadError(f"nft was ended by signal {-done.returncode}")
    if done.returncode:
        raise LoadError(done.stderr.strip()[-_MOST_SAID:] or f"nft has ended with {done.returncode}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
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


def _understood(listed: Mapping[str, Any], claimed: Collection[tuple[str, str]] = ()) -> Ruleset:
    held = decode(listed["held"])
    # Before anything is made of what nft says of it: of some of this nft 1.0.6 writes JSON that is none.
    refuse_unmodelled(held, claimed)
    told = listed["json"]
    # JSON escapes every character that could be taken for another line or another quotation.
    if "\\" in told or not told.strip().isprintable():
        raise RefusedError("a control character, quotation mark or backslash in a text", _around(told))
    ruleset = parse(json.loads(told), _texts(listed["text"]), held)
    if "again" in listed:
        if "refused" in listed["again"]:
            said = str(listed["again"]["refused"]).strip().splitlines()
            raise RefusedError("what nft lists and does not take", said[0] if said else "")
        refuse_unfaithful(held, decode(listed["again"]))
    return ruleset


def _around(told: str) -> str:
    """Return where in a listing the first such character stands."""
    at = next(place for place, each in enumerate(told) if each == "\\" or not each.isprintable())
    return ascii(told[max(at - 60, 0) : at + 20])


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
