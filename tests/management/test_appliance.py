"""Both halves' work done by the agent itself: signed bundles, a real kernel, a real journal."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from pathlib import Path

import pytest

from appliance_image.agent.root import Root
from appliance_image.bundle import Bundle
from appliance_image.management import protocol
from appliance_image.management.operations import Agent
from appliance_image.management.privileged import Privileged, now
from appliance_image.management.protocol import Document, Request
from tests.agent.making import PORT, Operator, files_of
from tests.agent.world import World
from tests.waiting import until

_SETTLE = 2.0
_URI = "urn:netpolicy:small:hall-server:gamma"


@pytest.fixture(scope="session", name="operator")
def _operator(tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Return who signs."""
    return Operator.make(tmp_path_factory.mktemp("share") / "trust")


@pytest.fixture(name="running")
def _running(tmp_path: Path, operator: Operator) -> object:
    """Yield an appliance that enforces serial 1, with a flow that serial 2 has not."""
    world = World(tmp_path, operator)
    world.power_on()
    world.install(operator.bundle(files_of("notice", "manage"), 1))
    assert world.boot(), world.console()
    yield world
    world.power_off()


class _Operator:
    """The half that faces the network, as far as the privileged one sees it."""

    def __init__(self, root: Root) -> None:
        self._privileged = Privileged(Agent(root), root.run, settle=_SETTLE)

    def ask(self, command: str, arguments: Document, upload: bytes = b"", accepted: float | None = None) -> Document:
        """Return the last line of the answer."""
        if "request" in protocol.COMMANDS[command].arguments:
            arguments = {**arguments, "request": secrets.token_hex(16)}
        request = Request(command, arguments, len(upload))
        session = {"id": "s", "operator": _URI, "flow": "manage", "accepted": now() if accepted is None else accepted}
        asked = {"command": command, "arguments": request.arguments, "size": request.size}
        ours, theirs = socket.socketpair()
        attending = threading.Thread(target=self._privileged.attend, args=(ours,))
        attending.start()
        with theirs, theirs.makefile("rb") as answers:
            theirs.sendall(protocol.encode({"do": "request", "session": session, "request": asked}))
            for line in answers:
                document = json.loads(line)
                if "continue" in document:
                    theirs.sendall(upload)
                    continue
                attending.join()
                found: Document = document
                return found
        raise AssertionError("no answer")


def test_a_whole_trial(running: World, operator: Operator) -> None:
    """Apply, a confirmation that proves nothing, one that does, and the journal that tells of it."""
    bundle = operator.bundle(files_of("manage"), 2).content

    def work(root: Root) -> int:
        other = _Operator(root)
        before = now()
        assert other.ask("status", {})["answer"]["runs"]["serial"] == 1
        applied = other.ask("apply", {"confirm": 60}, bundle)
        assert applied["answer"]["serial"] == 2, applied
        assert other.ask("confirm", {}, accepted=before)["refused"]["code"] == "old-connection"
        early = other.ask("confirm", {})["refused"]
        time.sleep(early["retry_after"])
        assert other.ask("confirm", {})["answer"]["serial"] == 2
        assert "lines" in other.ask("drift", {})["answer"]
        assert other.ask("confirm", {})["refused"]["code"] == "nothing"
        found = other.ask("journal", {"since": 1, "most": 1000})["answer"]["records"]
        events = [json.loads(each)["event"] for each in found]
        told = [each for each in events if each in {"remote", "apply", "confirm", "refused"}]
        # The first apply is the factory's.
        assert told == ["apply", "remote", "apply", "refused", "refused", "remote", "confirm", "refused"], events
        assert other.ask("rollback", {})["answer"]["serial"] == 1
        return 0

    assert running.fork(work) == 0, (running.place / "said").read_text(encoding="utf-8")
    assert running.exchange(PORT)


@pytest.mark.parametrize("code", ["altered", "same-serial", "same", "malformed"])
def test_refused_bundles(running: World, operator: Operator, code: str) -> None:
    """What the agent refuses is refused with its code, is recorded, and changes nothing."""
    content = {
        "altered": operator.bundle(files_of("manage"), 2).content.replace(b"drop", b"DROP", 1),
        "same-serial": operator.bundle(files_of("manage"), 1).content,
        "same": next((running.root.state / "bundles").iterdir()).read_bytes(),
        "malformed": b"x" * 1000,
    }[code]

    def work(root: Root) -> int:
        other = _Operator(root)
        refused = other.ask("apply", {"confirm": 60}, content)
        assert refused["refused"]["code"] == code, refused
        assert other.ask("status", {})["answer"]["on_trial"] is None
        assert not list(root.run.glob("upload-*"))
        return 0

    assert running.fork(work) == 0, (running.place / "said").read_text(encoding="utf-8")
    assert running.exchange(PORT)
    assert {each["fields"]["code"] for each in running.records() if each["event"] == "refused"} == {code}


def test_a_trial_that_nobody_confirms(running: World, operator: Operator) -> None:
    """The agent's own timer ends it, although the privileged half is gone."""
    bundle: Bundle = operator.bundle(files_of("manage"), 2)

    def work(root: Root) -> int:
        assert _Operator(root).ask("apply", {"confirm": 20}, bundle.content)["answer"]["confirm_seconds"] == 20
        return 0

    assert running.fork(work) == 0, (running.place / "said").read_text(encoding="utf-8")
    assert not running.exchange(PORT, seconds=0.2)
    assert until(lambda: bool(_reasons(running)), 40)
    assert _reasons(running) == ["not confirmed in time"]
    assert running.exchange(PORT)


def _reasons(world: World) -> list[object]:
    return [each["fields"]["reason"] for each in world.records() if each["event"] == "rollback"]
