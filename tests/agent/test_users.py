"""The agent's commands and files, tried by every user of the image that is not root: nothing is changed or learned."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance_image.agent.__main__ import main
from appliance_image.agent.root import Root
from appliance_image.bundle import Bundle
from appliance_image.image.settle import _USERS
from tests.agent.making import Operator
from tests.agent.world import World

USERS = {name: number for name, (number, _) in _USERS.items() if number != 0}
COMMANDS = (
    ("status",), ("status", "--json"), ("drift",), ("confirm",), ("rollback",), ("apply", "BUNDLE", "--confirm", "60s"),
    ("renew", "IDENTITY"), ("image-update", "BUNDLE"), ("boot", "verify"), ("boot", "wire"), ("boot", "rules"),
    ("boot", "engine"), ("boot", "relay"), ("boot", "forward"), ("boot", "stop-forwarding"), ("clock",), ("expire",),
    ("give-way",), ("rotate",),
)  # fmt: skip
_SECONDS = 20


@pytest.fixture(name="appliance", scope="module")
def _appliance(operator: Operator, both: Bundle) -> Iterator[World]:
    """Yield one that enforces, where everybody may look, with the umask of its units."""
    place = Path(tempfile.mkdtemp(prefix="netpolicy-users-"))
    place.chmod(0o755)
    found = World(place, operator)
    before = os.umask(0o077)
    try:
        found.power_on()
        found.install(both)
        assert found.boot(), found.console()
        yield found
    finally:
        os.umask(before)
        found.power_off()
        shutil.rmtree(place)


def _become(number: int) -> None:
    signal.alarm(_SECONDS)
    os.setgroups([])
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)


def _held(world: World) -> str:
    """Return a hash of all that nobody else may change."""
    found = hashlib.sha256(world.run_in("appliance", ["nft", "-s", "list", "ruleset"]).encode())
    found.update(world.run_in("appliance", ["sysctl", "-a", "-r", "forwarding|nf_conntrack_max"]).encode())
    for place in (world.root.state, world.root.run):
        for path in sorted(place.rglob("*")):
            status = path.lstat()
            found.update(f"{path} {status.st_mode:o} {status.st_uid}\n".encode())
            if path.is_file():
                found.update(path.read_bytes())
    return found.hexdigest()


@pytest.mark.parametrize("user", USERS)
def test_commands(appliance: World, both: Bundle, user: str) -> None:
    """Each command fails, whatever it is, and leaves everything as it was."""
    bundle, places = appliance.write(both), appliance._places()
    bundle.chmod(0o644)
    given = {"BUNDLE": str(bundle), "IDENTITY": str(appliance.root.identity)}
    before = _held(appliance)
    for command in COMMANDS:

        def run(_root: Root, command: tuple[str, ...] = command) -> int:
            _become(USERS[user])
            return main([*places, *(given.get(each, each) for each in command)])

        assert appliance.fork(run) != 0, command
    assert appliance.fork(lambda _root: main([*places, "status"])) == 0  # the control: as root it is done
    assert _held(appliance) == before


@pytest.mark.parametrize("user", USERS)
def test_files(appliance: World, user: str) -> None:
    """None of the agent's files is read or written by anybody else: no key, no rule, no record, no bundle."""
    found = appliance.place / "found"
    found.touch()
    found.chmod(0o666)

    def run(root: Root, number: int = USERS[user]) -> int:
        if number:
            _become(number)
        reached = [
            str(path)
            for place in (root.state, root.run)
            for path in (place, *place.rglob("*"))
            if os.access(path, os.W_OK) or (path.is_file() and os.access(path, os.R_OK))
        ]
        found.write_text("\n".join(reached))
        return 0

    assert appliance.fork(run) == 0
    assert found.read_text() == ""
    assert appliance.fork(lambda root: run(root, 0)) == 0
    assert "/current" in found.read_text()  # the control: they are there
