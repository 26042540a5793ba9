"""What is in the test image, and what is not."""

from __future__ import annotations

import ast
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from appliance_image.image.contents import vulnerabilities
from appliance_image.image.errors import ImageError
from appliance_image.image.own import SITE, needed
from appliance_image.image.workshop import Workshop
from netpolicy.topology.load import load_topology
from tests.image.built import lock_for_tests
from tests.image.conftest import openssl

_MIB = 1 << 20

_ALL, _ROOT = "0666", "0600"
SOCKETS = {
    "netpolicy-operate.socket": ({"Stream /run/netpolicy/management.sock"}, "0660"),
    "syslog.socket": ({"Datagram /run/systemd/journal/syslog"}, _ALL),
    "systemd-bootctl.socket": ({"Stream /run/systemd/io.systemd.BootControl"}, _ROOT),
    "systemd-initctl.socket": ({"FIFO /run/initctl"}, _ROOT),
    "systemd-journald-audit.socket": ({"Netlink audit 1"}, ""),
    "systemd-journald-dev-log.socket": ({"Datagram /run/systemd/journal/dev-log"}, _ALL),
    "systemd-journald-varlink@.socket": ({"Stream /run/systemd/journal.%i/io.systemd.journal"}, _ROOT),
    "systemd-journald.socket": (
        {"Datagram /run/systemd/journal/socket", "Stream /run/systemd/journal/stdout"},
        _ALL,
    ),
    "systemd-journald@.socket": (
        {f"{kind} /run/systemd/journal.%i/{name}" for kind, name in (
            ("Stream", "stdout"), ("Datagram", "socket"), ("Datagram", "dev-log"),
        )},
        _ALL,
    ),
    "systemd-udevd-control.socket": ({"SequentialPacket /run/udev/control"}, _ROOT),
    "systemd-udevd-kernel.socket": ({"Netlink kobject-uevent 1"}, ""),
}  # fmt: skip
"""What units listen on, and its mode (systemd.socket(5)): all may write to the system's log, which is in memory."""


def test_it_is_small(manifest: Any) -> None:
    assert manifest["files"]["root.erofs"]["size"] <= 120 * _MIB
    assert manifest["files"]["disk.raw"]["on_disk"] <= 200 * _MIB


def test_no_file_gives_rights_or_is_writable_for_others(root: Path) -> None:
    wrong = [path for path in root.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o6022]
    assert not wrong


def test_there_is_no_shell_no_package_manager_and_no_other_interpreter(root: Path) -> None:
    programs = {path.name for each in ("bin", "sbin", "local/bin") for path in root.glob(f"usr/{each}/*")}
    # The test image's console; nothing else makes it differ.
    programs -= {"busybox", "ss", "systemd-analyze"}
    assert programs == {
        "e2fsck", "fsck.ext4", "haproxy", "ip", "journalctl", "kmod", "mke2fs", "mkfs.ext4", "modprobe", "mount", "nft",
        "openssl", "python3", "python3.13", "resize2fs", "suricata", "systemctl", "systemd-notify", "systemd-tmpfiles",
        "udevadm", "umount",
    }  # fmt: skip
    for gone in ("etc/apt", "var/lib/dpkg", "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/lib/apt"):
        assert not (root / gone).exists()


def test_nobody_can_log_in(root: Path) -> None:
    for line in (root / "etc/shadow").read_text().splitlines():
        assert line.split(":")[1] == "!*"
    for line in (root / "etc/passwd").read_text().splitlines():
        assert line.endswith(":/usr/sbin/nologin")
    names = {path.name for path in (root / "usr/lib/systemd/system").rglob("*")}
    assert not [
        name for name in names if "getty" in name or "ssh" in name or name.startswith(("debug-shell", "rescue.s"))
    ]


def test_every_program_and_library_finds_the_libraries_it_needs(root: Path) -> None:
    libraries = {path.name for path in root.glob("usr/lib/x86_64-linux-gnu/**/*.so*")}
    libraries |= {path.name for path in root.glob("usr/lib/systemd/*.so")} | {"ld-linux-x86-64.so.2"}
    lacking = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.endswith(".ko.xz"):
            missing = _needed(path) - libraries
            if missing:
                lacking[str(path.relative_to(root))] = missing
    assert not lacking


