"""What the programs that a build is for say of it: every engine of every firewall, and every relay."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from netpolicy.rooted.engine import EngineSaid, engine_reads, engine_says
from netpolicy.rooted.relay import RelaySaid, relay_says, stand_in
from netpolicy.rooted.root import Root, RootError

_SURICATA, _RELAY = "suricata", "relay"


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine of a build, as its program sees it."""

    said: EngineSaid
    settings: Mapping[str, str]
    """As it reads them; nothing if it cannot, which :attr:`said` says too."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the programs say of one firewall's files."""

    engines: Mapping[str, Engine]
    """By interface."""
    relay: RelaySaid | None
    """None if the firewall has none."""

    def complaints(self) -> Iterator[str]:
        """Yield what they do not take."""
        for interface, engine in self.engines.items():
            for each in engine.said.complaints:
                yield f"the engine at {interface} does not start: {each}"
        for each in self.relay.complaints if self.relay else ():
            yield f"the relay does not start: {each}"


def look(root: Root, build: Path, firewalls: Iterable[str]) -> dict[str, Look]:
    """Ask the programs of a root about a build, side by side on all processors.

    Raises:
        RootError: The build has a relay, and the root none.
        OSError: A program cannot be run.

    """
    firewalls = list(firewalls)
    with stand_in() as identity, ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        relays = {
            each: pool.submit(relay_says, root, build / each / _RELAY, identity)
            for each in firewalls
            if (build / each / _RELAY / "haproxy.cfg").is_file()
        }
        if relays and not root.has_relay:
            pool.shutdown(cancel_futures=True)
            raise RootError(f"{root.directory} has no relay (HAProxy 3.0), and {next(iter(relays))} has: make setup")
        engines = {
            (each, path.stem.removeprefix("engine-")): pool.submit(
                _engine, root, path.parent, path.stem.removeprefix("engine-")
            )
            for each in firewalls
            for path in sorted((build / each / _SURICATA).glob("engine-*.yaml"))
        }
        return {
            firewall: Look(
                {interface: told.result() for (whose, interface), told in engines.items() if whose == firewall},
                relays[firewall].result() if firewall in relays else None,
            )
            for firewall in firewalls
        }


def refusals(root: Root, files: Mapping[str, str | bytes]) -> list[str]:
    """Return what the programs of a root do not take of a build that is not written yet; nothing if they take all.

    Args:
        root: With the engine that the build is for.
        files: By path, as :func:`netpolicy.build.compile_files` returns them.

    Raises:
        RootError: See :func:`look`.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        for path, content in files.items():
            place = Path(directory) / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content.encode() if isinstance(content, str) else content)
        firewalls = sorted({path.split("/", 1)[0] for path in files if "/" in path})
        told = look(root, Path(directory), firewalls)
    return [f"{firewall}: {each}" for firewall, seen in told.items() for each in seen.complaints()]


def _engine(root: Root, configuration: Path, interface: str) -> Engine:
    said = engine_says(root, configuration, interface)
    try:
        return Engine(said, engine_reads(root, configuration, interface))
    except RootError as unread:
        return Engine(EngineSaid((*said.complaints, str(unread)), said.loaded), {})
