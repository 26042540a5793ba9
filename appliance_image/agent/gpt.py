"""A disk's partition table (UEFI 2.10, 5.3): read from whichever copy is whole, and partitions given other UUIDs."""

from __future__ import annotations

import os
import struct
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from appliance_image.agent import durable
from appliance_image.agent.durable import Step
from appliance_image.agent.errors import AgentError

SECTOR = 512
_HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")
_SIGNATURE = b"EFI PART"
_ENTRY = struct.Struct("<16s16sQQQ72s")
_MOST_ENTRIES = 1024


@dataclass(frozen=True, slots=True)
class Partition:
    """A part of a disk."""

    number: int
    """From 1 on."""
    label: str
    identity: uuid.UUID
    start: int
    """In bytes."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table as one of its two copies has it."""

    header: tuple[int | bytes, ...]
    entries: bytes

    @property
    def partitions(self) -> list[Partition]:
        """Those that are there."""
        found = []
        size = self._number(12)
        for number in range(self._number(11)):
            kind, identity, first, last, _, name = _ENTRY.unpack_from(self.entries, number * size)
            if kind != bytes(16):
                label = name.decode("utf-16-le", "replace").rstrip("\0")
                place = uuid.UUID(bytes_le=identity)
                found.append(Partition(number + 1, label, place, first * SECTOR, (last - first + 1) * SECTOR))
        return found

    def named(self, label: str) -> Partition:
        """Return the partition of a label.

        Raises:
            AgentError: There is none, or more than one.

        """
        found = [each for each in self.partitions if each.label == label]
        if len(found) != 1:
            raise AgentError("disk", f"the disk has {len(found)} partitions '{label}'")
        return found[0]

    def identified(self, identities: Mapping[str, uuid.UUID]) -> Table:
        """Return the table with other UUIDs for partitions, by their labels."""
        entries, size = bytearray(self.entries), self._number(12)
        for label, identity in identities.items():
            at = (self.named(label).number - 1) * size + 16
            entries[at : at + 16] = identity.bytes_le
        return replace(self, entries=bytes(entries))

    def copies(self) -> tuple[tuple[int, bytes, bytes], tuple[int, bytes, bytes]]:
        """Return the header's place (in sectors), header and entries of both copies: the backup's, then the first's."""
        own, other = self._number(5), self._number(6)
        first, last = min(own, other), max(own, other)
        count = -(-len(self.entries) // SECTOR)
        return self._copy(last, first, last - count), self._copy(first, last, first + 1)

    def _copy(self, own: int, other: int, entries: int) -> tuple[int, bytes, bytes]:
        fields = list(self.header)
        fields[3], fields[5], fields[6], fields[10], fields[13] = 0, own, other, entries, zlib.crc32(self.entries)
        fields[3] = zlib.crc32(_HEADER.pack(*fields))
        return own, _HEADER.pack(*fields), self.entries

    def _number(self, field: int) -> int:
        value = self.header[field]
        assert isinstance(value, int)  # noqa: S101 - for the type alone
        return value


def read(disk: Path) -> Table:
    """Return the partition table of a disk.

    Raises:
        AgentError: Neither copy is whole.

    """
    try:
        with disk.open("rb") as stream:
            last = stream.seek(0, os.SEEK_END) // SECTOR - 1
            for place in (1, last):
                found = _read(stream.fileno(), place)
                if found is not None:
                    return found
    except OSError as failed:
        raise AgentError("disk", f"{disk} cannot be read: {failed}") from failed
    raise AgentError("disk", f"{disk} has no partition table that is whole")


def write(disk: Path, table: Table) -> None:
    """Have a partition table on a disk: first its backup, then the other, so that one of them is whole at any moment.

    Raises:
        OSError: It is not.

    """
    descriptor = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        for place, header, entries in table.copies():
            at = struct.unpack_from("<Q", header, 72)[0] * SECTOR
            durable.before(Step.WRITE, disk)
            os.pwrite(descriptor, entries, at)
            durable.before(Step.SYNC, disk)
            os.fsync(descriptor)
            durable.before(Step.WRITE, disk)
            os.pwrite(descriptor, header.ljust(SECTOR, b"\0"), place * SECTOR)
            durable.before(Step.SYNC, disk)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, place: int) -> Table | None:
    """Return one copy; None if it is not whole."""
    raw = os.pread(descriptor, _HEADER.size, place * SECTOR)
    if len(raw) < _HEADER.size:
        return None
    header = _HEADER.unpack(raw)
    if header[0] != _SIGNATURE or header[2] != _HEADER.size or header[5] != place:
        return None
    blank = _HEADER.pack(*header[:3], 0, *header[4:])
    if zlib.crc32(blank) != header[3] or header[12] < _ENTRY.size or header[11] > _MOST_ENTRIES:
        return None
    entries = os.pread(descriptor, header[11] * header[12], header[10] * SECTOR)
    if zlib.crc32(entries) != header[13]:
        return None
    return Table(header, entries)
