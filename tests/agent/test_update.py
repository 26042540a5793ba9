"""Image updates: only signed and newer ones, into the other slot; the power is cut at every step."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import uuid
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from appliance_image.agent import durable, gpt, release
from appliance_image.agent import update as updating
from appliance_image.agent.durable import Step
from appliance_image.agent.errors import AgentError
from appliance_image.agent.giveway import give_way
from appliance_image.agent.records import record
from appliance_image.agent.release import AUTHORITY, FILES, KERNEL, ROOT, TREE
from appliance_image.agent.root import Root
from appliance_image.agent.update import SLOTS, Disk, may_give_way, update
from appliance_image.journal import verify
from appliance_image.signing.key import SigningKey
from appliance_image.signing.release import write_update
from netpolicy.pki.authority import Authority, Span, new_key
from netpolicy.pki.purpose import CODE_SIGNING
from tests.agent.cutting import Loss

_MIB = 1 << 20
_SIZES = {"netpolicy-esp": 1, "netpolicy-a": 1, "netpolicy-a-tree": 1, "netpolicy-b": 1, "netpolicy-b-tree": 1}
_IMAGE = re.compile(r"netpolicy_(?P<version>[0-9.]+)(?:\+(?P<left>[0-9]+)(?:-[0-9]+)?)?\.efi")


@dataclass
class Appliance:
    """A disk with image 1.0 in slot A, and releases for it."""

    place: Path
    root: Root
    disk: Disk
    key: SigningKey
    images: dict[str, dict[str, bytes]]
    """By version."""
    authority: Authority
    """Of releases."""

    def release(self, version: str, name: str = "update.tar", *keys: SigningKey, crl: bytes | None = None) -> Path:
        """Write an update."""
        files = {}
        for part, content in self.images[version].items():
            files[part] = self.place / part
            files[part].write_bytes(content)
        path = self.place / name
        write_update(
            path, version, _roothash(self.images[version]), files, keys=keys or [self.key], crl=crl or self.lists()
        )
        return path

    def lists(self, *revoked: SigningKey, life: timedelta = timedelta(days=1)) -> bytes:
        """Return a newer revocation list of the authority of releases."""
        self.authority.revoked += [each.certificate.serial_number for each in revoked]
        self.authority._crl_time = None
        return self.authority.crl(datetime.now(UTC), life=life).public_bytes(Encoding.PEM)

    def boots(self) -> str:
        """Return the version that the next boot has, as boot loader and initrd go about it; it must come up whole."""
        table = gpt.read(self.disk.path)
        names = [_IMAGE.fullmatch(path.name) for path in (self.disk.esp / "EFI/Linux").iterdir()]
        first = max((each for each in names if each and each["left"] != "0"), key=lambda each: each["version"])
        kernel = (self.disk.esp / "EFI/Linux" / first[0]).read_bytes()
        assert kernel == self.images[first["version"]][KERNEL]
        roothash = _roothash(self.images[first["version"]])
        content = self.disk.path.read_bytes()
        for part, identity in ((ROOT, roothash[:32]), (TREE, roothash[32:])):
            (place,) = (each for each in table.partitions if each.identity == uuid.UUID(identity))
            wanted = self.images[first["version"]][part]
            assert content[place.start : place.start + len(wanted)] == wanted
        return str(first["version"])


def _roothash(image: dict[str, bytes]) -> str:
    return hashlib.sha256(image[ROOT] + image[TREE]).hexdigest()


def _image(version: str) -> dict[str, bytes]:
    seed = hashlib.sha256(version.encode()).digest()
    image = {ROOT: seed * (700_000 // 32), TREE: seed[::-1] * 1000}
    return {KERNEL: b"MZ" + seed * 5000 + b" netpolicy.roothash=" + _roothash(image).encode() + b" ", **image}


def _disk(path: Path, roothash: str) -> None:
    """Write a disk of which a partition table is made by the letter of UEFI 2.10, 5.3."""
    sectors = (sum(_SIZES.values()) + 2) * _MIB // gpt.SECTOR
    identities = {"netpolicy-a": roothash[:32], "netpolicy-a-tree": roothash[32:]}
    entries, at = b"", 2048
    for label, size in _SIZES.items():
        identity = uuid.UUID(identities[label]) if label in identities else uuid.uuid4()
        end = at + size * _MIB // gpt.SECTOR
        entries += struct.pack(
            "<16s16sQQQ72s", b"\1" * 16, identity.bytes_le, at, end - 1, 0, label.encode("utf-16-le")
        )
        at = end
    entries = entries.ljust(128 * 128, b"\0")
    with path.open("wb") as stream:
        stream.truncate(sectors * gpt.SECTOR)
        stream.seek(446)
        stream.write(struct.pack("<8B2I", 0, 0, 2, 0, 0xEE, 255, 255, 255, 1, sectors - 1) + bytes(48) + b"\x55\xaa")
        for own, other, place in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)):
            fields = [own, other, 34, sectors - 34, bytes(16), place, 128, 128, zlib.crc32(entries)]
            header = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, 0, *fields)
            header = header[:16] + struct.pack("<I", zlib.crc32(header)) + header[20:]
            stream.seek(own * gpt.SECTOR)
            stream.write(header)
            stream.seek(place * gpt.SECTOR)
            stream.write(entries)
        stream.seek(2048 * gpt.SECTOR + _MIB)
        image = _image("1.0")
        stream.write(image[ROOT])
        stream.seek(2048 * gpt.SECTOR + 2 * _MIB)
        stream.write(image[TREE])


def _signer(authority: Authority, purpose: str, person: str = "release-1") -> SigningKey:
    now, key = datetime.now(UTC), new_key()
    span = Span(now - timedelta(days=1), now + timedelta(days=30))
    return SigningKey(key, authority.operator("Releases", person, key.public_key(), span, purpose), "memory")


@pytest.fixture
def appliance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Appliance:
    """Return an appliance that runs image 1.0 from slot A."""
    for module in (release, updating):
        monkeypatch.setattr(module, "CHUNK", 1 << 17)
    authority = Authority.root("small", datetime.now(UTC) - timedelta(days=3), title="releases")
    root = Root(state=tmp_path / "state", run=tmp_path / "run", share=tmp_path / "share", mounted=False)
    for place in (root.state, root.identity, root.run, root.share, tmp_path / "esp/EFI/Linux"):
        place.mkdir(parents=True)
    (root.share / AUTHORITY).write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    record(root, "boot", outcome="enforcing")
    images = {version: _image(version) for version in ("0.9", "1.0", "1.1")}
    _disk(tmp_path / "disk", _roothash(images["1.0"]))
    disk = Disk(tmp_path / "disk", tmp_path / "esp", _roothash(images["1.0"]), "1.0")
    (disk.esp / "EFI/Linux/netpolicy_1.0.efi").write_bytes(images["1.0"][KERNEL])
    (disk.esp / "EFI/Linux/netpolicy_0.9.efi").write_bytes(images["0.9"][KERNEL])
    return Appliance(tmp_path, root, disk, _signer(authority, CODE_SIGNING), images, authority)


def _update(appliance: Appliance, path: Path, signatures: int = 1) -> updating.Updated:
    return update(appliance.root, path, appliance.disk, signatures=signatures)


def _code(appliance: Appliance, path: Path, signatures: int = 1) -> str:
    """Return the code by which an update is refused."""
    with pytest.raises(AgentError) as refused:
        _update(appliance, path, signatures)
    return refused.value.code


def test_two_persons(appliance: Appliance) -> None:
    """Where two must sign bundles two must sign images, and one person or one key is one."""
    other = _signer(appliance.authority, CODE_SIGNING, "release-2")
    again = _signer(appliance.authority, CODE_SIGNING, "Release-1")
    assert _code(appliance, appliance.release("1.1"), 2) == "too-few-operators"
    assert _code(appliance, appliance.release("1.1", "again.tar", appliance.key, again), 2) == "too-few-operators"
    assert appliance.boots() == "1.0"
    _update(appliance, appliance.release("1.1", "both.tar", appliance.key, other), 2)
    assert appliance.boots() == "1.1"


def test_revoked(appliance: Appliance) -> None:
    """A revoked signer's image is refused, by its own list or by one that was seen before; lists are needed."""
    other = _signer(appliance.authority, CODE_SIGNING, "release-2")
    before = appliance.lists()
    assert _code(appliance, appliance.release("1.1", crl=appliance.lists(life=timedelta(minutes=-1)))) == "stale-crl"
    namesake = Authority.root("small", datetime.now(UTC) - timedelta(days=3), title="releases")
    false = namesake.crl(datetime.now(UTC)).public_bytes(Encoding.PEM)
    assert _code(appliance, appliance.release("1.1", crl=false)) == "false-crl"
    stranger = Authority.root("x", datetime.now(UTC)).crl(datetime.now(UTC)).public_bytes(Encoding.PEM)
    assert _code(appliance, appliance.release("1.1", crl=stranger)) == "no-crl"
    revoking = appliance.lists(appliance.key)
    assert _code(appliance, appliance.release("1.1", crl=revoking)) == "revoked"
    # What another person signed brings the list, and from then on the one before does not help.
    _update(appliance, appliance.release("1.1", "good.tar", other, crl=revoking))
    assert _code(appliance, appliance.release("1.1", crl=before)) == "older-crl"


