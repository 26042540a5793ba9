"""Kernel settings beside the baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_image.hardening.baseline import Found, Kind, read_baseline, section
from appliance_image.hardening.figures import AuditError, Mark
from appliance_image.hardening.kernel import command_line, configuration, sysctls
from appliance_image.image import uki

_DEBIAN = {"MITIGATION_PAGE_TABLE_ISOLATION": "y", "HARDENED_USERCOPY": "y"}
"""What Debian's kernel is built with, and parameters therefore need not ask for."""


def _over(found: Found) -> list[str]:
    return [each.name for each in section(found, read_baseline(), {}).over]


def test_own_settings(root: Path) -> None:
    """The image's settings and command line depart from the baseline only where there is a reason."""
    found = Found(sysctl=sysctls(root, []), cmdline=command_line(uki.command_line("0" * 64)), config=_DEBIAN)
    assert [each for each in _over(found) if not each.startswith("config ")] == []


def test_setting_off(root: Path) -> None:
    """A setting with another value, or one that is missing, is over."""
    path = root / "usr/lib/sysctl.d/90-netpolicy.conf"
    path.write_text(path.read_text().replace("kernel.kptr_restrict = 2", "kernel.kptr_restrict = 0"))
    assert _over(Found(sysctl=sysctls(root, []))) == ["sysctl kernel/kptr_restrict"]
    path.write_text(path.read_text().replace("kernel.kptr_restrict = 0", ""))
    assert _over(Found(sysctl=sysctls(root, []))) == ["sysctl kernel/kptr_restrict"]


def test_later_file_wins(root: Path) -> None:
    """Of two files the later name counts, and /etc replaces a file of the same name (sysctl.d(5))."""
    (root / "etc/sysctl.d").mkdir()
    (root / "etc/sysctl.d/99-more.conf").write_text("kernel/dmesg_restrict=0\n")
    assert sysctls(root, [])["kernel/dmesg_restrict"] == "0"
    (root / "etc/sysctl.d/90-netpolicy.conf").write_text("# nothing\n")
    assert sysctls(root, [])["kernel/dmesg_restrict"] == "0"
    assert "kernel/kptr_restrict" not in sysctls(root, [])


def test_sealed_by_a_unit(root: Path) -> None:
    """Modules count as locked as long as the target has the unit that locks them."""
    assert sysctls(root, [])["kernel/modules_disabled"] == "1"
    (root / "usr/lib/netpolicy/sealed.conf").rename(root / "sealed.conf")
    assert _over(Found(sysctl=sysctls(root, []))) == ["sysctl kernel/modules_disabled"]
    (root / "sealed.conf").rename(root / "usr/lib/netpolicy/sealed.conf")
    target = root / "usr/lib/systemd/system/netpolicy.target"
    target.write_text(target.read_text().replace("netpolicy-seal.service", ""))
    assert _over(Found(sysctl=sysctls(root, []))) == ["sysctl kernel/modules_disabled"]


def test_firewall_loosens(root: Path, tmp_path: Path) -> None:
    """A firewall's own settings come after the image's; those of one among several are not lost."""
    for name, value in (("a", "1"), ("b", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sysctl.conf").write_text(f"net/ipv4/conf/all/rp_filter = {value}\n")
    assert _over(Found(sysctl=sysctls(root, [tmp_path / "a"]))) == []
    assert _over(Found(sysctl=sysctls(root, [tmp_path / "a", tmp_path / "b"]))) == [
        "sysctl net/ipv4/conf/all/rp_filter"
    ]
    with pytest.raises(AuditError, match="no compiled firewall"):
        sysctls(root, [tmp_path])


def test_dots_and_slashes(root: Path) -> None:
    """A key that begins with a dot or a slash may have the other in its names (sysctl.d(5))."""
    (root / "usr/lib/sysctl.d/95.conf").write_text(
        "net.ipv4.conf.eth0/1.rp_filter=1\nnet/ipv4/conf/eth0.2/rp_filter=1\n"
    )
    found = sysctls(root, [])
    assert found["net/ipv4/conf/eth0.1/rp_filter"] == "1"
    assert found["net/ipv4/conf/eth0.2/rp_filter"] == "1"


def test_command_line_off() -> None:
    """A parameter that is missing or weaker is over; one that another setting stands for is not."""
    line = command_line(uki.command_line("0" * 64).replace("lockdown=confidentiality", "lockdown=integrity"))
    over = _over(Found(cmdline=line, config=_DEBIAN))
    assert [each for each in over if each.startswith("cmdline ")] == ["cmdline lockdown"]
    assert "cmdline pti" in _over(Found(cmdline=line))
    assert "cmdline slab_nomerge" in _over(Found(cmdline={}))


def test_configuration() -> None:
    """Options are on, off or absent; what is to be off may be absent."""
    found = configuration('# CONFIG_DEVMEM is not set\nCONFIG_BUG=y\nCONFIG_LSM="yama,lockdown"\n# a remark\n')
    assert found == {"DEVMEM": "off", "BUG": "y", "LSM": "yama,lockdown"}
    over = _over(Found(config=found))
    assert "config DEVMEM" not in over
    assert "config COMPAT_BRK" not in over
    assert "config SECCOMP" in over


def test_unknown_is_no_success() -> None:
    """A kind of settings that is not known is said to be so."""
    figures = section(Found(), read_baseline(), {Kind.CONFIG: "give it"}).figures
    assert [each.mark for each in figures] == [Mark.UNKNOWN] * 3
    assert figures[2].reason == "give it"


def test_baseline_is_sound() -> None:
    """No line stands twice, and each has a source."""
    lines = read_baseline()
    assert len({(each.setting.kind, each.setting.name) for each in lines}) == len(lines)
    assert all(each.source for each in lines)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("kind,name\n", "other columns"),
        ("kind,name,wanted,or,source,reason\nsysctl,a,1,,,\n", "no source"),
        ("kind,name,wanted,or,source,reason\nregistry,a,1,,x,\n", "registry"),
        ("kind,name,wanted,or,source,reason\nsysctl,a,1\n", "2:"),
    ],
)
def test_bad_baseline(tmp_path: Path, text: str, wrong: str) -> None:
    """A table that cannot be read is refused with its line."""
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(AuditError, match=wrong):
        read_baseline(tmp_path / "x.csv")
