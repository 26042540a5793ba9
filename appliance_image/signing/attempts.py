"""How many wrong PINs were given for a token on this machine.

Some tokens never lock their PIN (SoftHSM2 is one), and a program could then try them all. This count stops such a token
from being tried through this tool, by this user, on this machine. It cannot stop somebody who uses the token by
other means or removes the count: only a card that locks itself does.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.bundle.refused import Code, Refused
from netpolicy.build.tree import replace_file

MOST = 3
"""Wrong PINs in a row after which no other is tried."""


def default_directory() -> Path:
    """Return where counts are kept (XDG Base Directory Specification: state)."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "netpolicy" / "pin"


class Attempts:
    """The count of one token, kept in a directory that only its owner can enter (0700)."""

    def __init__(self, directory: Path, token: str) -> None:
        """Take a count.

        Args:
            directory: Made if it is not there.
            token: What identifies the token.

        """
        self.directory = directory
        self._path = directory / hashlib.sha256(token.encode()).hexdigest()

    def wrong(self) -> int:
        """Return how many wrong PINs in a row were given.

        Raises:
            OSError: The count cannot be read.

        """
        try:
            text = self._path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return 0
        # What is damaged counts as full: a count that can be wiped by spoiling it is none.
        return int(text) if text.isdecimal() else MOST

    def clear(self) -> None:
        """Forget the wrong PINs: what an administrator does after finding out who gave them.

        Raises:
            OSError: The count cannot be removed.

        """
        with self._locked():
            self._path.unlink(missing_ok=True)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the PIN that is tried within; one that turns out to be right clears the count.

        It counts, and is on the disk, before the token sees the PIN: ending the program does not undo it. Whoever tries
        raises :class:`Refused` (wrong-pin) for a wrong one; any other exception is not the PIN's fault.

        Raises:
            Refused: There were too many (pin-blocked).
            OSError: The count cannot be kept; then no PIN is tried.

        """
        with self._locked():
            before = self.wrong()
            if before >= MOST:
                text = f"{before} wrong PINs were given for this token here; netpolicy bundle unlock-token allows more"
                raise Refused(Code.PIN_BLOCKED, text)
            replace_file(self._path, f"{before + 1}\n")
            try:
                yield
            except Refused as refused:
                if refused.code != Code.WRONG_PIN:
                    replace_file(self._path, f"{before}\n")
                raise
            except Exception:
                replace_file(self._path, f"{before}\n")
                raise
            self._path.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
