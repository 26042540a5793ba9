"""The privileged half: it does what operators ask for, and it alone writes the journal.

It takes connections on a unix socket from the half that speaks with the network, which is a user without rights. One
connection is one request: a line with the session and the request, then the upload when it was asked for. The table of
commands is all that the other half can do, should it ever be somebody else's.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance_image.management import protocol
from appliance_image.management.errors import LinkError, RefusedError, printable
from appliance_image.management.operations import Operations
from appliance_image.management.protocol import Document, Request
from appliance_image.management.recorder import Recorder
from appliance_image.management.transport import CHUNK, Lines, Plain

SETTLE = 7.0
"""Seconds after an apply went live before a connection counts as new: the relay may have had the client's part of it
open for so long before it opened its own (its patience for a handshake and for the first bytes after it)."""
_MOST_LINE = 2 * protocol.MOST_REQUEST
_LINE_SECONDS, _STALL_SECONDS = 10.0, 30.0
_OUTCOMES = 64
_THREADS = 32
_LIVE = "management-live.json"


def now() -> float:
    """Return seconds since power-on: the same clock in both halves, which nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Session:
    """An operator's connection, as the other half tells of it."""

    id: str
    operator: str
    """The URI in the certificate."""
    flow: str
    accepted: float
    """When the connection was taken; see :func:`now`."""


class Privileged:
    """The commands, and what is under way."""

    def __init__(
        self, operations: Operations, run: Path, *, settle: float = SETTLE, recorder: Recorder | None = None
    ) -> None:
        """Prepare it.

        Args:
            operations: What it has done.
            run: A directory in memory that only root writes.
            settle: See :data:`SETTLE`.
            recorder: Of sessions and refusals.

        """
        self._operations = operations
        self._live = run / _LIVE
        self._settle = settle
        self._recorder = recorder or Recorder(operations.record)
        self._changing = threading.Lock()
        self._outcomes: dict[str, Document] = {}
        self._places = threading.BoundedSemaphore(_THREADS)

    def serve(self, listening: socket.socket, users: frozenset[int]) -> None:
        """Attend connections for ever, of these users only."""
        while True:
            connection, _ = listening.accept()
            if _user(connection) not in users or not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._attend_and_leave, args=(connection,), daemon=True).start()

    def attend(self, connection: socket.socket) -> None:
        """Answer the one request of a connection, and close it."""
        with connection:
            plain = Plain(connection, _LINE_SECONDS)
            answers = _Answers(plain)
            try:
                lines = Lines(plain, _MOST_LINE)
                line = lines.line()
                if line is not None:
                    answers.last({"answer": self._do(protocol.decode(line), plain, lines, answers)})
            except RefusedError as refused:
                answers.last(protocol.refusal(refused))
            except LinkError:
                return  # the other half has gone; whatever had to be recorded is

    def _attend_and_leave(self, connection: socket.socket) -> None:
        try:
            self.attend(connection)
        finally:
            self._places.release()

    def _do(self, document: Document, plain: Plain, lines: Lines, answers: _Answers) -> Document:
        what = document.get("do")
        if what == "endpoint":
            return {"endpoint": self._operations.endpoint().decode("utf-8", "replace")}
        if what == "login":
            session = _session(document)
            self._recorder.login(session=session.id, operator=session.operator, flow=session.flow, **_serial(document))
            return {}
        if what == "refused":
            self._recorder.refused(_texts(document.get("fields")))
            return {}
        if what != "request":
            raise RefusedError("malformed", "there is nothing of this kind to do")
        session, request = _session(document), protocol.request(_mapping(document.get("request")))
        try:
            return self._guarded(lambda: self._answer(session, request, plain, lines, answers))
        except RefusedError as refused:
            said = {"session": session.id, "operator": session.operator, "command": request.command}
            try:
                self._recorder.refused({**said, "code": refused.code, "reason": refused.text})
            except RefusedError as unrecorded:
                raise RefusedError(refused.code, f"{refused.text} (not recorded: {unrecorded.text})") from None
            raise

    @staticmethod
    def _guarded(function: Callable[[], Document]) -> Document:
        """Have a mistake of our own told and recorded as one, whatever it is: nobody sees this process's output."""
        try:
            return function()
        except (RefusedError, LinkError):
            raise
        except Exception as failed:
            raise RefusedError("internal", f"{type(failed).__name__}: {failed}") from failed

    def _answer(self, session: Session, request: Request, plain: Plain, lines: Lines, answers: _Answers) -> Document:
        operations, arguments = self._operations, request.arguments
        reading: Mapping[str, Callable[[], Document]] = {
            "status": operations.status,
            "drift": operations.drift,
            "journal": lambda: operations.journal(arguments["since"], arguments["most"]),
            "outcome": lambda: self._outcomes.get(arguments["request"], {"outcome": "unknown"}),
        }
        if request.command in reading:
            return reading[request.command]()
        if not self._changing.acquire(blocking=False):
            raise RefusedError("busy", "another change is under way", retry_after=5.0)
        try:
            return self._change(session, request, plain, lines, answers)
        finally:
            self._changing.release()

    def _change(self, session: Session, request: Request, plain: Plain, lines: Lines, answers: _Answers) -> Document:
        """Do what changes something; what comes of it is kept for who loses the connection by it."""
        if request.command == "confirm":
            self._check_new(session)
        with self._uploaded(request, plain, lines, answers) as upload:
            said = {"session": session.id, "operator": session.operator, "command": request.command}
            self._operations.record("remote", **said, request=request.arguments["request"], size=request.size)
            self._keep(request, {"outcome": "running"})
            try:
                found = self._guarded(lambda: self._run(request, upload))
            except RefusedError as refused:
                self._keep(request, {"outcome": "refused", **protocol.refusal(refused)})
                raise
            self._keep(request, {"outcome": "answer", "answer": found})
            return found

    def _run(self, request: Request, upload: Path | None) -> Document:
        operations = self._operations
        if request.command == "apply" and upload is not None:
            found = operations.apply(upload, request.arguments["confirm"])
            self._went_live()
            return {**found, "confirm_after": self._settle}
        if upload is not None:
            return {"image-update": operations.image_update, "renew": operations.renew}[request.command](upload)
        plain = {"confirm": operations.confirm, "rollback": operations.rollback, "restart": operations.restart}
        return plain[request.command]()

    def _check_new(self, session: Session) -> None:
        """Refuse a confirmation that does not prove that the firewall can be reached anew.

        Raises:
            RefusedError: The connection is older than what is to be confirmed, or nothing is to be.

        """
        transaction = self._operations.on_trial()
        if transaction is None:
            raise RefusedError("nothing", "no bundle is on trial")
        live = self._live_since(transaction)
        if live is None:
            raise RefusedError("not-live", "what is on trial did not go live over this management")
        if session.accepted <= live + self._settle:
            left = live + self._settle - now()
            text = "this connection may be older than what is to be confirmed: confirm over a new one"
            raise RefusedError("old-connection", text, retry_after=max(left, 0.0) + 0.1)

    def _went_live(self) -> None:
        """Keep since when what is on trial can be reached, also for a successor of this process."""
        transaction = self._operations.on_trial()
        fresh = self._live.with_suffix(".new")
        fresh.write_text(json.dumps({"transaction": transaction, "since": now()}), encoding="ascii")
        fresh.replace(self._live)

    def _live_since(self, transaction: str) -> float | None:
        try:
            found = json.loads(self._live.read_text(encoding="ascii"))
            return float(found["since"]) if found["transaction"] == transaction else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, request: Request, outcome: Document) -> None:
        self._outcomes.pop(request.arguments["request"], None)
        self._outcomes[request.arguments["request"]] = outcome
        while len(self._outcomes) > _OUTCOMES:
            del self._outcomes[next(iter(self._outcomes))]

    @contextmanager
    def _uploaded(self, request: Request, plain: Plain, lines: Lines, answers: _Answers) -> Iterator[Path | None]:
        """Have the upload in a file of its own while inside."""
        if not request.size:
            yield None
            return
        try:
            descriptor, name = tempfile.mkstemp(prefix="upload-", dir=self._operations.spool(request.command))
        except OSError as failed:
            raise RefusedError("no-room", f"the upload cannot be kept: {failed.strerror}") from failed
        try:
            with os.fdopen(descriptor, "wb") as stream:
                answers.say({"continue": request.size})
                left = request.size
                while left:
                    plain.within(_STALL_SECONDS)
                    part = lines.some(min(left, CHUNK))
                    if not part:
                        raise LinkError("the upload ended early")
                    left -= len(part)
                    try:
                        stream.write(part)
                    except OSError as failed:
                        raise RefusedError("no-room", f"the upload cannot be kept: {failed.strerror}") from failed
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)


