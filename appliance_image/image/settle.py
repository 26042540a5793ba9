"""What makes an extracted root a system of its own: users, settings, kernel modules, units."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from appliance_image.image.errors import ImageError
from appliance_image.image.workshop import Workshop

_EMPTY = (
    "dev", "proc", "run", "sys", "tmp", "var", "root", "state", "efi", "boot", "etc/haproxy", "etc/suricata"
)  # fmt: skip
"""Where something is mounted at boot."""

_NOBODY = 65534
_USERS = {
    # name: (number, home)
    "root": (0, "/root"),
    "daemon": (1, "/usr/sbin"),
    "haproxy": (101, "/nonexistent"),
    "suricata": (102, "/nonexistent"),
    "netpolicy": (103, "/nonexistent"),
    "nobody": (_NOBODY, "/nonexistent"),
}
_GROUPS = {
    "root": 0, "daemon": 1, "adm": 4, "tty": 5, "disk": 6, "lp": 7, "kmem": 15, "dialout": 20, "cdrom": 24, "tape": 26,
    "audio": 29, "utmp": 43, "video": 44, "haproxy": 101, "suricata": 102, "netpolicy": 103, "input": 104, "sgx": 105,
    "kvm": 106, "render": 107, "clock": 108, "systemd-journal": 109, "nogroup": 65534,
}  # fmt: skip
"""Those that rules of udev name, and one for each user."""

_MODULES = (
    "arch/x86/crypto", "crypto", "lib", "mm",
    "drivers/acpi", "drivers/ata", "drivers/block", "drivers/char", "drivers/firmware", "drivers/hv",
    "drivers/md", "drivers/net/ethernet", "drivers/net/phy", "drivers/net/mdio", "drivers/net/hyperv",
    "drivers/net/vmxnet3", "drivers/net/bonding", "drivers/net/veth.ko.xz", "drivers/net/virtio_net.ko.xz",
    "drivers/net/net_failover.ko.xz", "drivers/net/dummy.ko.xz", "drivers/net/ifb.ko.xz",
    "drivers/nvme", "drivers/pci", "drivers/platform", "drivers/ptp", "drivers/pps", "drivers/scsi", "drivers/virtio",
    "drivers/watchdog", "drivers/thermal", "drivers/dca", "drivers/mmc", "drivers/usb/host", "drivers/usb/storage",
    "drivers/usb/core", "drivers/usb/common", "drivers/hwmon", "drivers/i2c", "drivers/power", "drivers/powercap",
    "fs/autofs", "fs/efivarfs", "fs/erofs", "fs/ext4", "fs/fat", "fs/nls", "fs/netfs", "fs/pstore", "fs/jbd2",
    "fs/mbcache.ko.xz",
    "net/802", "net/8021q", "net/core", "net/ipv4", "net/ipv6", "net/llc", "net/netfilter", "net/netlink",
    "net/packet", "net/sched", "net/xdp", "net/psample",
)  # fmt: skip
"""Kernel modules, below kernel/; protocols and file systems that no appliance speaks are not there to be loaded."""

_MODULES_GONE = (
    "arp*", "ebt*", "ip6_tables*", "ip6t*", "ip_set*", "ip_tables*", "ip_vs*", "ipt_*", "iptable_*", "ip6table_*",
    "nf_conntrack_[a-mo-z]*", "nf_conntrack_netbios*", "nf_nat_*", "nft_compat*", "nfp.ko*", "sr_mod*", "x_tables*",
    "xt_*",
)  # fmt: skip
"""Of those, not these: the older tables, helpers that open ports by what is said on a connection, and the cards of
Netronome, whose firmware (143 MB) is larger than all the rest."""

_UNITS_GONE = (
    "getty*", "serial-getty@*", "console-getty*", "container-getty*", "debug-shell*", "emergency.service",
    "rescue.service", "systemd-networkd*", "systemd-network-generator*", "systemd-logind*", "systemd-userdbd*",
    "systemd-homed*", "systemd-hostnamed*", "systemd-localed*", "systemd-timedated*", "systemd-hwdb-update*",
    "systemd-firstboot*", "systemd-pcr*", "systemd-tpm2-setup*", "systemd-confext*", "systemd-sysext*",
    "systemd-creds*", "systemd-mountfsd*", "systemd-nsresourced*", "systemd-storagetm*", "systemd-ask-password*",
    "systemd-battery-check*", "systemd-hibernate*", "systemd-suspend*", "systemd-hybrid*", "systemd-sysupdate*",
    "systemd-ssh*", "ssh*", "systemd-binfmt*", "systemd-bsod*", "systemd-boot-random-seed*", "systemd-boot-update*",
    "systemd-boot-clear*", "systemd-quotacheck*", "systemd-volatile-root*", "systemd-vconsole*", "systemd-sysusers*",
    "systemd-machine-id-commit*", "systemd-repart*", "systemd-update-done*", "systemd-journal-catalog-update*",
    "systemd-coredump*", "systemd-kexec*", "systemd-portabled*", "systemd-importd*", "systemd-machined*", "user@*",
    "user-runtime-dir@*", "ldconfig*", "ctrl-alt-del.target", "proc-sys-fs-binfmt_misc*", "autovt@*",
    "nftables.service", "haproxy.service", "suricata.service", "e2scrub*", "systemd-rfkill*", "systemd-backlight*",
    "quotaon*", "dbus*", "system-update*", "procps*", "systemd-growfs*", "systemd-time-wait-sync*",
    "multi-user.target.wants", "dev-hugepages*", "dev-mqueue*", "sys-fs-fuse*", "sys-kernel-*", "run-lock*",
    "systemd-udev-load-credentials*", "systemd-update-utmp*", "systemd-random-seed*", "systemd-journal-flush*",
    "initrd*", "systemd-debug-generator*", "systemd-tmpfiles-clean*", "exit.target", "systemd-exit*", "smartcard*",
    "printer.target", "sound.target", "bluetooth.target", "remote-*", "rpcbind*", "getty.target*", "graphical.target",
)  # fmt: skip
"""Units of packages that an appliance never starts: nobody logs in, nothing is configured on it."""

_GENERATORS_KEPT = ("systemd-fstab-generator", "systemd-bless-boot-generator")

_FILES = Path(__file__).parent / "files"
_UNIT_KINDS = (".service", ".target", ".mount", ".path", ".timer", ".socket", ".slice")

_PROGRAMS = frozenset(
    {"e2fsck", "fsck.ext4", "haproxy", "ip", "journalctl", "kmod", "mke2fs", "mkfs.ext4", "modprobe", "mount", "nft",
     "openssl", "python3", "python3.13", "resize2fs", "suricata", "systemctl", "systemd-notify",
     "systemd-tmpfiles",
     "udevadm", "umount"}
)  # fmt: skip
"""The only programs of /usr/bin and /usr/sbin that stay: no shell among them."""
_TEST_PROGRAMS = frozenset({"ss", "systemd-analyze"})
"""Those that tests measure with."""

_FILES_GONE = (
    "usr/lib/systemd/boot", "usr/lib/systemd/systemd-measure", "usr/lib/systemd/systemd-networkd*",
    "usr/lib/systemd/systemd-logind", "usr/lib/systemd/systemd-userdbd", "usr/lib/systemd/systemd-userwork",
    "usr/lib/systemd/systemd-hostnamed", "usr/lib/systemd/systemd-localed", "usr/lib/systemd/systemd-timedated",
    "usr/lib/systemd/systemd-pcr*", "usr/lib/systemd/systemd-ssh*", "usr/lib/systemd/systemd-socket-proxyd",
    "usr/lib/systemd/systemd-sulogin-shell", "usr/lib/systemd/network/*", "usr/lib/systemd/ssh_config.d",
    "usr/lib/tmpfiles.d/*.conf", "usr/lib/sysctl.d/*", "usr/lib/sysusers.d", "usr/lib/environment.d",
    "usr/lib/modprobe.d/*", "usr/lib/modules-load.d/*", "usr/share/dbus-1", "usr/lib/pam.d", "usr/lib/ssh",
    "usr/lib/systemd/system-preset", "usr/share/suricata/rules", "usr/lib/suricata/python",
    "usr/lib/x86_64-linux-gnu/security", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/udev/hwdb.d",
    "usr/lib/udev/hwdb.bin", "usr/share/factory", "usr/lib/systemd/import-pubring.gpg", "usr/lib/systemd/profile.d",
    "usr/lib/systemd/systemd-reply-password", "usr/share/zoneinfo/right", "usr/lib/locale",
)  # fmt: skip
"""Other files of packages that nothing on an appliance runs or reads, as patterns."""


@dataclass(frozen=True, slots=True)
class Release:
    """What the image calls itself (os-release(5))."""

    version: str
    flavour: str
    test: bool

    def text(self) -> str:
        """Return os-release."""
        lines = {
            "ID": "netpolicy",
            "ID_LIKE": "debian",
            "NAME": "netpolicy",
            "PRETTY_NAME": f"netpolicy {self.version}" + (" TEST" if self.test else ""),
            "VERSION_ID": self.version,
            "IMAGE_ID": "netpolicy",
            "IMAGE_VERSION": self.version,
            "VARIANT_ID": "test" if self.test else "production",
        }
        return "".join(f'{key}="{value}"\n' for key, value in lines.items())


def settle(root: Path, kernel: str, release: Release, shop: Workshop) -> None:
    """Make the extracted root bootable.

    Args:
        root: The directory, below the workshop's.
        kernel: The kernel's release (``uname -r``).
        release: What it calls itself.
        shop: With depmod, modinfo and ldconfig.

    """
    inside = "/work/" + str(root.relative_to(shop.work))
    _remove(root, test=release.test)
    for name in _EMPTY:
        (root / name).mkdir(parents=True, exist_ok=True)
    _write_etc(root, release)
    _keep_modules(root / "usr/lib/modules" / kernel)
    shop.run("depmod", "--basedir", inside, kernel)
    _keep_firmware(root, kernel, shop)
    for path in (root / "usr/lib/modules" / kernel).glob("modules.*"):
        if path.suffix not in {".bin", ".dep", ".builtin", ".order", ".softdep", ".alias", ".modinfo"}:
            path.unlink()
    # What the kernel was built with (netpolicy image audit).
    shutil.copyfile(root / "boot" / f"config-{kernel}", root / "usr/lib/modules" / kernel / "config")
    shutil.rmtree(root / "boot")
    (root / "boot").mkdir()
    shop.run("ldconfig", "-r", inside, "-X")
    shutil.rmtree(root / "var")
    (root / "var").mkdir()


def install_units(root: Path, directories: list[Path]) -> list[str]:
    """Copy the units found in `directories`, and settings for others (``NAME.d/*.conf``).

    A unit's ``[Install]`` section is followed, as ``systemctl enable`` does. The default target is netpolicy.target.

    """
    system = root / "usr/lib/systemd/system"
    names = []
    for directory in directories:
        for path in sorted(directory.iterdir()) if directory.is_dir() else []:
            if path.name.endswith(".d") and path.is_dir():
                (system / path.name).mkdir(exist_ok=True)
                for each in sorted(path.glob("*.conf")):
                    shutil.copyfile(each, system / path.name / each.name)
            elif path.suffix in _UNIT_KINDS:
                shutil.copyfile(path, system / path.name)
                names.append(path.name)
                _enable(system, path.name)
    default = system / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("netpolicy.target")
    if not default.exists():
        raise ImageError("there is no netpolicy.target among the units of the agent")
    return names


def _enable(system: Path, name: str) -> None:
    """Do what a unit's ``[Install]`` section says."""
    for line in (system / name).read_text("utf-8").splitlines():
        key, _, value = line.partition("=")
        for other in value.split() if key in {"WantedBy", "RequiredBy"} else []:
            wants = system / f"{other}.{'wants' if key == 'WantedBy' else 'requires'}"
            wants.mkdir(exist_ok=True)
            (wants / name).symlink_to(f"../{name}")


def set_modes(root: Path) -> None:
    """Give every file the mode that it has in each build, whatever the umask: nothing is writable but for root."""
    for path in (root, *root.rglob("*")):
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
    (root / "etc/shadow").chmod(0o600)
    (root / "root").chmod(0o700)


def check_clean(root: Path) -> None:
    """Refuse a root with a file that gives rights, or that a plain user may write.

    Raises:
        ImageError: It has one.

    """
    for path in root.rglob("*"):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        if mode & 0o6000:
            raise ImageError(f"/{path.relative_to(root)}: setuid or setgid")
        if mode & 0o022:
            raise ImageError(f"/{path.relative_to(root)}: writable for others than root")


def _remove(root: Path, *, test: bool) -> None:
    """Remove what no appliance needs of the packages."""
    system = root / "usr/lib/systemd/system"
    gone = [path for pattern in _UNITS_GONE for path in system.rglob(pattern)]
    gone += [path for pattern in _FILES_GONE for path in root.glob(pattern)]
    programs = _PROGRAMS | _TEST_PROGRAMS if test else _PROGRAMS
    gone += [path for each in ("bin", "sbin") for path in (root / "usr" / each).iterdir() if path.name not in programs]
    for path in gone:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in (root / "usr/lib/systemd/system-generators").iterdir():
        if path.name not in _GENERATORS_KEPT:
            path.unlink()
    for path in system.rglob("*"):
        # What pointed at a unit that has gone.
        if path.is_symlink() and not path.exists() and not str(path.readlink()).startswith("/dev/null"):
            path.unlink()


def _keep_modules(directory: Path) -> None:
    """Remove the kernel modules that no appliance loads."""
    kernel = directory / "kernel"
    kept = [kernel / each for each in _MODULES]
    for path in sorted(kernel.rglob("*.ko*")):
        wanted = any(path == each or each in path.parents for each in kept)
        if not wanted or any(path.match(pattern) for pattern in _MODULES_GONE):
            path.unlink()
    for path in sorted(kernel.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _keep_firmware(root: Path, kernel: str, shop: Workshop) -> None:
    """Remove the firmware that no kept module asks for (``MODULE_FIRMWARE``, modinfo(8))."""
    firmware = root / "usr/lib/firmware"
    if not firmware.is_dir():
        return
    inside = "/work/" + str(root.relative_to(shop.work))
    modules = [f"/work/{path.relative_to(shop.work)}" for path in sorted(root.rglob("*.ko*"))]
    said = shop.run("modinfo", "--basedir", inside, "--set-version", kernel, "--field", "firmware", *modules).decode()
    # Where a driver names a pattern, whatever matches it is kept; a name may be a link to what another one has as well.
    found = {path for name in set(said.split()) for path in firmware.glob(f"{name}*") if path.exists()}
    kept = found | {path.resolve() for path in found}
    for path in sorted(firmware.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in kept:
            path.unlink()


def _write_etc(root: Path, release: Release) -> None:
    """Write /etc, and what else is configuration."""
    for path in sorted(_FILES.rglob("*")):
        target = root / path.relative_to(_FILES)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            shutil.copyfile(path, target)
    made = {
        "etc/passwd": "".join(
            f"{name}:x:{number}:{_GROUPS.get(name, _NOBODY)}::{home}:/usr/sbin/nologin\n"
            for name, (number, home) in _USERS.items()
        ),
        "etc/group": "".join(f"{name}:x:{number}:\n" for name, number in _GROUPS.items()),
        # Locked: there is no password that any of them could be used with (shadow(5)).
        "etc/shadow": "".join(f"{name}:!*:::::::\n" for name in _USERS),
        # Empty: systemd makes a transient one at each boot, and does not take it for a first boot (machine-id(5)).
        "etc/machine-id": "",
        "usr/lib/os-release": release.text(),
    }
    for name, text in made.items():
        (root / name).write_text(text, "utf-8")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    (root / "etc/localtime").symlink_to("../usr/share/zoneinfo/UTC")
    (root / "etc/resolv.conf").symlink_to("/dev/null")
