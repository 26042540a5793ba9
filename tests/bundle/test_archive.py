"""The file that a bundle is: one form only, and nothing of it is left to chance."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance_image.bundle import Bundle, Code, Refused, read, read_bytes
from appliance_image.bundle.archive import BUNDLE_BYTES, ENTRIES, write
from appliance_image.bundle.manifest import MANIFEST_BYTES, parse
from tests.bundle.making import ONE, TWO, Site

_ROUNDS = 200


def _tar(bundle: Bundle, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> bytes:
    """Return a bundle's members as another tar, made by tarfile after a change."""
    with tarfile.open(fileobj=io.BytesIO(bundle.content)) as archive:
        members = [(entry, (archive.extractfile(entry) or io.BytesIO()).read()) for entry in archive]
    change(members)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry, content in members:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    # tarfile fills up to a record; a bundle ends with its two empty blocks.
    return out.getvalue().rstrip(b"\0") + bytes(-len(out.getvalue().rstrip(b"\0")) % 512 + 1024)


def _add(name: str, **fields: object) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        entry = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(entry, field, value)
        members.append((entry, b""))
        members.sort(key=lambda member: member[0].name)

    return change


def _set(**fields: object) -> Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]:
    def change(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        for field, value in fields.items():
            setattr(members[0][0], field, value)

    return change


def test_same_parts_same_bytes(site: Site) -> None:
    """A bundle of the same build, order and list has the same bytes."""
    crl = site.crl()
    assert site.order(ONE, crl=crl).content == site.order(ONE, crl=crl).content


def test_tar_reads_it(site: Site) -> None:
    """It is a tar of plain files, as every tar lists it: sorted, without a time and without an owner."""
    bundle = site.signed(TWO, [site.person("sato")])
    with tarfile.open(fileobj=io.BytesIO(bundle.content)) as archive:
        entries = archive.getmembers()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {"manifest.json", "manifest.cms", "operators.crl", "files/nftables.nft"} <= set(names)
    assert {(entry.mtime, entry.uid, entry.gid, entry.uname, entry.isreg()) for entry in entries} == {
        (0, 0, 0, "", True)
    }


def test_read_from_a_file(site: Site, tmp_path: Path) -> None:
    """What is read from a file is what was written."""
    bundle = site.order(ONE)
    path = tmp_path / "one.bundle"
    path.write_bytes(bundle.content)
    assert read(path) == bundle


@pytest.mark.parametrize(
    "change",
    [
        _add("files/link", type=tarfile.SYMTYPE, linkname="nftables.nft"),
        _add("files/hard", type=tarfile.LNKTYPE, linkname="files/nftables.nft"),
        _add("files/node", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        _add("files/directory", type=tarfile.DIRTYPE),
        _add("files/extra"),
        _add("extra"),
        _add("/etc/passwd"),
        _add("files/../../etc/passwd"),
        _add("manifest.json"),
        _add("files/nftables.nft"),
        lambda members: members.reverse(),
        lambda members: members.pop(),
        lambda members: members.pop(0),
        _set(mtime=1),
        _set(mode=0o755),
        _set(uid=1),
        _set(uname="root"),
    ],
    ids=[
        "symbolic-link",
        "hard-link",
        "device",
        "directory",
        "file-too-many",
        "member-too-many",
        "absolute",
        "upwards",
        "manifest-twice",
        "file-twice",
        "other-order",
        "without-revocation-list",
        "without-a-file",
        "time",
        "mode",
        "owner",
        "owner-name",
    ],
)
def test_other_archives(site: Site, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    """Links, devices, stray paths, members twice, too many, too few or in another order: none is a bundle."""
    bundle = site.signed(ONE, [site.person("sato")])
    assert read_bytes(_tar(bundle, lambda _: None)) == bundle
    with pytest.raises(Refused) as refused:
        read_bytes(_tar(bundle, change))
    assert refused.value.code == Code.MALFORMED


def test_cut_off_longer_or_packed(site: Site) -> None:
    """A part of a bundle is none, nor is one with something behind it, a compressed one, or nothing."""
    content = site.order(ONE).content
    for other in (
        *(content[:size] for size in (0, 1, 511, 512, 513, len(content) // 2, len(content) - 1024, len(content) - 1)),
        content + b"\0",
        content + bytes(512),
        content + content,
        gzip.compress(content),
        bytes(1024),
    ):
        with pytest.raises(Refused) as refused:
            read_bytes(other)
        assert refused.value.code in {Code.MALFORMED, Code.ALTERED}


def test_too_large(site: Site) -> None:
    """What is larger than a bundle may be is not looked into, and neither is one of too many members."""
    with pytest.raises(Refused, match="bytes"):
        read_bytes(bytes(BUNDLE_BYTES + 1))
    bundle = site.order(ONE)
    many = {f"f{number:05}": b"" for number in range(ENTRIES)}
    with pytest.raises(Refused, match="members"):
        read_bytes(write(bundle.manifest, None, bundle.crl, many))
    with pytest.raises(Refused, match="bytes"):
        parse(b" " * (MANIFEST_BYTES + 1))


def test_any_bit(site: Site) -> None:
    """No bit of a bundle can be another one: 200 places, headers and padding among them."""
    bundle = site.signed(TWO, [site.person("sato"), site.person("suzuki")])
    chance = random.Random(5)  # noqa: S311 - places to try, the same ones every time
    for _ in range(_ROUNDS):
        place = chance.randrange(len(bundle.content))
        changed = bytearray(bundle.content)
        changed[place] ^= 1 << chance.randrange(8)
        with pytest.raises(Refused):
            site.verify(read_bytes(bytes(changed)), firewall=TWO, signatures=2)


def test_manifest_has_one_form(site: Site) -> None:
    """The same manifest written in another way is refused, and so are keys that stand twice or are not known."""
    content = site.order(ONE).manifest_json
    plain = json.loads(content)
    assert parse(content).emit() == content
    others = [
        json.dumps(plain, sort_keys=True).encode() + b"\n",
        json.dumps(dict(reversed(plain.items())), indent=2).encode() + b"\n",
        content + b"\n",
        content.replace(b'"format": 1', b'"format": 1, "format": 1'),
        content.replace(b'"format": 1', b'"format": 2'),
        content.replace(b'"format": 1', b'"format": true'),
        content.replace(b'"serial": 7', b'"serial": 7.0'),
        content.replace(b'"serial": 7', b'"serial": 0'),
        content.replace(b'"serial": 7', b'"serial": NaN'),
        content.replace(b'"serial": 7', b'"serial": ' + b"7" * 5000),
        content.replace(b'"signatures": 1', b'"signatures": 3'),
        content.replace(b'"signatures": 1', b'"signatures": 0'),
        content.replace(ONE.encode(), b"../tokyo"),
        b"[" * 100_000,
        b"{}",
        b"null",
        b"\xff",
        b"",
    ]
    others += [_form({name: value for name, value in plain.items() if name != key}) for key in plain]
    others += [_form({**plain, key: None}) for key in plain]
    others.append(_form({**plain, "more": 1}))
    paths = [
        "/nftables.nft",
        "../x",
        "a/../b",
        "a//b",
        "./a",
        ".hidden",
        "a/",
        "",
        "a\\b",
        "é",
        "a" * 100,
        "ip.batch/x",
    ]
    others += [_form({**plain, "files": {**plain["files"], path: {"sha256": "0" * 64, "size": 1}}}) for path in paths]
    assert _form(plain) == content
    for other in others:
        assert other != content
        with pytest.raises(Refused) as refused:
            parse(other)
        assert refused.value.code == Code.MALFORMED


def _form(plain: dict[str, object]) -> bytes:
    return json.dumps(plain, indent=2, sort_keys=True).encode() + b"\n"


def test_refusals_are_fit_for_a_terminal() -> None:
    """What an attacker wrote does not steer the terminal of whoever reads the refusal."""
    with pytest.raises(Refused) as refused:
        parse(b'{"\\u001b[2J": 1}')
    assert refused.value.text.isprintable()
