"""Whatever a medium holds, it is taken whole or refused with a reason: no boot waits for it, none is closed by it."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from appliance_image.agent import media
from appliance_image.agent.adopt import adopt_from
from appliance_image.agent.errors import AgentError
from appliance_image.agent.identity import Identity
from appliance_image.agent.root import Root
from appliance_image.agent.state import State
from appliance_image.bundle import Bundle
from appliance_image.bundle.archive import BUNDLE_BYTES
from tests.agent.making import FIREWALL, MANAGER, NETWORK, Operator, files_of
from tests.agent.world import World

_SECONDS = 5.0
_MORE_MEMORY = 256 << 10
"""KiB, with openssl's children left out: a bundle may be in memory twice."""


def _link_to(target: str) -> Callable[[Path], object]:
    return lambda place: (place / "x.bundle").symlink_to(target)


def _socket(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(place)  # the whole path is longer than a socket's name may be
        listener.bind("x.bundle")
        os.chdir(here)


def _sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def _many(place: Path) -> None:
    for number in range(media._ENTRIES + 1):
        (place / f"{number}").touch()


def _strange(place: Path) -> None:
    for name in (b"a\nb.bundle", b"\xff\xfe.bundle", b"x" * 248 + b".bundle", "\u202ecod.bundle".encode()):
        Path(os.fsdecode(os.fsencode(place) + b"/" + name)).write_bytes(b"nothing")


def _one_strange(place: Path) -> None:
    Path(os.fsdecode(os.fsencode(place) + b"/\xff\n\x1b[2J.bundle")).symlink_to("/dev/zero")


_MEDIA: dict[str, tuple[str, Callable[[Path], object]]] = {
    "endless device": ("unreadable", _link_to("/dev/zero")),
    "link to a file": ("unreadable", _link_to("/etc/hostname")),
    "link to nothing": ("unreadable", _link_to("/nowhere")),
    "link to itself": ("unreadable", _link_to("x.bundle")),
    "link to a directory above": ("unreadable", _link_to("..")),
    "fifo": ("unreadable", lambda place: os.mkfifo(place / "x.bundle")),
    "directory": ("unreadable", lambda place: (place / "x.bundle").mkdir()),
    "socket": ("unreadable", _socket),
    "device": ("unreadable", lambda place: os.mknod(place / "x.bundle", 0o020666, os.makedev(1, 5))),
    "block device": ("unreadable", lambda place: os.mknod(place / "x.bundle", 0o060666, os.makedev(7, 250))),
    "terabyte": ("unreadable", lambda place: _sparse(place / "x.bundle")),
    "empty": ("malformed", lambda place: (place / "x.bundle").touch()),
    "nothing": ("no-bundle", lambda _place: None),
    "names without end": ("malformed", _many),
    "strange names": ("no-bundle", _strange),
    "one strange name": ("unreadable", _one_strange),
}


def _inside(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def made(place: Path) -> None:
        place.mkdir()
        make(place / name)

    return made


def _thirty_three(place: Path) -> None:
    for number in range(33):
        (place.with_name(f"{number}")).touch()


_IDENTITIES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "link to a directory": ("unreadable", lambda place: place.symlink_to("/etc")),
    "link to itself": ("unreadable", lambda place: place.symlink_to("identity")),
    "fifo": ("unreadable", os.mkfifo),
    "file": ("unreadable", lambda place: place.write_bytes(b"")),
    "link inside": ("unreadable", _inside("key.pem", lambda place: place.symlink_to("/etc/shadow"))),
    "fifo inside": ("unreadable", _inside("key.pem", os.mkfifo)),
    "device inside": ("unreadable", _inside("chain.pem", lambda place: place.symlink_to("/dev/zero"))),
    "directory inside": ("unreadable", _inside("chain.pem", Path.mkdir)),
    "too many": ("malformed", _inside("x", _thirty_three)),
    "too large": ("unreadable", _inside("crl.pem", _sparse)),
    "strange name": ("malformed", _inside("a\nb", Path.touch)),
}
_Appliance = tuple[Root, Identity, State, Path]


@pytest.fixture(name="appliance")
def _appliance(world: World, both: Bundle) -> _Appliance:
    """Return an appliance whose bundle was confirmed, and an empty medium."""
    world.install(both)
    root = replace(world.root, mounted=False)
    state = State(root)
    state.prepare()
    medium = world.place / "stick"
    medium.mkdir()
    identity = Identity(NETWORK, FIREWALL, MANAGER, 1, {})
    return root, identity, state, medium


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _holds(appliance: _Appliance, world: World, code: str) -> None:
    """Hold that a medium is refused at once, with this code, journalled, and that the bundle before is the one."""
    root, identity, state, medium = appliance
    before, began = _memory(), time.monotonic()
    refused = adopt_from(root, medium, identity, state)
    assert time.monotonic() - began < _SECONDS
    assert _memory() - before < _MORE_MEMORY
    assert isinstance(refused, AgentError)
    assert refused.code == code, refused.text
    assert refused.text.isprintable()
    fields = [each["fields"] for each in world.records() if each["event"] == "refused"][-1]
    assert (fields["code"], fields["source"], fields["reason"]) == (code, "medium", refused.text)
    current = State(root).current
    assert current is not None
    assert current.serial == 1
    assert State(root).pending is None


def _emptied(appliance: _Appliance) -> Path:
    shutil.rmtree(appliance[3])
    appliance[3].mkdir()
    return appliance[3]


def test_odd_bundles_are_refused_at_once(appliance: _Appliance, world: World) -> None:
    """No link is followed, nothing but a plain file is read, and no more of it than a bundle may have."""
    for what, (code, make) in _MEDIA.items():
        make(_emptied(appliance))
        print(what)
        _holds(appliance, world, code)


def test_odd_identities_are_refused_at_once(appliance: _Appliance, world: World, operator: Operator) -> None:
    """A good and newer bundle is not adopted with an identity that cannot be read whole."""
    newer = operator.bundle(files_of("manage"), 2).content
    for what, (code, make) in _IDENTITIES.items():
        medium = _emptied(appliance)
        (medium / "x.bundle").write_bytes(newer)
        make(medium / "identity")
        print(what)
        _holds(appliance, world, code)


def test_a_file_that_grows_is_refused(appliance: _Appliance, world: World) -> None:
    """However long it is when it is opened, no more than a bundle's bytes are read."""
    path = appliance[3] / "x.bundle"
    path.write_bytes(bytes(BUNDLE_BYTES))
    enough = threading.Event()

    def grow() -> None:
        with path.open("ab") as stream:
            while not enough.is_set():
                stream.write(bytes(1 << 16))
                stream.flush()
                time.sleep(0.001)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        time.sleep(0.05)
        _holds(appliance, world, "unreadable")
    finally:
        enough.set()
        thread.join()


def test_boot_after_an_odd_medium_enforces(world: World, both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that was confirmed runs, and the console says what was wrong with the medium."""
    world.install(both)
    medium = world.place / "stick"
    medium.mkdir()
    (medium / "x.bundle").symlink_to("/dev/zero")
    monkeypatch.setattr(media, "find", lambda: (medium, "none"))
    monkeypatch.setattr(media, "mounted", _there)
    world.power_on()
    assert world.boot(), world.console()
    assert world.exchange()
    assert any("medium refused: unreadable: the medium's 'x.bundle'" in line for line in world.console())


def _there(_root: Root, place: Path, _kind: str) -> nullcontext[Path]:
    return nullcontext(place)


def test_partition_names_are_any_bytes(tmp_path: Path) -> None:
    """The kernel passes on letters of Latin-1 in a partition's name (block/partitions/efi.c): no error of UTF-8."""
    (tmp_path / "uevent").write_bytes(b"MAJOR=8\nPARTNAME=\xe9t\xe9\n")
    assert media._partition_name(tmp_path) == "\N{REPLACEMENT CHARACTER}t\N{REPLACEMENT CHARACTER}"