def test_update(appliance: Appliance) -> None:
    """A newer image is what the next boot tries, and the one that runs is what it would fall back to."""
    assert appliance.boots() == "1.0"
    done = _update(appliance, appliance.release("1.1"))
    assert (done.slot, done.image) == ("netpolicy-b", "netpolicy_1.1+3.efi")
    assert appliance.boots() == "1.1"
    names = {path.name for path in (appliance.disk.esp / "EFI/Linux").iterdir()}
    assert names == {"netpolicy_1.0.efi", "netpolicy_1.1+3.efi"}
    # Tried in vain three times, the boot loader has counted it down.
    (appliance.disk.esp / "EFI/Linux/netpolicy_1.1+3.efi").rename(
        appliance.disk.esp / "EFI/Linux/netpolicy_1.1+0-3.efi"
    )
    assert appliance.boots() == "1.0"


def test_others_read_the_table(appliance: Appliance) -> None:
    """The table that was written is one to util-linux as well."""
    _update(appliance, appliance.release("1.1"))
    said = subprocess.run(
        ["partx", "--raw", "--noheadings", "--output=NAME,UUID", str(appliance.disk.path)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = dict(line.split() for line in said.stdout.splitlines())
    roothash = _roothash(appliance.images["1.1"])
    assert found["netpolicy-b"] == str(uuid.UUID(roothash[:32]))
    assert found["netpolicy-b-tree"] == str(uuid.UUID(roothash[32:]))
    assert set(found) == set(_SIZES)


@pytest.mark.parametrize("name", [*FILES, "manifest.json", "manifest.cms"])
def test_one_byte_changed(appliance: Appliance, name: str) -> None:
    """Whichever file of an update has one byte changed, the next boot has what runs now."""
    path = appliance.release("1.1")
    content = bytearray(path.read_bytes())
    at = content.index(name.encode() + b"\0") + 512 + 40
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(AgentError) as refused:
        _update(appliance, path)
    assert refused.value.code in {"altered", "wrong-signer", "malformed", "false-crl"}
    assert appliance.boots() == "1.0"


def test_refused(appliance: Appliance) -> None:
    """Older, signed by a stranger, by somebody for another purpose, for another root: refused with its reason."""
    before = appliance.disk.path.read_bytes()
    strangers = Authority.root("small", datetime.now(UTC) - timedelta(days=3), title="releases")
    known = appliance.root.share / AUTHORITY
    cases: list[tuple[Callable[[], Path], str]] = [
        (lambda: appliance.release("0.9"), "older-version"),
        (lambda: appliance.release("1.0"), "older-version"),
        (lambda: appliance.release("1.1", "other.tar", _signer(strangers, CODE_SIGNING)), "wrong-signer"),
        (lambda: known, "malformed"),
    ]
    for make, code in cases:
        with pytest.raises(AgentError) as refused:
            _update(appliance, make())
        assert refused.value.code == code
    appliance.images["1.1"][KERNEL] = appliance.images["1.0"][KERNEL]
    with pytest.raises(AgentError) as refused:
        _update(appliance, appliance.release("1.1"))
    assert refused.value.code == "altered"
    assert appliance.disk.path.read_bytes() == before
    assert appliance.boots() == "1.0"


def test_purpose(appliance: Appliance) -> None:
    """An operator's certificate does not sign images, whoever has issued it."""
    authority = Authority.root("small", datetime.now(UTC) - timedelta(days=3), title="releases")
    (appliance.root.share / AUTHORITY).write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    appliance.authority = authority
    with pytest.raises(AgentError, match="not for the signing of code"):
        _update(appliance, appliance.release("1.1", "other.tar", _signer(authority, "1.3.6.1.5.5.7.3.4")))


def test_not_while_unproven(appliance: Appliance) -> None:
    """While the image that runs is on trial the other one stays: it is what there is to fall back to."""
    images = appliance.disk.esp / "EFI/Linux"
    (images / "netpolicy_1.0.efi").rename(images / "netpolicy_1.0+2-1.efi")
    with pytest.raises(AgentError) as refused:
        _update(appliance, appliance.release("1.1"))
    assert refused.value.code == "unproven"
    assert (images / "netpolicy_0.9.efi").exists()


def test_altered_root_leaves_the_fall_back(appliance: Appliance) -> None:
    """What is found altered only at its end was not written: the image before is still there."""
    path, before = appliance.release("1.1"), appliance.disk.path.read_bytes()
    content = path.read_bytes()
    last = appliance.images["1.1"][TREE][-32:]
    path.write_bytes(content[::-1].replace(last[::-1], bytes(32), 1)[::-1])
    with pytest.raises(AgentError) as refused:
        _update(appliance, path)
    assert refused.value.code == "altered"
    assert appliance.disk.path.read_bytes() == before
    assert (appliance.disk.esp / "EFI/Linux/netpolicy_0.9.efi").exists()


@pytest.mark.parametrize(
    ("mine", "other", "gives_way"),
    [
        ("netpolicy_1.0+2-1.efi", "netpolicy_0.9.efi", True),
        ("netpolicy_1.0+0-3.efi", "netpolicy_0.9.efi", True),
        ("netpolicy_1.0.efi", "netpolicy_0.9.efi", False),
        ("netpolicy_1.0+2-1.efi", "netpolicy_0.9+3.efi", False),
        ("netpolicy_1.0+2-1.efi", None, False),
    ],
)
def test_may_give_way(appliance: Appliance, mine: str, other: str | None, gives_way: bool) -> None:
    """Only an image on trial gives way, and only to one that was found healthy."""
    images = appliance.disk.esp / "EFI/Linux"
    (images / "netpolicy_1.0.efi").rename(images / mine)
    before = images / "netpolicy_0.9.efi"
    before.unlink() if other is None else before.rename(images / other)
    assert may_give_way(appliance.root, appliance.disk) is gives_way
    (appliance.root.run / "begun").touch()
    assert not give_way(appliance.root, appliance.disk)


def test_gives_way(appliance: Appliance) -> None:
    """It says and records why, and asks the service manager to start the machine again."""
    images = appliance.disk.esp / "EFI/Linux"
    (images / "netpolicy_1.0.efi").rename(images / "netpolicy_1.0+2-1.efi")
    programs = appliance.place / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" > {appliance.place}/asked\n')
    (programs / "systemctl").chmod(0o755)
    (appliance.place / "console").touch()
    root = replace(appliance.root, path=f"{programs}:{appliance.root.path}", console=appliance.place / "console")
    assert give_way(root, appliance.disk)
    assert (appliance.place / "asked").read_text() == "reboot --no-block --no-ask-password\n"
    assert "image: closed: this image has not come to enforce" in root.console.read_text()


def test_the_root_that_runs_is_in_no_slot(appliance: Appliance) -> None:
    """Where it is unclear which slot runs, none is overwritten."""
    stranger = replace(appliance.disk, roothash="0" * 64)
    (appliance.disk.esp / "EFI/Linux/netpolicy_1.0.efi").write_bytes(b"netpolicy.roothash=" + b"0" * 64)
    with pytest.raises(AgentError, match="in 0 of the slots"):
        update(appliance.root, appliance.release("1.1"), stranger, signatures=1)


@pytest.mark.parametrize("loss", list(Loss))
def test_power_is_cut_while_updating(appliance: Appliance, loss: Loss) -> None:
    """At whichever step, the next boot has the old image or the new one, whole, and no record is lost."""
    path = appliance.release("1.1")
    kept = appliance.place / "kept"
    kept.mkdir()
    shutil.copy(appliance.disk.path, kept / "disk")
    shutil.copytree(appliance.disk.esp, kept / "esp")
    found: list[str] = []
    steps = 0
    while True:
        shutil.copy(kept / "disk", appliance.disk.path)
        shutil.rmtree(appliance.disk.esp)
        shutil.copytree(kept / "esp", appliance.disk.esp)
        steps += 1
        ended = _cut(appliance, path, steps, loss)
        found.append(appliance.boots())
        assert verify(appliance.root.journal) is None
        if ended:
            break
    assert set(found) == {"1.0", "1.1"}
    assert found == sorted(found)
    events = [
        json.loads(line)
        for part in appliance.root.journal.glob("*.jsonl")
        for line in part.read_text().splitlines()
        if line.strip("\0 ")
    ]
    begun = [each for each in events if each["event"] == "image-update" and each["fields"]["outcome"] == "begun"]
    assert len(begun) == steps
    print(f"{steps - 1} cuts of an image update: {found}")


def _cut(appliance: Appliance, path: Path, at: int, loss: Loss) -> bool:
    """Update and cut it before a step; return whether it ended before that."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            durable.before = _Loser(appliance.disk, at, loss).step
            _update(appliance, path)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}
    return code == 0


class _Loser:
    """Cuts before a step, and takes from the disk what was not synced since, or every other sector of it."""

    def __init__(self, disk: Disk, at: int, loss: Loss) -> None:
        self.disk, self.left, self.loss = disk, at, loss
        self.synced = disk.path.read_bytes() if loss is not Loss.NOTHING else b""
        self.names = self._names()
        self.syncing: Path | None = None

    def step(self, step: Step, path: Path) -> None:
        """Be before a step: the one before it is done."""
        if self.syncing == self.disk.path and self.loss is not Loss.NOTHING:
            self.synced = self.disk.path.read_bytes()
        elif self.syncing is not None and self.syncing.is_dir():
            self.names = self._names()
        self.syncing = path if step in {Step.SYNC, Step.SYNC_DIRECTORY} else None
        self.left -= 1
        if self.left == 0:
            self._lose()
            os.kill(os.getpid(), signal.SIGKILL)

    def _names(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.disk.esp / "EFI/Linux").iterdir()}

    def _lose(self) -> None:
        if self.loss is Loss.NOTHING:
            return
        content = bytearray(self.disk.path.read_bytes())
        if content != self.synced:
            for at in range(0, len(content), 2 * gpt.SECTOR if self.loss is Loss.TORN else gpt.SECTOR):
                content[at : at + gpt.SECTOR] = self.synced[at : at + gpt.SECTOR]
            self.disk.path.write_bytes(content)
        if self.loss is Loss.UNSYNCED:
            place = self.disk.esp / "EFI/Linux"
            for path in place.iterdir():
                path.unlink()
            for name, held in self.names.items():
                (place / name).write_bytes(held)


def test_slots() -> None:
    """The slots are those of the image."""
    assert SLOTS == ("netpolicy-a", "netpolicy-b")
