"""What the state partition says: which bundle runs, which ran before, and what is under way.

Every change begins as ``pending``: while its phase is *trial*, the state is the old one, whatever runs at the moment;
one rename turns it into *commit*, and from then on the state is the new one: what is left to do is done again after a
cut, by :meth:`State.settle`, until ``pending`` is gone.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from appliance_image.agent import durable
from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from appliance_image.bundle.archive import BUNDLE_BYTES
from netpolicy.inputs import read_document, read_regular

_MOST_BYTES = 1 << 16
_IDENTITY_NEXT = "identity.next"
_WITH_IDENTITY = frozenset({"adopt", "renew"})
"""Changes that an identity comes with: what a cut has left of another one's is none."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A bundle of ``bundles/``."""

    sha256: str
    """Of the whole file, which is called so."""
    serial: int


@dataclass(frozen=True, slots=True)
class Seen:
    """When this firewall has last run."""

    serial: int
    """The highest that was confirmed by then."""
    seconds: float
    """Since 1970, by its clock."""


class Phase(enum.StrEnum):
    """How far a change is."""

    TRIAL = "trial"
    COMMIT = "commit"


@dataclass(frozen=True, slots=True)
class Pending:
    """A change that is under way."""

    phase: Phase
    transaction: str
    """The same in every record about it."""
    event: str
    """``apply``, ``rollback``, ``adopt`` or ``renew``."""
    current: Pointer
    """What is to run."""
    previous: Pointer | None
    """What is to be the one to roll back to."""
    deadline: float = 0.0
    """While on trial: seconds since boot (CLOCK_BOOTTIME) until which it must be confirmed."""

    @property
    def committed(self) -> bool:
        """Whether it has been decided."""
        return self.phase is Phase.COMMIT

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Return what :meth:`State.begin` wrote.

        Raises:
            KeyError, TypeError, ValueError: It did not write this.

        """
        return cls(
            Phase(document["phase"]),
            str(document["transaction"]),
            str(document["event"]),
            _pointer(document["current"]),
            _pointer(document["previous"]) if document["previous"] is not None else None,
            float(document["deadline"]),
        )


class State:
    """The state partition of one appliance."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._place = root.state

    def prepare(self) -> None:
        """Have its directories.

        Raises:
            AgentError: There is no state partition, or it cannot be written.

        """
        if self._root.mounted and not self._place.is_mount():
            raise AgentError("state", f"{self._place} is not mounted: the state partition is missing or damaged")
        try:
            for name in ("bundles", "identity", "journal"):
                durable.make(self._place / name)
        except OSError as failed:
            raise AgentError("state", f"the state partition cannot be written: {failed}") from failed

    @property
    def current(self) -> Pointer | None:
        """The bundle that was confirmed last."""
        return self._read_pointer("current")

    @property
    def previous(self) -> Pointer | None:
        """The one before."""
        return self._read_pointer("previous")

    @property
    def pending(self) -> Pending | None:
        """The change that is under way."""
        document = self._read("pending")
        if document is None:
            return None
        try:
            return Pending.read(document)
        except (KeyError, TypeError, ValueError) as wrong:
            raise AgentError("state", f"{self._place / 'pending'} is damaged: {wrong!r}") from wrong

    @property
    def serial(self) -> int:
        """The highest serial that was ever confirmed; 0 for none."""
        document = self._read("serial")
        stored = 0 if document is None else int(document["serial"])
        return max([stored, *(each.serial for each in (self.current, self.previous) if each is not None)])

    @property
    def clock(self) -> Seen | None:
        """When this firewall has last run; None if it never has."""
        document = self._read("clock")
        try:
            return None if document is None else Seen(int(document["serial"]), float(document["seconds"]))
        except (KeyError, TypeError, ValueError) as wrong:
            raise AgentError("state", f"{self._place / 'clock'} is damaged: {wrong!r}") from wrong

    def keep_clock(self, seconds: float) -> None:
        """Have on the disk that this firewall ran at a time, unless it did later with the same bundles.

        Raises:
            AgentError: It cannot be written.

        """
        seen, serial = self.clock, self.serial
        if seen is None or serial > seen.serial or seconds > seen.seconds:
            self._write("clock", asdict(Seen(serial, seconds)))

    @property
    def known(self) -> frozenset[str]:
        """The SHA-256 of the bundles that were confirmed: the last two."""
        return frozenset(each.sha256 for each in (self.current, self.previous) if each is not None)

    @property
    def crl(self) -> bytes | None:
        """The newest revocation lists that came with a confirmed bundle."""
        try:
            return read_regular(self._place / "operators.crl", BUNDLE_BYTES, follow=False)
        except FileNotFoundError:
            return None

    def bundle(self, pointer: Pointer) -> Path:
        """Return the file of a bundle."""
        return self._place / "bundles" / f"{pointer.sha256}.bundle"

    def stage(self, content: bytes, pointer: Pointer) -> None:
        """Put a bundle on the disk; it is nothing yet but a file.

        Raises:
            AgentError: It cannot be written.

        """
        try:
            durable.write(self.bundle(pointer), content)
        except OSError as failed:
            raise AgentError("state", f"the bundle cannot be put on the state partition: {failed}") from failed

    def stage_identity(self, files: Mapping[str, bytes]) -> None:
        """Put an identity on the disk that comes into force with the next change that is decided.

        Raises:
            AgentError: It cannot be written.

        """
        following = self._place / _IDENTITY_NEXT
        self._guarded(partial(durable.make, following))
        for path in self._identity_next():
            self._guarded(partial(durable.remove, path))
        for name, content in sorted(files.items()):
            self._guarded(partial(durable.write, following / name, content))

    def begin(self, pending: Pending) -> None:
        """Put a change on the disk, or the same one with another deadline.

        Raises:
            AgentError: It cannot be written.

        """
        self._write("pending", asdict(pending))

    def commit(self, pending: Pending, crl: bytes | None) -> None:
        """Decide a change: from here on the state is the new one. :meth:`settle` does what is left.

        Raises:
            AgentError: It cannot be written: nothing is decided.

        """
        if crl is not None:
            self._guarded(lambda: durable.write(self._place / "operators.crl.next", crl))
        self._write("pending", asdict(replace(pending, phase=Phase.COMMIT)))

    def settle(self) -> None:
        """Do what a decided change still lacks, however often; ``pending`` stays until :meth:`end`.

        Raises:
            AgentError: It cannot be written.

        """
        pending = self.pending
        if pending is None or not pending.committed:
            return
        following = self._place / "operators.crl.next"
        if following.exists():
            self._guarded(lambda: durable.write(self._place / "operators.crl", following.read_bytes()))
            self._guarded(lambda: durable.remove(following))
        for path in self._identity_next() if pending.event in _WITH_IDENTITY else ():
            self._guarded(partial(durable.write, self._place / "identity" / path.name, path.read_bytes()))
        highest = max(self.serial, pending.current.serial)
        self._write("serial", {"serial": highest})
        if pending.previous is not None:
            self._write("previous", asdict(pending.previous))
        self._write("current", asdict(pending.current))

    def end(self) -> None:
        """Forget the change that is under way; a trial has then never been.

        Raises:
            AgentError: It cannot be written.

        """
        self._guarded(lambda: durable.remove(self._place / "pending"))

    def tidy(self) -> None:
        """Remove bundles that nothing points to, and what a cut has left; when nothing is half decided.

        Raises:
            AgentError: They cannot be removed.

        """
        pending = self.pending
        pointers = [self.current, self.previous, *((pending.current, pending.previous) if pending else ())]
        kept = {self.bundle(each) for each in pointers if each is not None}
        for path in sorted((self._place / "bundles").iterdir()):
            if path not in kept:
                self._guarded(partial(durable.remove, path))
        for path in self._identity_next():
            self._guarded(partial(durable.remove, path))
        for path in sorted(self._place.iterdir()):
            undecided = path.name == "operators.crl.next" and (pending is None or not pending.committed)
            if path.is_file() and (durable.is_left_over(path) or undecided):
                self._guarded(partial(durable.remove, path))

    def _identity_next(self) -> list[Path]:
        following = self._place / _IDENTITY_NEXT
        return sorted(following.iterdir()) if following.is_dir() else []

    def _read_pointer(self, name: str) -> Pointer | None:
        document = self._read(name)
        try:
            return None if document is None else _pointer(document)
        except (KeyError, TypeError, ValueError) as wrong:
            raise AgentError("state", f"{self._place / name} is damaged: {wrong!r}") from wrong

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            document = read_document(self._place / name, _MOST_BYTES, follow=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as wrong:
            raise AgentError("state", f"{self._place / name} is damaged: {wrong}") from wrong
        if not isinstance(document, dict):
            raise AgentError("state", f"{self._place / name} is damaged")
        return document

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        content = json.dumps(document, sort_keys=True).encode() + b"\n"
        self._guarded(lambda: durable.write(self._place / name, content))

    @staticmethod
    def _guarded(change: Callable[[], None]) -> None:
        try:
            change()
        except OSError as failed:
            raise AgentError("state", f"the state partition cannot be written: {failed}") from failed


def _pointer(document: Mapping[str, Any]) -> Pointer:
    digest = str(document["sha256"])
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise ValueError(digest)
    return Pointer(digest, int(document["serial"]))
