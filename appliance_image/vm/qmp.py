"""QEMU's control protocol (QMP): one question, one answer, over a connected socket."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from appliance_image.vm.errors import MachineError

_ANSWER_SECONDS = 60.0
_PART = 65536


class Monitor:
    """A connection to a QEMU that has just been started, or is about to be."""

    def __init__(self, connection: socket.socket) -> None:
        """Take a connected stream socket."""
        self._socket = connection
        self._received = bytearray()
        self._events: list[dict[str, Any]] = []
        self._greeted = False

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, command: str, descriptor: int | None = None, **arguments: Any) -> Any:
        """Run a command and return what QEMU returns.

        Args:
            command: QMP's name of it.
            descriptor: Handed over with it (``getfd``, ``add-fd``).
            arguments: Its arguments; underscores stand for hyphens.

        Raises:
            MachineError: QEMU refused it, is gone, or did not answer in time.

        """
        if not self._greeted:
            self._read(time.monotonic() + _ANSWER_SECONDS)
            self._greeted = True
            self.ask("qmp_capabilities")
        wanted = {key.replace("_", "-"): value for key, value in arguments.items()}
        question = json.dumps({"execute": command, "arguments": wanted}).encode() + b"\n"
        try:
            if descriptor is None:
                self._socket.sendall(question)
            else:
                socket.send_fds(self._socket, [question], [descriptor])
        except OSError as gone:
            raise MachineError(f"QEMU does not hear {command}: {gone}") from gone
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            answer = self._read(deadline)
            if "event" in answer:
                self._events.append(answer)
            elif "error" in answer:
                raise MachineError(f"QEMU refuses {command}: {answer['error'].get('desc')}")
            else:
                return answer.get("return")

    def await_event(self, name: str, seconds: float) -> dict[str, Any]:
        """Return the data of the next event of a name, one that has come already included.

        Raises:
            MachineError: None came in time, or QEMU is gone.

        """
        deadline = time.monotonic() + seconds
        while True:
            for number, event in enumerate(self._events):
                if event["event"] == name:
                    del self._events[number]
                    data: dict[str, Any] = event.get("data", {})
                    return data
            answer = self._read(deadline)
            if "event" in answer:
                self._events.append(answer)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                part = self._socket.recv(_PART)
            except TimeoutError as late:
                raise MachineError("QEMU does not answer") from late
            except OSError as gone:
                raise MachineError(f"QEMU is gone: {gone}") from gone
            if not part:
                raise MachineError("QEMU is gone")
            self._received += part
        line, _, rest = self._received.partition(b"\n")
        self._received = bytearray(rest)
        answer: dict[str, Any] = json.loads(line)
        return answer
