"""The power is cut, or the agent dies, at every step: always the old state whole or the new one, and never open."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.agent import live, network, operate
from appliance_image.agent.adopt import adopt_from
from appliance_image.agent.identity import identify
from appliance_image.agent.loaded import recall
from appliance_image.agent.namespaces import call_in
from appliance_image.agent.renew import offered, renew
from appliance_image.agent.root import Root
from appliance_image.agent.stages import verify as verify_stage
from appliance_image.agent.state import State
from appliance_image.bundle import Bundle
from appliance_image.journal import verify
from conformance.pki import Identities
from tests.agent.cutting import NEVER, Cut, Loss
from tests.agent.making import ALPHA, FIREWALL, GAMMA, LAN, Operator, authorities_of, files_of
from tests.agent.world import FORBIDDEN_PORT, Record, World, records_of

Operation = Callable[[Root], object]
FULL = 5
"""Every so many steps a machine is booted whole; at the others, up to the verified bundle: the rest follows from it."""
_MAGIC = 0x6E706F6C
_ETHERNET_IPV4_TCP_SEQUENCE = 14 + 20 + 4


@contextmanager
def flooded(world: World) -> Iterator[list[int]]:
    """Send forbidden packets while inside; the list tells how many were sent and how many came through."""
    counts = [0, 0]
    stop = threading.Event()
    names = [world.namespace(name) for name in ("town", "far")]
    sender, receiver = (
        call_in(name, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))) for name in names
    )
    frame = _frame()
    sender.bind(("up0", 3))
    receiver.bind(("up0", 3))
    receiver.settimeout(0.1)

    def send() -> None:
        while not stop.is_set():
            sender.send(frame)
            counts[0] += 1
            time.sleep(0.002)

    def receive() -> None:
        while not stop.is_set():
            try:
                data = receiver.recv(2048)
            except TimeoutError:
                continue
            at = _ETHERNET_IPV4_TCP_SEQUENCE
            counts[1] += data[at : at + 4] == _MAGIC.to_bytes(4)

    threads = [threading.Thread(target=each, daemon=True) for each in (send, receive)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sender.close()
        receiver.close()


def _frame() -> bytes:
    def checksum(data: bytes) -> int:
        total = int(sum(struct.unpack(f"!{len(data) // 2}H", data)))
        total = (total >> 16) + (total & 0xFFFF)
        return ~(total + (total >> 16)) & 0xFFFF

    source, destination = (socket.inet_aton(each) for each in (ALPHA, GAMMA))
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0x4000, 64, 6, 0, source, destination)
    head = head[:10] + checksum(head).to_bytes(2) + head[12:]
    segment = struct.pack("!HHIIBBHHH", 40000, FORBIDDEN_PORT, _MAGIC, 0, 0x50, 2, 1024, 0, 0)
    pseudo = source + destination + struct.pack("!BBH", 0, 6, len(segment))
    segment = segment[:16] + checksum(pseudo + segment).to_bytes(2) + segment[18:]
    macs = bytes.fromhex(LAN.replace(":", "")) + bytes.fromhex("02770000010a")
    return macs + b"\x08\x00" + head + segment


def cut(world: World, operation: Operation, at: int) -> list[str] | None:
    """Do an operation in the appliance and cut it before a step; return its steps if it ended before that."""
    told = world.place / "steps.json"
    told.unlink(missing_ok=True)

    def inside(root: Root) -> int:
        happening = Cut(root.state, at, world.place / "lost")
        happening.lay()
        operation(root)
        told.write_text(json.dumps(happening.steps))
        return 0

    code = world.fork(inside)
    if code == -signal.SIGKILL:
        return None
    assert code == 0, said(world)
    found: list[str] = json.loads(told.read_text())
    return found


def said(world: World) -> str:
    """Return the end of what the agent has said."""
    return (world.place / "said").read_text()[-3000:]


def recovered(world: World, before: list[Record]) -> dict[Loss, int]:
    """Return which serial the next boot would run after each loss, and hold that it would be whole and recorded."""
    return {loss: _recovered(world, world.place / "lost" / loss, before) for loss in Loss}


def _recovered(world: World, state: Path, before: list[Record]) -> int:
    def inside(root: Root) -> int:
        other = replace(root, state=state, run=root.run.with_name("other"))
        verify_stage(other)
        sound(other)
        return 10 + recall(other).serial

    code: int = world.fork(inside)
    assert 10 <= code < 90, said(world)
    recorded(state / "journal", before)
    return code - 10


def sound(root: Root) -> None:
    """Hold that the state partition says one thing only, and holds what it speaks of."""
    state = State(root)
    assert state.current is not None
    assert state.pending is None
    left = {path.name for path in root.state.iterdir() if path.is_file()}
    assert left <= {"clock", "current", "previous", "serial", "operators.crl"}, left
    pointers = {each.sha256 for each in (state.current, state.previous) if each is not None}
    assert {path.stem for path in (root.state / "bundles").iterdir()} == pointers


def recorded(journal: Path, before: list[Record]) -> None:
    """Hold that no record is lost, and that what was begun is recorded to its end."""
    assert verify(journal) is None
    records = records_of(journal)
    assert records[: len(before)] == before
    fields = [(each["event"], each["fields"]) for each in records if each["event"] in {"apply", "confirm", "rollback"}]
    begun = {each["transaction"] for event, each in fields if event == "apply" and each.get("source") != "medium"}
    assert begun <= {each["transaction"] for event, each in fields if event != "apply"}


def whole(world: World) -> int:
    """Hold that one bundle runs, whole and as the state says, and return its serial."""

    def inside(root: Root) -> int:
        loaded, current = recall(root), State(root).current
        sound(root)
        assert current is not None
        assert (loaded.serial, loaded.sha256) == (current.serial, current.sha256)
        assert live.compare(loaded.firewall, root.bundle, loaded.interfaces).identical
        assert network.differences(root.bundle, loaded.interfaces) == (set(), set())
        return 10 + loaded.serial

    code: int = world.fork(inside)
    assert 10 <= code < 90, said(world)
    return code - 10


def _expire(root: Root) -> int:
    """Have the time of a trial be over."""
    state = State(root)
    pending = state.pending
    if pending is not None and not pending.committed:
        state.begin(replace(pending, deadline=0.0))
    operate.expire(root)
    state.tidy()
    return 0


def _restore(state: Path, kept: Path) -> None:
    shutil.rmtree(state)
    shutil.copytree(kept, state)


def _full_boot(world: World, state: Path) -> int:
    """Switch another machine on with a state partition, and return which serial it enforces."""
    _restore(world.root.state, state)
    world.power_on()
    assert world.boot(), world.console()
    return whole(world)


@pytest.fixture
def other(tmp_path: Path, operator: Operator) -> Iterator[World]:
    """Yield another machine, which boots what was lost and found."""
    found = World(tmp_path / "other", operator)
    yield found
    found.power_off()


def test_apply_is_cut(running: World, other: World, only_management: Bundle) -> None:
    """At whichever step of ``apply`` the old bundle is the one that boots; and it comes back if only the agent died."""
    path = running.write(only_management)

    def apply(root: Root) -> object:
        return operate.apply(root, path, confirm=3600)

    steps = cut(running, apply, NEVER)
    assert steps
    assert len(steps) >= 15
    assert running.fork(_expire) == 0, said(running)
    with flooded(running) as counts:
        for at, step in enumerate(steps, 1):
            before = records_of(running.root.journal)
            assert cut(running, apply, at) is None
            assert set(recovered(running, before).values()) == {1}, step
            if at % FULL == 0:
                assert _full_boot(other, running.root.state) == 1
            assert running.fork(_expire) == 0, said(running)
            assert whole(running) == 1, step
            assert running.exchange(), step
    assert counts[0] > 0
    assert counts[1] == 0, counts
    print(f"{len(steps)} steps of apply, {len(Loss)} losses at each: {steps}")


def test_confirm_is_cut(running: World, other: World, only_management: Bundle, tmp_path: Path) -> None:
    """At whichever step of ``confirm``, the old bundle or the new one boots, and once it is the new one it stays so."""
    path = running.write(only_management)
    assert running.fork(lambda root: int(operate.apply(root, path, confirm=3600) is None)) == 0
    kept = tmp_path / "kept"
    shutil.copytree(running.root.state, kept)
    steps = cut(running, operate.confirm, NEVER)
    assert steps
    assert len(steps) >= 15
    found: dict[Loss, list[int]] = {loss: [] for loss in Loss}
    for at, _ in enumerate(steps, 1):
        _restore(running.root.state, kept)
        before = records_of(running.root.journal)
        assert cut(running, operate.confirm, at) is None
        for loss, serial in recovered(running, before).items():
            found[loss].append(serial)
        if at % FULL == 0:
            assert _full_boot(other, running.root.state) == found[Loss.NOTHING][-1]
    for serials in found.values():
        assert serials == sorted(serials)
        assert set(serials) == {1, 2}
    print(
        f"{len(steps)} steps of confirm, {len(Loss)} losses at each:"
        f" {dict(zip(steps, found[Loss.UNSYNCED], strict=True))}"
    )


def test_adoption_is_cut(
    running: World, other: World, operator: Operator, identities: Identities, tmp_path: Path
) -> None:
    """At whichever step a medium is adopted, bundle and identity are both the old ones or both the new ones."""
    kept, medium = tmp_path / "kept", tmp_path / "stick"
    (medium / "identity").mkdir(parents=True)
    names = ("chain.pem", "crl.pem", "key.pem")
    edge = identities.topology.firewalls[FIREWALL]
    for owner in (running.root.identity, medium / "identity"):
        for name in names:
            shutil.copy(identities.of(edge).directory / name, owner / name)
        identities.renew(edge, now=datetime.now(UTC))
    places = {1: running.root.identity, 2: medium / "identity"}
    whole_of = {serial: [(at / name).read_bytes() for name in names] for serial, at in places.items()}
    bundle = operator.bundle({**files_of("manage"), **authorities_of(identities)}, 2)
    (medium / "two.bundle").write_bytes(bundle.content)
    shutil.copytree(running.root.state, kept)

    def adopt(root: Root) -> object:
        assert adopt_from(root, medium, identify(root), State(root)) is None
        return None

    steps = cut(running, adopt, NEVER)
    assert steps
    found = []
    for at, step in enumerate(steps, 1):
        _restore(running.root.state, kept)
        before = records_of(running.root.journal)
        assert cut(running, adopt, at) is None
        for loss, serial in recovered(running, before).items():
            identity = running.place / "lost" / loss / "identity"
            held = [(identity / name).read_bytes() for name in names]
            assert held == whole_of[serial], f"{step}: {loss}"
            found.append(serial)
        if at % FULL == 0:
            assert _full_boot(other, running.root.state) in {1, 2}
    assert set(found) == {1, 2}
    print(f"{len(steps)} steps of an adoption, {len(Loss)} losses at each")


def test_renewal_is_cut(
    running: World, other: World, operator: Operator, identities: Identities, tmp_path: Path
) -> None:
    """At whichever step certificate, key and lists are renewed, all of them are the old ones or the new ones."""
    names = ("chain.pem", "crl.pem", "key.pem")
    running.install(operator.bundle({**files_of("notice", "manage"), **authorities_of(identities)}, 2))
    running.power_on()
    assert running.boot()
    edge = identities.topology.firewalls[FIREWALL]
    place = identities.of(edge).directory
    for name in names:
        (running.root.identity / name).write_bytes((place / name).read_bytes())
    kept = tmp_path / "kept"
    shutil.copytree(running.root.state, kept)
    old = [(place / name).read_bytes() for name in names]
    identities.renew(edge, now=datetime.now(UTC))
    identities.revoke(identities.of(identities.topology.nodes["alpha"]), now=datetime.now(UTC))
    new = [(place / name).read_bytes() for name in names]

    def renewal(root: Root) -> object:
        return renew(root, offered(place))

    steps = cut(running, renewal, NEVER)
    assert steps
    found: dict[Loss, list[bool]] = {loss: [] for loss in Loss}
    for at, step in enumerate(steps, 1):
        _restore(running.root.state, kept)
        before = records_of(running.root.journal)
        assert cut(running, renewal, at) is None
        recovered(running, before)
        for loss in Loss:
            state = running.place / "lost" / loss
            files = [(state / "identity" / name).read_bytes() for name in names]
            assert files in (old, new), f"{step}: {loss}"
            renewed = any(each["event"] == "renew" for each in records_of(state / "journal"))
            assert renewed == (files == new), f"{step}: {loss}"
            found[loss].append(files == new)
        if at % FULL == 0:
            assert _full_boot(other, running.root.state) == 2
    for each in found.values():
        assert each == sorted(each)
        assert set(each) == {False, True}
    print(f"{len(steps)} steps of a renewal, {len(Loss)} losses at each: {steps}")


def test_rollback_is_cut(running: World, other: World, only_management: Bundle) -> None:
    """At whichever step of ``rollback`` one of both bundles boots; if only the agent died, one of both comes to run."""
    path = running.write(only_management)
    assert running.fork(lambda root: int(operate.apply(root, path, confirm=3600) is None)) == 0
    assert running.fork(lambda root: int(operate.confirm(root) is None)) == 0
    # There and back again: the steps of both ways are the same.
    steps = cut(running, operate.rollback, NEVER)
    assert steps
    assert len(steps) >= 15
    ran = 1
    found: list[bool] = []
    with flooded(running) as counts:
        for at, step in enumerate(steps, 1):
            before = records_of(running.root.journal)
            assert cut(running, operate.rollback, at) is None
            serials = recovered(running, before)
            assert set(serials.values()) <= {1, 2}
            found.append(serials[Loss.NOTHING] != ran)
            if at % FULL == 0:
                assert _full_boot(other, running.root.state) == serials[Loss.NOTHING]
            assert running.fork(_expire) == 0, said(running)
            assert whole(running) == serials[Loss.NOTHING], step
            ran = serials[Loss.NOTHING]
    assert counts[1] == 0, counts
    assert found == sorted(found)
    assert set(found) == {False, True}
    print(f"{len(steps)} steps of rollback, {len(Loss)} losses at each: {dict(zip(steps, found, strict=True))}")
