"""Apply, confirm, roll back on a real kernel, under traffic."""

from __future__ import annotations

import json
import time

import pytest

from appliance_image.bundle import Bundle
from tests.agent.making import MANAGEMENT, PORT, Operator, files_of
from tests.agent.world import World


def _serial(world: World, key: str = "runs") -> object:
    said = json.loads(world.agent("status", "--json").stdout)
    return said[key]["serial"] if isinstance(said[key], dict) else said[key]


def test_apply_and_confirm(running: World, only_management: Bundle) -> None:
    """A bundle on trial runs at once; confirmed, it is the one that a restart boots."""
    done = running.agent("apply", str(running.write(only_management)), "--confirm", "60s", "--json")
    assert done.returncode == 0, done.stderr
    assert "read back identical" in done.stdout
    assert not running.exchange(PORT, seconds=0.2)
    assert running.exchange(MANAGEMENT)
    assert (_serial(running), _serial(running, "current"), _serial(running, "on_trial")) == (2, 1, 2)
    done = running.agent("confirm")
    assert done.returncode == 0, done.stderr
    assert (_serial(running, "current"), _serial(running, "previous"), _serial(running, "on_trial")) == (2, 1, None)
    running.power_on()
    assert running.boot()
    assert "serial 2" in running.console()[-1]
    assert [each["event"] for each in running.records() if not str(each["event"]).startswith(("journal", "check"))] == [
        *("apply", "boot", "apply", "confirm", "boot")
    ]


def test_status_tells_of_the_journal(running: World) -> None:
    """Its newest record, and that there is room."""
    told = json.loads(running.agent("status", "--json").stdout)["journal"]
    newest = running.records()[-1]
    assert told["head"] == f"{newest['seq']}:{newest['hash']}"
    assert told["size"] > 0
    assert told["free"] > 0
    assert f"newest record {newest['seq']}:" in running.agent("status").stdout


def test_restart_on_trial_boots_the_bundle_before(running: World, only_management: Bundle) -> None:
    """A trial does not survive a power cut."""
    assert running.agent("apply", str(running.write(only_management)), "--confirm", "60s").returncode == 0
    running.power_on()
    assert running.boot()
    assert "serial 1" in running.console()[-1]
    assert running.exchange(PORT)
    back = [each for each in running.records() if each["event"] == "rollback"]
    assert [each["fields"]["reason"] for each in back] == ["restart while on trial"]


def test_lock_out_rolls_back_by_itself(running: World, locked_out: Bundle) -> None:
    """A bundle that locks management out cannot be confirmed over management, so it goes by itself."""

    def manage(said: bytes) -> None:
        running.agent({b"c": "confirm"}[said])

    path = running.write(locked_out)
    with running.answering(MANAGEMENT, manage):
        with running.connect(MANAGEMENT) as manager:
            started = time.monotonic()
            assert running.agent("apply", str(path), "--confirm", "5s").returncode == 0
            manager.settimeout(1)
            manager.sendall(b"c")
            with pytest.raises(TimeoutError):
                manager.recv(1)
        with pytest.raises(TimeoutError):
            running.connect(MANAGEMENT, seconds=0.5)
        while _serial(running, "on_trial") is not None:
            assert time.monotonic() - started < 30
            time.sleep(0.2)
        assert time.monotonic() - started > 5
        with running.connect(MANAGEMENT):
            pass
    assert _serial(running) == 1
    assert running.agent("drift").returncode == 0
    back = [each for each in running.records() if each["event"] == "rollback"]
    assert [each["fields"]["reason"] for each in back] == ["not confirmed in time"]
    assert running.agent("confirm").returncode == 2


def test_connections_without_a_permit_end(running: World, only_management: Bundle) -> None:
    """Of two living connections the one that lost its permit ends, and does not come back with the permit."""
    with (
        running.answering(PORT),
        running.answering(MANAGEMENT),
        running.connect(PORT) as lost,
        running.connect(MANAGEMENT) as kept,
    ):
        for each in (lost, kept):
            each.sendall(b"?")
            assert each.recv(1) == b"?"
        done = running.agent("apply", str(running.write(only_management)), "--confirm", "60s")
        assert "connections ended: 1" in done.stdout, done.stdout + done.stderr
        kept.sendall(b"?")
        assert kept.recv(1) == b"?"
        assert running.agent("rollback").returncode == 0
        kept.sendall(b"?")
        assert kept.recv(1) == b"?"
        lost.sendall(b"?")
        with pytest.raises(TimeoutError):
            lost.recv(1)


