"""How exposed the appliance's services are, by Debian 13's systemd-analyze."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance_image.hardening.figures import AuditError, Mark
from appliance_image.hardening.units import EXCEPTIONS, LIMIT, exposure, section, services
from appliance_image.image.workshop import Workshop


def test_own_units(root: Path, shop: Workshop) -> None:
    """Each of our units is within the limit, or within one of its own that has a reason."""
    found = section(root, shop, test=False)
    assert found.over == ()
    assert {each.name for each in found.figures} == set(services(root))
    assert all(each.reason for each in found.figures if each.mark is Mark.EXCEPTED)


def test_no_needless_exception(shop: Workshop) -> None:
    """A unit that has come within the common limit has no limit of its own any more, nor one that is far too wide."""
    for unit, (own, _) in EXCEPTIONS.items():
        level = exposure(unit, shop)
        assert level is not None
        assert LIMIT < level <= own <= level + 0.2


def test_loosened_unit(root: Path, shop: Workshop) -> None:
    """A unit that lost its confinement is over the limit."""
    path = root / "usr/lib/systemd/system/netpolicy-rules.service"
    confined = re.compile(r"^(SystemCallFilter|CapabilityBoundingSet|RestrictNamespaces)=.*\n", re.MULTILINE)
    path.write_text(confined.sub("", path.read_text()))
    (found,) = section(root, shop, test=False).over
    assert found.name == path.name
    assert float(found.value) > LIMIT


def test_others_units_are_told(root: Path, shop: Workshop) -> None:
    """A service of Debian's has no limit; its figure is there all the same."""
    (root / "usr/lib/systemd/system/other.service").write_text("[Service]\nExecStart=/usr/bin/python3\n")
    (found,) = [each for each in section(root, shop, test=False).figures if each.name == "other.service"]
    assert found.mark is Mark.TOLD
    assert float(found.value) > 9


def test_broken_unit(root: Path, shop: Workshop) -> None:
    """What systemd does not understand of a unit confines nothing: its figure says so, and it is never left out."""
    path = root / "usr/lib/systemd/system/netpolicy-seal.service"
    path.write_text(path.read_text().replace("Protect", "Protetc").replace("SystemCallFilter", "SystemCallsFilter"))
    (found,) = section(root, shop, test=False).over
    assert found.name == path.name


def test_no_units(root: Path, shop: Workshop) -> None:
    """A root without any unit of ours is no appliance's."""
    for path in (root / "usr/lib/systemd/system").glob("*.service"):
        path.unlink()
    with pytest.raises(AuditError, match="no unit of ours"):
        section(root, shop, test=False)
