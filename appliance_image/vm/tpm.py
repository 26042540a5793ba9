"""A TPM 2.0 of software (swtpm), for one machine."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spawn = Callable[..., "subprocess.Popen[Any]"]
"""Starts a program: takes what :class:`subprocess.Popen` takes."""


class Tpm:
    """A running swtpm; it ends when QEMU lets go of it."""

    def __init__(self, spawn: Spawn, directory: Path) -> None:
        """Start one.

        Args:
            spawn: How.
            directory: Where it keeps its state from one power-on to the next; made if it is not there.

        Raises:
            OSError: It cannot be started.

        """
        directory.mkdir(exist_ok=True)
        self._ours, theirs = socket.socketpair()
        with theirs:
            command = ["swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", f"dir={directory},mode=0600"]
            command += ["--ctrl", f"type=unixio,clientfd={theirs.fileno()}"]
            self.process: subprocess.Popen[Any] = spawn(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def descriptor(self) -> int:
        """Of the socket that QEMU is to be given."""
        return self._ours.fileno()

    def hand_over(self) -> None:
        """Close our end, so that QEMU alone holds it."""
        self._ours.close()

    @staticmethod
    def options(descriptor: int) -> list[str]:
        """Return the options of a QEMU that is given the socket."""
        return [
            *("-chardev", f"socket,id=tpm,fd={descriptor}"),
            *("-tpmdev", "emulator,id=tpm0,chardev=tpm"),
            *("-device", "tpm-crb,tpmdev=tpm0"),
        ]
