"""What the privileged half can have done, and how the agent does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from appliance_image.agent import services
from appliance_image.agent.errors import AgentError
from appliance_image.agent.records import Field, record
from appliance_image.agent.root import Root
from appliance_image.agent.state import State
from appliance_image.journal.errors import JournalError
from appliance_image.journal.read import records
from appliance_image.management import renewal
from appliance_image.management.endpoint import FILE, MOST_BYTES
from appliance_image.management.errors import RefusedError
from appliance_image.management.protocol import Document

_MOST_CHUNK = 1 << 17
"""Bytes of records in one answer."""


class Operations(Protocol):
    """The functions behind the commands. Each raises RefusedError with the reason's own code."""

    def endpoint(self) -> bytes:
        """Return ``management.json`` of the bundle that runs."""

    def record(self, event: str, **fields: Field) -> None:
        """Append a usage record."""

    def on_trial(self) -> str | None:
        """Return the transaction that is on trial."""

    def status(self) -> Document:
        """Tell what runs."""

    def drift(self) -> Document:
        """Compare what runs with what was signed."""

    def journal(self, since: int, most: int) -> Document:
        """Return records from number `since` on, and where the next ones begin."""

    def apply(self, bundle: Path, seconds: int) -> Document:
        """Put a bundle on trial, and return when it is live."""

    def confirm(self) -> Document:
        """Keep what is on trial."""

    def rollback(self) -> Document:
        """Go back."""

    def image_update(self, update: Path) -> Document:
        """Put an image into the other slot."""

    def renew(self, upload: Path) -> Document:
        """Have another certificate, and newer revocation lists."""

    def restart(self) -> Document:
        """Have the machine start again, soon."""

    def spool(self, command: str) -> Path:
        """Return the directory that an upload is put into, which only root sees."""


class Agent:
    """The agent of this appliance."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def endpoint(self) -> bytes:
        """Return ``management.json`` of the bundle that runs."""
        try:
            with (self._root.bundle / FILE).open("rb") as stream:
                return stream.read(MOST_BYTES)
        except OSError as missing:
            raise RefusedError("endpoint", f"no bundle that runs has {FILE}: {missing.strerror}") from None

    def record(self, event: str, **fields: Field) -> None:
        """Append a usage record."""
        with _refusals():
            record(self._root, event, **fields)

    def on_trial(self) -> str | None:
        """Return the transaction that is on trial."""
        with _refusals():
            pending = State(self._root).pending
        return None if pending is None or pending.committed else pending.transaction

    def status(self) -> Document:
        """Tell what runs."""
        from appliance_image.agent.status import status  # noqa: PLC0415 - what it needs is loaded when it is asked for

        with _refusals():
            found = status(self._root)
        return {**asdict(found), "enforcing": found.enforcing, "rows": [list(row) for row in found.rows()]}

    def drift(self) -> Document:
        """Compare what runs with what was signed."""
        from appliance_image.agent.drift import drift  # noqa: PLC0415 - the same

        with _refusals():
            found = drift(self._root)
        return {"none": found.none, "serial": found.serial, "lines": _bounded(list(found.lines()))}

    def journal(self, since: int, most: int) -> Document:
        """Return records from number `since` on, and where the next ones begin."""
        lines: list[str] = []
        size, following = 0, since
        try:
            for found in records(self._root.journal, since):
                line = found.line().decode("utf-8").rstrip("\n")
                # What is not ASCII takes more room on the way.
                size += 6 * len(line)
                if len(lines) == most or (lines and size > _MOST_CHUNK):
                    return {"records": lines, "next": following, "more": True}
                lines.append(line)
                following = found.seq + 1
        except (JournalError, OSError) as failed:
            raise RefusedError("journal", f"the journal cannot be read: {failed}") from failed
        return {"records": lines, "next": following, "more": False}

    def apply(self, bundle: Path, seconds: int) -> Document:
        """Put a bundle on trial, and return when it is live."""
        from appliance_image.agent.operate import apply  # noqa: PLC0415 - the proof, which takes memory

        with _refusals():
            return asdict(apply(self._root, bundle, confirm=float(seconds)))

    def confirm(self) -> Document:
        """Keep what is on trial."""
        from appliance_image.agent.operate import confirm  # noqa: PLC0415 - the same

        with _refusals():
            return asdict(confirm(self._root))

    def rollback(self) -> Document:
        """Go back."""
        from appliance_image.agent.operate import rollback  # noqa: PLC0415 - the same

        with _refusals():
            return asdict(rollback(self._root))

    def image_update(self, update: Path) -> Document:
        """Put an image into the other slot."""
        from appliance_image.agent.update import update as write  # noqa: PLC0415 - the same

        with _refusals():
            return asdict(write(self._root, update))

    def renew(self, upload: Path) -> Document:
        """Have another certificate, and newer revocation lists."""
        from appliance_image.agent.renew import renew  # noqa: PLC0415 - the same

        files = renewal.unpack(upload.read_bytes())
        with _refusals():
            return asdict(renew(self._root, files))

    def restart(self) -> Document:
        """Have the machine start again, soon."""
        if self.on_trial() is not None:
            raise RefusedError(
                "on-trial", "a bundle is on trial, which a restart would end: confirm it or roll it back"
            )
        with _refusals():
            services.reboot(self._root)
        return {}

    def spool(self, command: str) -> Path:
        """Return the directory that an upload is put into, which only root sees: bundles and keys stay in memory."""
        return self._root.state if command == "image-update" else self._root.run


@contextmanager
def _refusals() -> Iterator[None]:
    """Have the agent's refusals told as this half tells its own."""
    try:
        yield
    except AgentError as failed:
        raise RefusedError(failed.code, failed.text) from failed


def _bounded(lines: list[str], most: int = 1 << 15) -> list[str]:
    """Return the first lines, as many as an answer holds."""
    kept: list[str] = []
    for line in lines:
        most -= len(line)
        if most < 0:
            return [*kept, f"and {len(lines) - len(kept)} lines more"]
        kept.append(line)
    return kept