class _Answers:
    """What is said to the other half; when that has gone, nothing is, and the work goes on."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain

    def say(self, document: Document) -> None:
        """Say it.

        Raises:
            LinkError: Nobody hears.

        """
        self._plain.within(_LINE_SECONDS)
        self._plain.send(protocol.encode(document))

    def last(self, document: Document) -> None:
        """Say it if anybody hears."""
        try:
            line = protocol.encode(document)
            if len(line) > protocol.MOST_REPLY:
                document = protocol.refusal(RefusedError("oversize", "the answer is longer than a line may be"))
            self.say(document)
        except LinkError:
            return


def _user(connection: socket.socket) -> int:
    """Return who is at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def _session(document: Document) -> Session:
    found = _mapping(document.get("session"))
    accepted = found.get("accepted")
    if isinstance(accepted, bool) or not isinstance(accepted, int | float) or not 0 <= accepted <= now():
        raise RefusedError("malformed", "a session has a time")
    texts = _texts({name: found.get(name) for name in ("id", "operator", "flow")})
    return Session(texts["id"], texts["operator"], texts["flow"], float(accepted))


def _serial(document: Document) -> dict[str, str]:
    return {"certificate": _texts({"serial": document.get("serial")})["serial"]}


def _mapping(value: object) -> Document:
    if not isinstance(value, dict):
        raise RefusedError("malformed", "an object is missing")
    return value


_FIELDS = frozenset({"id", "operator", "flow", "serial", "session", "stage", "code", "reason", "peer"})


def _texts(value: object) -> dict[str, str]:
    """Return short texts by name, of names that are known."""
    found = _mapping(value)
    if not set(found) <= _FIELDS or not all(isinstance(each, str) for each in found.values()):
        raise RefusedError("malformed", "a field is not one that is known")
    return {name: printable(each, 300) for name, each in found.items()}
