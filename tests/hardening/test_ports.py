"""What rules let in to the firewall itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance_image.hardening.figures import AuditError, Mark
from appliance_image.hardening.ports import interfaces, section

_GUARD = """\
table inet netpolicy_guard
delete table inet netpolicy_guard
table inet netpolicy_guard {
	chain input {
		type filter hook input priority 10; policy accept;
	}
}
"""
_TABLE = """\
table inet netpolicy
delete table inet netpolicy
table inet netpolicy {{
	chain input {{
		type filter hook input priority 0; policy drop;
		iifname "lo" accept
		ct state established,related accept
		{rules}
	}}
}}
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a firewall's files, with two interfaces and rules that let nothing in."""
    place = tmp_path / "fw"
    place.mkdir()
    (place / "ip.batch").write_text("address replace 192.0.2.1/24 dev wan\naddress replace 198.51.100.1/24 dev lan\n")
    (place / "ip6.batch").write_text("address replace 2001:db8::1/64 dev wan\nlink set dev lo up\n")
    (place / "guard.nft").write_text(_GUARD)
    (place / "nftables.nft").write_text(_TABLE.format(rules=""))
    return place


def _found(files: Path, rules: str) -> dict[str, tuple[str, Mark]]:
    (files / "nftables.nft").write_text(_TABLE.format(rules=rules))
    return {each.name: (each.value, each.mark) for each in section([("fw", files)]).figures}


def test_closed(files: Path) -> None:
    """Rules that let nobody begin anything leave every interface closed: answers open nothing."""
    assert _found(files, "") == {"fw lan": ("none", Mark.HOLDS), "fw wan": ("none", Mark.HOLDS)}


@pytest.mark.parametrize(
    ("rule", "open_on_wan"),
    [
        ('iifname "wan" tcp dport 22 accept', "tcp 22"),
        ('iifname "wan" tcp dport { 22, 8000-8002 } ip saddr 203.0.113.7 accept', "tcp 22, tcp 8000-8002"),
        ('iifname "w*" udp dport 53 limit rate 1/second accept', "udp 53"),
        ('iifname "wan" icmp type echo-request accept', "icmp 8"),
        ('iifname "wan" ip protocol esp accept', "protocol 50"),
        ('iifname "wan" ct state invalid tcp dport 179 accept', "tcp 179"),
        ('iifname "wan" ip6 saddr fe80::/10 udp dport 546 accept', "udp 546"),
    ],
)
def test_open(files: Path, rule: str, open_on_wan: str) -> None:
    """What a rule lets in is over the limit on its interface only, however narrow the rule is."""
    assert _found(files, rule) == {"fw lan": ("none", Mark.HOLDS), "fw wan": (open_on_wan, Mark.OVER)}


def test_everywhere(files: Path) -> None:
    """A rule that asks for no interface opens all."""
    found = _found(files, "tcp dport 1-65535 accept")
    assert found == {"fw lan": ("tcp 1-65535", Mark.OVER), "fw wan": ("tcp 1-65535", Mark.OVER)}


def test_neighbours(files: Path) -> None:
    """Answering for its own IPv6 address is excepted, and told with its reason."""
    found = section([("fw", files)])
    assert found.over == ()
    (files / "nftables.nft").write_text(_TABLE.format(rules='iifname "wan" icmpv6 type nd-neighbor-solicit accept'))
    (told,) = [each for each in section([("fw", files)]).figures if each.mark is Mark.EXCEPTED]
    assert (told.name, told.value) == ("fw wan", "icmpv6 135")
    assert "RFC 4861" in told.reason


def test_refused(files: Path) -> None:
    """Rules that nft does not take, or that the proof does not know, are no result."""
    for rule in ("no rule", "dup to 192.0.2.9 device wan"):
        with pytest.raises(AuditError, match="cannot be read back"):
            _found(files, rule)


def test_no_firewall(files: Path) -> None:
    """A directory without addresses is no compiled firewall."""
    assert interfaces(files) == ["lan", "wan"]
    (files / "ip6.batch").unlink()
    with pytest.raises(AuditError, match="no compiled firewall"):
        interfaces(files)
