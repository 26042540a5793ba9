"""The boot: closed until everything stands, and closed with a reason if anything does not."""

from __future__ import annotations

import pytest

from appliance_image.agent.console import LINE
from appliance_image.bundle import Bundle
from tests.agent.making import Operator, files_of
from tests.agent.world import FORBIDDEN_PORT, World


def test_boot_enforces(world: World, both: Bundle) -> None:
    """After the last stage what is permitted passes, and nothing else; before, nothing does."""
    world.install(both)
    assert not world.exchange(seconds=0.2)
    assert world.boot(), world.console()
    assert world.exchange()
    assert not world.exchange(FORBIDDEN_PORT, seconds=0.2)
    lines = [LINE.match(line) for line in world.console()]
    assert [each and (each["stage"], each["outcome"]) for each in lines] == [
        (stage, "ok") for stage in ("measured", "verify", "wire", "rules", "engine", "relay", "forward")
    ]
    assert [each["event"] for each in world.records() if each["event"] in {"apply", "boot"}] == ["apply", "boot"]


def test_cards_are_found_by_mac(running: World) -> None:
    """The card that the kernel called eth1 is the interface that the topology calls lan."""
    links = running.run_in("appliance", ["ip", "-brief", "link"])
    assert {line.split("@")[0]: line.split()[2] for line in links.splitlines() if "@" in line} == {
        "lan": "02:77:00:00:01:01",
        "wan": "02:77:00:00:02:01",
    }


def _closed(world: World, stage: str, reason: str) -> None:
    """Hold that nothing passes, that the console says why in its last line, and that it is recorded."""
    assert not world.boot()
    line = LINE.match(world.console()[-1])
    assert line is not None
    assert (line["stage"], line["outcome"]) == (stage, "closed")
    assert reason in line["text"]
    assert not world.exchange(seconds=0.2)
    assert world.run_in("appliance", ["cat", "/proc/sys/net/ipv4/ip_forward"]).strip() == "0"
    assert "netpolicy_closed" in world.run_in("appliance", ["nft", "list", "tables"])


def test_without_a_bundle(world: World) -> None:
    """An appliance fresh from the factory is closed."""
    _closed(world, "verify", "no-bundle")


def test_other_cards(running: World) -> None:
    """A machine with other network cards is no firewall of the inventory, whatever bundle it has."""
    running.power_on()
    running.ip("appliance", "link set dev eth0 address 02:00:00:00:00:09")
    _closed(running, "verify", "no firewall of the inventory")


def test_two_cards_alike(running: World) -> None:
    """Two cards with one MAC are refused."""
    running.power_on()
    running.ip("appliance", "link set dev eth0 address 02:77:00:00:01:01")
    _closed(running, "verify", "same MAC")


def test_stored_bundle_was_changed(running: World, both: Bundle) -> None:
    """A byte changed on the state partition is found at the next boot."""
    path = running.root.state / "bundles" / f"{both.sha256}.bundle"
    content = path.read_bytes()
    at = content.index(b"hook forward")
    path.write_bytes(content[:at] + b"H" + content[at + 1 :])
    running.power_on()
    _closed(running, "verify", "altered")
    outcomes = [each["fields"]["outcome"] for each in running.records() if each["event"] == "boot"]
    assert outcomes == [
        "enforcing",
        "closed",
    ]


def test_another_bundle_was_put_in_its_place(running: World, only_management: Bundle, both: Bundle) -> None:
    """Another bundle under the name of the confirmed one is refused, even one that is signed."""
    (running.root.state / "bundles" / f"{both.sha256}.bundle").write_bytes(only_management.content)
    running.power_on()
    _closed(running, "verify", "not the bundle that was confirmed")


def test_damaged_pointer(running: World) -> None:
    """A pointer that is no pointer is told, not guessed at."""
    (running.root.state / "current").write_text("{}")
    running.power_on()
    _closed(running, "verify", "damaged")


@pytest.mark.parametrize(
    ("name", "content", "stage"),
    [
        ("nftables.nft", b"table inet netpolicy { chain x { nonsense } }", "rules"),
        ("sysctl.conf", b"net/ipv4/no_such_setting = 1\n", "rules"),
        ("ip.batch", b"route replace 192.0.2.0/24 via 198.51.100.1 dev lan\n", "rules"),
        ("forwarding.conf", b"net/ipv4/ip_forward = 7x\n", "forward"),
    ],
)
def test_a_stage_fails(world: World, operator: Operator, name: str, content: bytes, stage: str) -> None:
    """A signed bundle that the kernel does not take whole leaves the appliance closed at that stage."""
    world.install(operator.bundle({**files_of("notice"), name: content}, 1))
    _closed(world, stage, "")


def test_no_state_partition(world: World, both: Bundle) -> None:
    """Without the partition there is nothing to run, and that is said."""
    from dataclasses import replace

    world.install(both)
    world.root = replace(world.root, mounted=True)
    assert not world.boot()
    assert "not mounted" in world.console()[-1]


def test_medium_is_newer_or_ignored(running: World, both: Bundle, only_management: Bundle) -> None:
    """A medium's newer bundle takes the place of the one that ran; an older one does not, and says so."""
    running.install(only_management)
    with pytest.raises(AssertionError, match="is not above 2"):
        running.install(both)
    running.power_on()
    assert running.boot()
    assert "serial 2" in running.console()[-1]
