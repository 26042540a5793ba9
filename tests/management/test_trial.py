"""Apply, confirm and roll back over the network: what shows that a firewall can still be managed, and what does not."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from appliance_image.management import client
from appliance_image.management.client import change, confirm, connected
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.protocol import Request
from netpolicy.build import compile_topology
from tests.management.network import OPERATOR, SETTLE, Managed, Network
from tests.waiting import until

_ID = "a" * 32


def _apply(network: Network, managed: Managed, bundle: Path, seconds: int = 100) -> dict[str, object]:
    arguments = {"confirm": seconds}
    return network.at("console", lambda: change(managed.target, network.console, "apply", arguments, upload=bundle))


def test_apply_and_confirm(network: Network, managed: Managed, bundle: Path) -> None:
    """What is confirmed over a new connection stays; who did it is recorded with the session."""
    done = _apply(network, managed, bundle)
    assert (done["confirm_seconds"], done["details"]) == (100, ["loaded"])
    assert managed.firewall.trial is not None
    network.at("console", lambda: confirm(managed.target, network.console))
    assert managed.firewall.calls == ["apply", "confirm"]
    assert managed.firewall.trial is None
    logins = {str(each["session"]) for each in managed.firewall.events("login")}
    did = managed.firewall.events("remote")
    assert [(each["command"], each["operator"]) for each in did] == [("apply", OPERATOR), ("confirm", OPERATOR)]
    assert did[0]["size"] == bundle.stat().st_size
    assert {str(each["session"]) for each in did} <= logins


def test_confirm_over_an_old_connection(network: Network, managed: Managed, bundle: Path) -> None:
    """A connection from before the change proves nothing, however often it asks; nor does the apply's own."""

    def talk() -> dict[str, object]:
        with connected(managed.target, network.console) as old, bundle.open("rb") as stream:
            size = bundle.stat().st_size
            old.ask(Request("apply", {"request": _ID, "confirm": 100}, size), stream)
            for wait in (0.0, SETTLE + 0.2):
                time.sleep(wait)
                with pytest.raises(RefusedError, match="new one") as refused:
                    old.ask(Request("confirm", {"request": "b" * 32}))
                assert refused.value.code == "old-connection"
            return old.ask(Request("status", {}))

    assert network.at("console", talk)["on_trial"] is not None
    assert managed.firewall.calls == ["apply"]
    assert [each["code"] for each in managed.firewall.events("refused")] == ["old-connection"] * 2
    network.at("console", lambda: confirm(managed.target, network.console))
    assert managed.firewall.trial is None


def test_confirm_too_early(network: Network, managed: Managed, bundle: Path) -> None:
    """A connection that the relay may have begun before the change is no new one either; it says when to ask again."""
    _apply(network, managed, bundle)

    def talk() -> dict[str, object]:
        with connected(managed.target, network.console) as connection:
            return connection.ask(Request("confirm", {"request": _ID}))

    with pytest.raises(RefusedError) as refused:
        network.at("console", talk)
    assert refused.value.code == "old-connection"
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= SETTLE + 0.1
    time.sleep(refused.value.retry_after)
    network.at("console", talk)


