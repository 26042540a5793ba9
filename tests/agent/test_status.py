"""What an appliance tells of its journal's room."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from appliance_image.agent.records import Kept, kept, record
from appliance_image.agent.root import Root
from appliance_image.agent.status import Status

_MIB = 1 << 20
_STATUS = Status(
    firewall="town-fw",
    network="small",
    managed_by="agency",
    signatures=1,
    runs=None,
    current=None,
    previous=None,
    on_trial=None,
    seconds_left=None,
    highest_serial=0,
    forwards=False,
    engines={},
    relay=None,
    ended={},
    image="1",
    boot="1",
    validity=None,
    journal=None,
)


def test_a_disk_that_fills(tmp_path: Path) -> None:
    """From the last quarter on somebody has to look after it."""
    root = Root(state=tmp_path / "state")
    root.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(root.state)], check=True, timeout=30)
    try:
        root.identity.mkdir()
        record(root, "boot", outcome="enforcing")
        early = kept(root)
        (root.state / "bundles").write_bytes(bytes(early.free - 3 * _MIB))
        middle = kept(root)
        (root.journal / "000002.jsonl").write_bytes(bytes(3 * _MIB - 512 * 1024))
        late = kept(root)
    finally:
        subprocess.run(["umount", str(root.state)], check=True, timeout=30)
    assert early.head is not None
    assert early.head.startswith("4:")  # the beginning, the record, and a checkpoint after each
    assert not early.due
    assert (middle.due, middle.free) == (False, 3 * _MIB)
    assert (late.due, late.free) == (True, 512 * 1024)


def test_nothing_readable_names_the_newest_record(tmp_path: Path) -> None:
    """A place that a stranger wrote is told as unknown."""
    root = Root(state=tmp_path)
    with pytest.raises(FileNotFoundError):
        kept(root)
    root.journal.mkdir()
    assert kept(root).head is None
    (root.journal / "head").write_text("nonsense")
    assert kept(root).head is None


def test_rows() -> None:
    """People read how much is left."""
    assert "journal" not in dict(_STATUS.rows())
    found = replace(_STATUS, journal=Kept(f"408:{'9f' * 32}", 300 * _MIB, 99 * _MIB, due=True))
    assert dict(found.rows())["journal"] == "newest record 408:9f9f9f9f9f9f9f9f9f9f…; 300.0 MiB, 99.0 MiB free DUE"
    unknown = replace(_STATUS, journal=Kept(None, 0, _MIB, due=False))
    assert dict(unknown.rows())["journal"] == "newest record unknown; 0.0 MiB, 1.0 MiB free"