def test_the_inventory_is_that_of_the_topology(root: Path, manifest: Any) -> None:
    topology = load_topology(Path("topology.yaml")).topology
    found = json.loads((root / "usr/share/netpolicy/inventory.json").read_text())
    assert found["network"] == topology.id
    assert set(found["firewalls"]) == set(topology.firewalls)
    for name, firewall in topology.firewalls.items():
        assert found["firewalls"][name]["managed_by"] == firewall.managed_by
        assert found["firewalls"][name]["interfaces"] == {each.name: each.mac for each in firewall.interfaces}
    assert {path.stem for path in (root / "usr/share/netpolicy/trust").iterdir()} == set(topology.managers)
    assert manifest["network"] == topology.id
    assert manifest["firewalls"] == sorted(topology.firewalls)
    assert manifest["trust"] == sorted(topology.managers)


def test_the_modules_of_this_repository_are_there_and_need_nothing_else(root: Path) -> None:
    there = {str(path.relative_to(root / SITE)) for path in (root / SITE).rglob("*.py")}
    ours = {path for path in there if path.partition("/")[0] in {"appliance_image", "netpolicy", "ids_rules"}}
    assert ours == set(needed())
    assert "appliance_image/agent/__main__.py" in ours
    assert not [
        path for path in ours if path.startswith(("appliance_image/image", "netpolicy/cli", "appliance_image/vm"))
    ]


def test_a_module_that_needs_what_an_appliance_lacks_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "appliance_image"
    (package / "agent").mkdir(parents=True)
    for path in (package / "__init__.py", package / "agent/__init__.py"):
        path.touch()
    (package / "agent/a.py").write_text("def later():\n    import yaml\n")
    assert set(needed(tmp_path, ["appliance_image.agent"])) == {
        "appliance_image/__init__.py", "appliance_image/agent/__init__.py", "appliance_image/agent/a.py",
    }  # fmt: skip
    (package / "agent/a.py").write_text("import yaml\n")
    with pytest.raises(ImageError, match=r"a\.py imports yaml"):
        needed(tmp_path, ["appliance_image.agent"])


def test_python_finds_its_modules_compiled_and_does_not_look_at_the_source(root: Path) -> None:
    for path in (root / SITE).rglob("*.py"):
        compiled = path.parent / "__pycache__" / f"{path.stem}.cpython-313.pyc"
        ast.parse(path.read_text("utf-8"))
        # PEP 552: bit 0, by hash; bit 1 not set, never checked.
        assert struct.unpack("<I", compiled.read_bytes()[4:8]) == (1,)


def test_everything_of_the_agent_imports_in_the_image(root: Path) -> None:
    names = sorted(path.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for path in needed())
    code = f"import importlib\nfor name in {[n for n in names if '__main__' not in n]}: importlib.import_module(name)"
    pid = os.fork()
    if pid == 0:
        os.chroot(root)
        os.chdir("/")
        os.execv("/usr/bin/python3", ["python3", "-I", "-c", code])  # noqa: S606
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_units_are_there_and_the_firewall_is_what_is_started(root: Path) -> None:
    system = root / "usr/lib/systemd/system"
    assert (system / "default.target").readlink() == Path("netpolicy.target")
    for path in Path("appliance_image/agent/units").glob("netpolicy*"):
        assert (system / path.name).read_bytes() == path.read_bytes()
    assert not (system / "nftables.service").exists()


def test_the_only_sockets_that_units_open_are_these(root: Path) -> None:
    """None is of a network; who may speak to one of ours is root and the unit that speaks with operators."""
    found = {}
    for path in (root / "usr/lib/systemd/system").glob("*.socket"):
        if path.is_symlink():
            continue
        settings = [line.partition("=") for line in path.read_text("utf-8").splitlines() if "=" in line]
        listens = {f"{key.removeprefix('Listen')} {value}" for key, _, value in settings if key.startswith("Listen")}
        found[path.name] = (listens, {key: value for key, _, value in settings}.get("SocketMode", ""))
    assert found == SOCKETS
    ours = (root / "usr/lib/systemd/system/netpolicy-operate.socket").read_text("utf-8").splitlines()
    assert {"SocketUser=root", "SocketGroup=netpolicy"} <= set(ours)