def test_rollback_without_a_trial(running: World, only_management: Bundle) -> None:
    """After a confirmed bundle there is the one before to go back to, and forth again."""
    assert running.agent("rollback").returncode == 2
    running.agent("apply", str(running.write(only_management)), "--confirm", "60s")
    assert running.agent("confirm").returncode == 0
    assert running.agent("rollback").returncode == 0
    assert (_serial(running, "current"), _serial(running, "previous"), _serial(running, "highest_serial")) == (1, 2, 2)
    assert running.exchange(PORT)
    assert running.agent("rollback").returncode == 0
    assert _serial(running, "current") == 2


def test_refused_bundles(running: World, both: Bundle, operator: Operator) -> None:
    """What is refused changes nothing, and is recorded with its reason."""
    files = files_of("manage")
    for content, code in (
        (operator.bundle(files, 5, firewall="core").content, "other-firewall"),
        (both.content, "same"),
        (operator.bundle(files, 1).content, "same-serial"),
        (operator.bundle({**files, "nftables.nft": b"nonsense"}, 6).content, "rules"),
        (both.content[:-1024], "malformed"),
    ):
        path = running.place / "bad.bundle"
        path.write_bytes(content)
        done = running.agent("apply", str(path), "--confirm", "60s", "--json")
        assert done.returncode == 2
        assert json.loads(done.stdout)["code"] == code, done.stderr
    assert _serial(running) == 1
    assert _serial(running, "on_trial") is None
    refused = [each["fields"]["code"] for each in running.records() if each["event"] == "refused"]
    assert refused == ["other-firewall", "same", "same-serial", "rules", "malformed"]


def test_a_bundle_that_does_not_come_to_run(running: World, operator: Operator) -> None:
    """What fails while it is switched to gives way to what ran before, whole."""
    files = {
        **files_of("manage"),
        "ip.batch": files_of("manage")["ip.batch"] + b"route replace 8.8.8.0/24 via 9.9.9.9 dev lan\n",
    }
    done = running.agent("apply", str(running.write(operator.bundle(files, 4))), "--confirm", "60s")
    assert done.returncode == 2
    assert "program" in done.stderr or "network" in done.stderr
    assert running.exchange(PORT)
    assert running.agent("drift").returncode == 0


def test_one_change_at_a_time(running: World, only_management: Bundle, locked_out: Bundle) -> None:
    """A second bundle waits until the first is confirmed or gone."""
    assert running.agent("apply", str(running.write(only_management)), "--confirm", "60s").returncode == 0
    done = running.agent("apply", str(running.write(locked_out)), "--confirm", "60s", "--json")
    assert json.loads(done.stdout)["code"] == "pending"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["nft", "add", "rule", "inet", "netpolicy", "forward", "accept"], "no drift"),
        (
            ["nft", "insert", "rule", "inet", "netpolicy", "forward", "meta mark set 0x4e000000 accept"],
            "newly permitted",
        ),
        (["nft", "delete", "table", "inet", "netpolicy_guard"], "netpolicy_guard is missing"),
        (["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"], "net/ipv4/conf/all/rp_filter is 0, signed is 1"),
        (["ip", "route", "add", "192.0.2.0/24", "dev", "wan"], "not signed: route unicast 192.0.2.0/24"),
        (["ip", "address", "del", "10.77.1.1/24", "dev", "lan"], "missing: address 10.77.1.1/24 lan"),
        (["sysctl", "-qw", "net.ipv4.ip_forward=0"], "net/ipv4/ip_forward is 0"),
    ],
)
def test_drift(running: World, change: list[str], told: str) -> None:
    """What is not as it was signed is told; what makes no difference to any packet is none."""
    assert running.agent("drift").stdout.startswith("edge: no drift from serial 1; its rules are identical")
    running.run_in("appliance", change)
    done = running.agent("drift")
    assert told in done.stdout, done.stdout + done.stderr
    assert done.returncode == (0 if told == "no drift" else 1)
