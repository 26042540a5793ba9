"""Builds: the same bytes each time, and nothing left of those that fail."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from appliance_image.agent import gpt
from appliance_image.image.build import Wish, build, read_trust
from appliance_image.image.errors import ImageError, LackingError
from appliance_image.image.keys import TEST_SUBJECT, read_key
from appliance_image.image.places import CACHE, PROJECT
from appliance_image.image.uki import sections
from appliance_image.image.workshop import Workshop
from tests.image.built import RELEASE, wish_for_tests
from tests.image.conftest import pair
from tests.lab.small import small_topology

_ELSEWHERE = """
import os, sys
from dataclasses import replace
from pathlib import Path
from appliance_image.agent import gpt
from appliance_image.image.build import build
from appliance_image.image.workshop import Workshop
from tests.image.built import wish_for_tests

os.umask(0o077)
run = Workshop.run
library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
later = {"LD_PRELOAD": library, "FAKETIME": "+500d", "NO_FAKE_STAT": "1"}


def run_later(self, *argv, stdin=None, environment=None):
    # What the loader lists are the libraries of a program, and the one of the clock would be among them.
    clock = {} if "ld-linux" in str(argv[0]) else later
    return run(self, *argv, stdin=stdin, environment={**clock, **(environment or {})})


Workshop.run = run_later
out, key, certificate, authority = sys.argv[1:]
released = Path(authority).read_bytes()
wish = replace(
    wish_for_tests(), offline=True, key=Path(key), certificate=Path(certificate), release_authority=released
)
build(wish, Path(out))
"""
"""Builds while every tool believes that it is a year and a half later."""


@pytest.fixture(scope="module")
def wish() -> Wish:
    return wish_for_tests()


def test_a_second_build_elsewhere_on_another_day_without_network_gives_the_same_bytes(
    image: Path, manifest: Any, tmp_path: Path
) -> None:
    """The disk too, signatures included: RSA signatures of the same key over the same bytes and time are the same."""
    copy = tmp_path / "another folder"
    parts = ("appliance_image", "netpolicy", "ids_rules", "conformance", "packages", "tests/image", "*.csv")
    listing = ["git", "ls-files", "-z", "requirements.lock", "topology.yaml", *parts]
    tracked = subprocess.run(listing, cwd=PROJECT, check=True, capture_output=True).stdout.decode().split("\0")
    for name in filter(None, tracked):
        if (PROJECT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, copy / name)
    given = (image / "private/secure-boot.key", image / "secure-boot.pem", RELEASE / "authority.pem")
    subprocess.run(
        ["unshare", "--net", sys.executable, "-c", _ELSEWHERE, tmp_path / "out", *given],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        check=True,
        timeout=400,
    )
    second = json.loads((tmp_path / "out/image.json").read_text())
    hashes = [{name: each["sha256"] for name, each in found["files"].items()} for found in (manifest, second)]
    assert hashes[0] == hashes[1]
    assert second["roothash"] == manifest["roothash"]


def test_files_are_what_the_manifest_says(image: Path, manifest: Any) -> None:
    for name, each in manifest["files"].items():
        with (image / name).open("rb") as stream:
            assert hashlib.file_digest(stream, "sha256").hexdigest() == each["sha256"]
    assert {path.name for path in image.iterdir()} == {*manifest["files"], "image.json", "private"}


def test_the_kernel_image_is_signed_and_carries_the_root_hash(image: Path, manifest: Any) -> None:
    found = sections((image / "kernel.efi").read_bytes())
    line = found["cmdline"].rstrip(b"\0").decode()
    assert line.split().count(f"netpolicy.roothash={manifest['roothash']}") == 1
    # Its own words: a name that systemd knows would make a generator wait, or configure systemd from outside.
    words = {word.partition("=")[0] for word in line.split()}
    assert not words & {"roothash", "root", "init", "rd.break", "systemd.verity"}
    assert {"systemd.gpt_auto=no", "systemd.import_credentials=no"} <= set(line.split())
    # The certificate table (PE, "attribute certificates") is what signing adds.
    assert (image / "kernel.efi").stat().st_size > (image / "kernel.unsigned.efi").stat().st_size


def test_one_changed_byte_of_the_root_is_found_by_its_hash_tree(image: Path, manifest: Any, shop: Workshop) -> None:
    for name in ("root.erofs", "root.verity"):
        shutil.copyfile(image / name, shop.work / name)
    shop.run("veritysetup", "verify", "root.erofs", "root.verity", manifest["roothash"])
    with (shop.work / "root.erofs").open("r+b") as stream:
        stream.seek(12_345_678)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    with pytest.raises(ImageError, match="veritysetup has failed"):
        shop.run("veritysetup", "verify", "root.erofs", "root.verity", manifest["roothash"])


def test_the_disk_has_two_slots_and_a_state_partition(image: Path, manifest: Any, shop: Workshop) -> None:
    mounted = replace(shop, extra=((image, "/run"),))
    table = gpt.read(image / "disk.raw").partitions
    by_name = {each.label: each for each in table}
    assert list(by_name) == [
        "netpolicy-esp",
        "netpolicy-a",
        "netpolicy-a-tree",
        "netpolicy-b",
        "netpolicy-b-tree",
        "netpolicy-state",
    ]
    assert str(by_name["netpolicy-a"].identity) == manifest["root_uuid"]
    assert str(by_name["netpolicy-a-tree"].identity) == manifest["tree_uuid"]
    assert by_name["netpolicy-a"].size == by_name["netpolicy-b"].size
    start = by_name["netpolicy-esp"].start
    listing = mounted.run("mdir", "-b", "-i", f"/run/disk.raw@@{start}", "::/EFI/Linux").decode()
    assert listing.strip() == f"::/EFI/Linux/netpolicy_{manifest['version']}+3.efi"


def test_a_build_that_fails_leaves_what_was_there(wish: Wish, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "private").mkdir(parents=True)
    (out / "image.json").write_text("{}")
    (tmp_path / "keys").mkdir()
    key, certificate = pair(tmp_path / "keys", "/CN=Ministry")
    with pytest.raises(ImageError, match="says TEST"):
        build(replace(wish, key=key, certificate=certificate), out)
    assert sorted(path.name for path in out.iterdir()) == ["image.json", "private"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "out"]


def test_a_directory_that_is_no_image_is_left_alone(wish: Wish, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ImageError, match="not an image"):
        build(wish, tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "dear"


def test_without_network_and_cache_it_says_what_it_lacks(wish: Wish, tmp_path: Path) -> None:
    with pytest.raises(LackingError, match=r"packages .* cannot be had.*without --offline"):
        build(replace(wish, cache=tmp_path / "cache", offline=True), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("version", ["", "../x", "1+9", "a"])
def test_a_version_that_is_none_is_refused(wish: Wish, tmp_path: Path, version: str) -> None:
    with pytest.raises(ImageError, match="not a version"):
        build(replace(wish, version=version), tmp_path / "out")


def test_test_keys_sign_test_images_only_and_others_only_others(tmp_path: Path, shop: Workshop) -> None:
    found = pair(tmp_path, TEST_SUBJECT)
    assert read_key(*found, shop, test=True).test
    with pytest.raises(ImageError, match="a test key"):
        read_key(*found, shop, test=False)
    found = pair(tmp_path, "/CN=Ministry")
    assert not read_key(*found, shop, test=False).test
    with pytest.raises(ImageError, match="says TEST"):
        read_key(*found, shop, test=True)


def test_other_keys_than_rsa_are_refused(tmp_path: Path, shop: Workshop) -> None:
    found = pair(tmp_path, "/CN=Ministry", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    with pytest.raises(ImageError, match="not an RSA key"):
        read_key(*found, shop, test=False)


def test_trust_is_certificates_of_managers_and_nothing_else(tmp_path: Path) -> None:
    topology = small_topology()
    with pytest.raises(ImageError, match="holds no"):
        read_trust(tmp_path, topology)
    key, certificate = pair(tmp_path, "/CN=Authority")
    found = certificate.rename(tmp_path / "operator.pem")
    assert set(read_trust(tmp_path, topology)) == {"operator.pem"}
    found.rename(tmp_path / "operators.pem")
    with pytest.raises(ImageError, match="the topology has no manager operators"):
        read_trust(tmp_path, topology)
    (tmp_path / "operators.pem").rename(found)
    found.write_bytes(found.read_bytes() + Path(key).read_bytes())
    with pytest.raises(ImageError, match="nothing but certificates"):
        read_trust(tmp_path, topology)


def test_the_cache_holds_no_half_made_root_of_tools() -> None:
    assert not list(CACHE.glob(".tools-*"))