def test_the_users_are_these(root: Path) -> None:
    """One for each daemon, none with a shell, and none in the group of another."""
    users = [line.split(":") for line in (root / "etc/passwd").read_text("utf-8").splitlines()]
    assert {words[0]: int(words[2]) for words in users} == {
        "root": 0,
        "daemon": 1,
        "haproxy": 101,
        "suricata": 102,
        "netpolicy": 103,
        "nobody": 65534,
    }
    assert all(not line.rpartition(":")[2] for line in (root / "etc/group").read_text("utf-8").splitlines())
    daemons = [int(words[3]) for words in users if words[0] in {"haproxy", "suricata", "netpolicy"}]
    assert len(set(daemons)) == len(daemons)


def test_the_bill_of_materials_names_every_package_with_its_hash(image: Path) -> None:
    text = (image / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    found = {(each["name"], each.get("version"), each["hashes"][0]["content"]) for each in bill["components"]}
    assert {(each.name, each.version, each.sha256) for each in lock_for_tests().of("root").packages} <= found
    names = {each["name"] for each in bill["components"]}
    assert {"oxidd", "busybox-static", "systemd-boot-efi", "appliance_image/agent/__main__.py"} <= names
    references = [each["bom-ref"] for each in bill["components"]]
    assert len(references) == len(set(references))


def test_known_vulnerabilities_are_looked_up_in_a_feed_and_its_absence_is_told(tmp_path: Path, shop: Workshop) -> None:
    packages = lock_for_tests().of("root").packages
    assert vulnerabilities(packages, None, shop)["feed"] is None
    feed = tmp_path / "trixie"
    text = (
        "VERSION 1\nCVE-2099-0001,,a bug\nCVE-2099-0002,,one that is mended\n\n"
        "haproxy,0, M?F,99:1,\nhaproxy,1, M?F,0.1,\n\nhaproxy,haproxy\n\n"
    )
    feed.write_bytes(zlib.compress(text.encode()))
    assert vulnerabilities(packages, feed, shop)["found"] == {"CVE-2099-0001": ["haproxy"]}


def test_what_is_no_feed_is_refused(tmp_path: Path, shop: Workshop) -> None:
    (tmp_path / "feed").write_text("<html>")
    with pytest.raises(ImageError, match="not data of debsecan"):
        vulnerabilities((), tmp_path / "feed", shop)


def test_the_certificate_says_that_it_is_a_test_key(image: Path, manifest: Any) -> None:
    assert manifest["test"] is True
    assert "TEST KEY" in openssl("x509", "-noout", "-subject", "-in", image / "secure-boot.pem")
    assert {path.stat().st_mode & 0o777 for path in (image / "private").iterdir()} == {0o600}
    assert (image / "private").stat().st_mode & 0o777 == 0o700


def _needed(path: Path) -> set[str]:
    """Return the DT_NEEDED entries of an ELF file (64 bit, little-endian); none of what is no ELF file."""
    raw = path.read_bytes()
    if raw[:6] != b"\x7fELF\x02\x01":
        return set()
    at, size, count = struct.unpack_from("<Q", raw, 0x20)[0], *struct.unpack_from("<HH", raw, 0x36)
    segments = [struct.unpack_from("<IIQQQQQQ", raw, at + size * n) for n in range(count)]
    loads = [(virtual, offset, length) for kind, _, offset, virtual, _, length, _, _ in segments if kind == 1]
    names, strings = [], 0
    for kind, _, offset, _, _, length, _, _ in segments:
        if kind == 2:
            for place in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", raw, place)
                if tag == 1:
                    names.append(value)
                elif tag == 5:
                    strings = next(
                        value - virtual + start for virtual, start, size in loads if virtual <= value < virtual + size
                    )
    return {raw[strings + name : raw.index(b"\0", strings + name)].decode() for name in names}
