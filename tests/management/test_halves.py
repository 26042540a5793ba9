"""The agent behind the privileged half, the units of both halves, and what compile says of operators."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
from pathlib import Path

import pytest

import appliance_image.management
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pending, Phase, Pointer, State
from appliance_image.journal import Journal
from appliance_image.management import endpoint, link
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.operations import Agent
from appliance_image.management.privileged import Privileged, now
from tests.management.network import OPERATOR, Network

_UNITS = Path(appliance_image.management.__file__).parent / "units"
_MOST_EXPOSED = 2.0


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Return the places of an appliance on which nothing was verified."""
    found = Root(state=tmp_path / "state", run=tmp_path / "run", share=tmp_path / "share", mounted=False)
    for place in (found.state, found.run, found.share):
        place.mkdir()
    State(found).prepare()
    return found


def test_agent_refuses_what_it_must(root: Root, tmp_path: Path) -> None:
    """The agent's own reasons come through, by their own codes."""
    agent = Agent(root)
    bundle = tmp_path / "x.bundle"
    bundle.write_bytes(b"x")
    for call, code in (
        (agent.endpoint, "endpoint"),
        (agent.status, "inventory"),
        (agent.drift, "not-verified"),
        (lambda: agent.apply(bundle, 60), "not-verified"),
        (agent.confirm, "not-verified"),
        (agent.rollback, "not-verified"),
        (lambda: agent.image_update(bundle), "inventory"),  # which says how many must have signed
        (lambda: agent.renew(bundle), "malformed"),
    ):
        with pytest.raises(RefusedError) as refused:
            call()
        assert refused.value.code == code, call


def test_agent_on_trial(root: Root) -> None:
    """A trial is on trial until it is decided."""
    pointer = Pointer("0" * 64, 7)
    state, agent = State(root), Agent(root)
    assert agent.on_trial() is None
    state.begin(Pending(Phase.TRIAL, "abc", "apply", pointer, None))
    assert agent.on_trial() == "abc"
    state.begin(Pending(Phase.COMMIT, "abc", "apply", pointer, None))
    assert agent.on_trial() is None


def test_agent_journal(root: Root) -> None:
    """Records come in chunks, as they stand in the journal, so that their chain can be verified elsewhere."""
    agent = Agent(root)
    for number in range(6):
        agent.record("login", source="management", session=str(number))
    first = agent.journal(1, 4)
    rest = agent.journal(first["next"], 1000)
    lines = [*first["records"], *rest["records"]]
    assert (first["more"], rest["more"]) == (True, False)
    kept = b"".join(path.read_bytes() for path in sorted(root.journal.glob("*.jsonl"))).decode()
    assert "\n".join(lines) + "\n" == kept
    assert agent.journal(rest["next"], 10)["records"] == []


def test_agent_journal_of_long_records(root: Root) -> None:
    """However long records are, an answer fits its line."""
    agent = Agent(root)
    for _ in range(40):
        agent.record("refused", reason="署" * 2500)
    found = agent.journal(1, 1000)
    assert found["more"]
    assert len(json.dumps(found)) < 1 << 18
    Journal.open(root.journal, key=root.identity / "checkpoint.pem")


def test_a_mistake_of_its_own_is_told(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody has thought of is an answer and a record as well, not a silence."""
    agent = Agent(root)

    def fail() -> dict[str, object]:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(agent, "status", fail)
    ours, theirs = socket.socketpair()
    with theirs:
        session = {"id": "s", "operator": OPERATOR, "flow": "manage", "accepted": 1.0}
        request = {"command": "status", "arguments": {}, "size": 0}
        theirs.sendall(json.dumps({"do": "request", "session": session, "request": request}).encode() + b"\n")
        Privileged(agent, root.run).attend(ours)
        assert json.loads(theirs.recv(4096)) == {"refused": {"code": "internal", "text": "ZeroDivisionError: oh"}}
    assert '"code":"internal"' in agent.journal(1, 100)["records"][-2]


def test_live_is_remembered(root: Root) -> None:
    """A privileged half that has been started anew knows since when a trial is live."""
    agent = Agent(root)
    State(root).begin(Pending(Phase.TRIAL, "abc", "apply", Pointer("0" * 64, 7), None))
    Privileged(agent, root.run)._went_live()
    since = Privileged(agent, root.run)._live_since("abc")
    assert since is not None
    assert since <= now()
    assert Privileged(agent, root.run)._live_since("other") is None


def test_other_users_are_not_attended(root: Root) -> None:
    """Only the other half's user, and root, are heard."""
    path = root.run / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        privileged = Privileged(Agent(root), root.run)

        def serve() -> None:
            with pytest.raises(OSError, match="Invalid argument"):
                privileged.serve(listening, frozenset({12345}))

        serving = threading.Thread(target=serve)
        serving.start()
        with pytest.raises(LinkError):
            link.ask(path, {"do": "endpoint"})
        # Ended before its descriptor is, whose number another file may have next.
        listening.shutdown(socket.SHUT_RDWR)
        serving.join(10)
        assert not serving.is_alive()


def test_compiled_operators(network: Network) -> None:
    """The endpoint of a firewall behind another one knows its operators, not the relay on the way."""
    found = endpoint.read((network.lab.build / "town-fw" / endpoint.FILE).read_bytes())
    (access,) = found.flows
    assert (found.firewall, access.operators, access.prologue) == ("town-fw", frozenset({OPERATOR}), b"JUKI")
    assert found.sockets() == {("127.0.0.1", 17100), ("::1", 17100)}
    clients = (network.lab.build / "town-fw/relay/manage.clients.map").read_text(encoding="utf-8")
    assert "firewall:hall-fw" in clients
    assert OPERATOR not in clients


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"format":2,"firewall":"x","uri":"y","flows":[]}', b'{"format":1}', b"\xff"]
)
def test_wrong_endpoint(text: bytes) -> None:
    """A file that is not as compile makes it lets nobody in."""
    with pytest.raises(RefusedError):
        endpoint.read(text)


def test_exposure_of_the_unit_that_speaks_with_the_network() -> None:
    """Systemd itself finds little that the half facing the network may do."""
    assert shutil.which("systemd-analyze"), "make setup"
    unit = _UNITS / "netpolicy-management.service"
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    found = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) <= _MOST_EXPOSED


def test_the_half_that_speaks_with_the_network_has_no_rights() -> None:
    """It is a user of its own, sees nothing of the state partition, and has no capability."""
    text = (_UNITS / "netpolicy-management.service").read_text(encoding="utf-8")
    for line in ("User=netpolicy", "CapabilityBoundingSet=", "InaccessiblePaths=-/state", "IPAddressDeny=any"):
        assert f"\n{line}\n" in text