def test_lock_out(network: Network, managed: Managed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that shuts its operator out is gone by itself, and the operator is back."""
    without = replace(network.topology, flows={"notice": network.topology.flows["notice"]})
    compile_topology(without, tmp_path / "build")
    bundle = tmp_path / "locked.bundle"
    bundle.write_bytes((tmp_path / "build/town-fw/nftables.nft").read_bytes())

    def apply() -> dict[str, object]:
        with connected(managed.target, network.console) as connection, bundle.open("rb") as stream:
            return connection.ask(Request("apply", {"request": _ID, "confirm": 60}, bundle.stat().st_size), stream)

    def status() -> dict[str, object]:
        with connected(managed.target, network.console) as connection:
            return connection.ask(Request("status", {}))

    def attempt() -> None:
        with suppress(LinkError):
            network.at("console", apply)  # the very answer is shut out

    monkeypatch.setattr(client, "_CONNECT", 2.0)
    applying = threading.Thread(target=attempt)
    applying.start()
    assert until(lambda: managed.firewall.trial is not None)
    with pytest.raises(LinkError, match=r"not reached|relay has ended"):
        network.at("console", lambda: confirm(managed.target, network.console))
    assert managed.firewall.trial is not None
    assert until(lambda: managed.firewall.trial is None)
    assert network.at("console", status)["on_trial"] is None
    applying.join(30)
    assert managed.firewall.calls == ["apply"]
    assert len(managed.firewall.events("rollback")) == 1


def test_the_outcome_outlives_the_connection(network: Network, managed: Managed, bundle: Path) -> None:
    """Who loses the connection in the middle of a change learns over a new one what became of it."""
    managed.firewall.hold.clear()

    def begin() -> dict[str, object]:
        with connected(managed.target, network.console) as connection, bundle.open("rb") as stream:
            connection._inner.send(Request("apply", {"request": _ID, "confirm": 100}, bundle.stat().st_size).line())
            assert connection._lines.line() is not None  # continue
            connection._inner.send(stream.read())
            return {}

    def outcome() -> dict[str, object]:
        with connected(managed.target, network.console) as connection:
            return connection.ask(Request("outcome", {"request": _ID}))

    network.at("console", begin)
    assert until(lambda: managed.firewall.calls == ["apply"])
    assert network.at("console", outcome) == {"outcome": "running"}
    managed.firewall.hold.set()
    assert until(lambda: network.at("console", outcome)["outcome"] == "answer")
    assert managed.firewall.trial is not None


def test_progress(network: Network, managed: Managed, bundle: Path) -> None:
    """Who waits is told that the work goes on, so that no relay takes the connection for idle."""
    managed.firewall.hold.clear()
    heard: list[str] = []

    def progress(text: str) -> None:
        heard.append(text)
        if len(heard) == 3:
            managed.firewall.hold.set()

    arguments = {"confirm": 100}
    network.at(
        "console",
        lambda: change(managed.target, network.console, "apply", arguments, upload=bundle, progress=progress),
    )
    assert heard[:3] == ["apply"] * 3


def test_refused_bundle(network: Network, managed: Managed, tmp_path: Path) -> None:
    """What the agent refuses is refused with its own code, and the connection goes on."""
    bundle = tmp_path / "x.bundle"
    bundle.write_bytes(b"no bundle" * 20000)

    def talk() -> dict[str, object]:
        with connected(managed.target, network.console) as connection, bundle.open("rb") as stream:
            with pytest.raises(RefusedError, match="no bundle"):
                connection.ask(Request("apply", {"request": _ID, "confirm": 100}, bundle.stat().st_size), stream)
            return connection.ask(Request("outcome", {"request": _ID}))

    assert network.at("console", talk)["outcome"] == "refused"
    assert managed.firewall.events("refused")[0]["code"] == "malformed"
    assert list(managed.firewall._work.glob("upload-*")) == []


def test_one_change_at_a_time(network: Network, managed: Managed, bundle: Path) -> None:
    """While one operator changes something, another one reads, and cannot change anything."""
    managed.firewall.hold.clear()
    applying = threading.Thread(target=_apply, args=(network, managed, bundle))
    applying.start()
    assert until(lambda: managed.firewall.calls == ["apply"])

    def talk() -> dict[str, object]:
        with connected(managed.target, network.console) as connection:
            with pytest.raises(RefusedError) as refused:
                connection.ask(Request("rollback", {"request": _ID}))
            assert refused.value.code == "busy"
            return connection.ask(Request("status", {}))

    network.at("console", talk)
    managed.firewall.hold.set()
    applying.join(10)
    assert managed.firewall.calls == ["apply"]
    network.at("console", lambda: change(managed.target, network.console, "rollback", {}))
    assert managed.firewall.calls == ["apply", "rollback"]


def test_confirm_without_a_trial(network: Network, managed: Managed) -> None:
    """There is nothing to confirm."""
    with pytest.raises(RefusedError) as refused:
        network.at("console", lambda: confirm(managed.target, network.console))
    assert refused.value.code == "nothing"


def test_a_trial_that_did_not_come_over_the_network(network: Network, managed: Managed) -> None:
    """Nobody knows since when it has been live, so no connection proves anything about it."""
    managed.firewall.trial = "elsewhere"
    with pytest.raises(RefusedError) as refused:
        network.at("console", lambda: confirm(managed.target, network.console))
    assert refused.value.code == "not-live"
