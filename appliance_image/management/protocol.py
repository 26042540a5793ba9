"""What is said inside: requests and replies, one line of JSON each, and the bytes of an upload after its request.

The appliance begins with a greeting. Then the operator sends one request after another, and each is answered with any
number of ``progress`` lines and at last one ``answer`` or ``refused``. A request with an upload names its size;
the appliance says ``continue`` when it wants it. Whatever is not exactly so is refused, and ends the connection.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from appliance_image.management.errors import RefusedError

ALPN = "netpolicy-management/1"
FORMAT = 1
MOST_REQUEST = 4096
"""Bytes of a request's line, its newline included."""
MOST_REPLY = 1 << 18
"""The same of a reply."""
LEAST_CONFIRM, MOST_CONFIRM = 20, 3600
"""Seconds. Below the first nobody could confirm in time: see `SETTLE` in privileged.py."""
MOST_RECORDS = 1000
"""Of a journal, in one answer."""
_LARGEST = 2**53
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")

Document = dict[str, Any]
"""What JSON calls an object."""


@dataclass(frozen=True, slots=True)
class Command:
    """What an operator may ask for."""

    arguments: Mapping[str, Callable[[object], bool]] = field(default_factory=dict)
    """All of them must be there, and each must be as its function wants it."""
    changes: bool = False
    """Whether it changes something: one at a time, recorded, and its outcome can be asked for on another connection."""
    upload: int = 0
    """The most bytes that come with it; 0 for none."""


def _integer(least: int, most: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _request_id(value: object) -> bool:
    return isinstance(value, str) and _REQUEST_ID.fullmatch(value) is not None


_ID = {"request": _request_id}
"""Chosen by the client at random."""

COMMANDS: Mapping[str, Command] = {
    "status": Command(),
    "drift": Command(),
    "journal": Command({"since": _integer(1, _LARGEST), "most": _integer(1, MOST_RECORDS)}),
    "outcome": Command(_ID),
    "apply": Command({**_ID, "confirm": _integer(LEAST_CONFIRM, MOST_CONFIRM)}, changes=True, upload=64 << 20),
    "confirm": Command(_ID, changes=True),
    "rollback": Command(_ID, changes=True),
    "renew": Command(_ID, changes=True, upload=1 << 20),
    "restart": Command(_ID, changes=True),
    "image-update": Command(_ID, changes=True, upload=512 << 20),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, checked."""

    command: str
    arguments: Document
    size: int = 0
    """Bytes of the upload that follows."""

    @property
    def kind(self) -> Command:
        """What is known of its command."""
        return COMMANDS[self.command]

    def line(self) -> bytes:
        """Return what goes over the line."""
        return encode({"command": self.command, "arguments": self.arguments, "size": self.size})


def request(document: Document) -> Request:
    """Return the request that a document is.

    Raises:
        RefusedError: It is none (``malformed``), or there is no such command (``unknown-command``).

    """
    if set(document) != {"command", "arguments", "size"}:
        raise RefusedError("malformed", "a request has 'command', 'arguments' and 'size'")
    name, arguments, size = document["command"], document["arguments"], document["size"]
    if not isinstance(name, str) or name not in COMMANDS:
        raise RefusedError("unknown-command", f"there is no command {name!r:.60}")
    command = COMMANDS[name]
    if not isinstance(arguments, dict) or set(arguments) != set(command.arguments):
        raise RefusedError("malformed", f"'{name}' has the arguments {sorted(command.arguments)}")
    for argument, right in command.arguments.items():
        if not right(arguments[argument]):
            raise RefusedError("malformed", f"'{name}': {arguments[argument]!r:.60} is no value of '{argument}'")
    least = 1 if command.upload else 0
    if not _integer(least, command.upload)(size):
        raise RefusedError("oversize", f"'{name}' takes an upload of {least} to {command.upload} bytes")
    return Request(name, arguments, size)


def encode(document: Document) -> bytes:
    """Return a document's line."""
    return json.dumps(document, separators=(",", ":")).encode("ascii") + b"\n"


def decode(line: bytes) -> Document:
    """Return the document of a line.

    Raises:
        RefusedError: It is none, or says something twice.

    """
    try:
        found = json.loads(line.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RefusedError("malformed", "a line is no JSON") from None
    if not isinstance(found, dict):
        raise RefusedError("malformed", "a line is no JSON object")
    return found


def reply(document: Document) -> tuple[str, Any]:
    """Return what kind of reply a document is, and what it says.

    Raises:
        RefusedError: It is none.

    """
    if len(document) == 1:
        ((kind, said),) = document.items()
        right = {"progress": str, "continue": int, "answer": dict, "refused": dict}
        if kind in right and isinstance(said, right[kind]):
            return kind, said
    raise RefusedError("malformed", "a line is no reply")


def refusal(error: RefusedError) -> Document:
    """Return the reply that tells of a refusal."""
    said: Document = {"code": error.code, "text": error.text}
    if error.retry_after is not None:
        said["retry_after"] = round(error.retry_after, 3)
    return {"refused": said}


def refused(said: Document) -> RefusedError:
    """Return the refusal that a reply tells of."""
    after = said.get("retry_after")
    known = isinstance(after, int | float) and not isinstance(after, bool) and 0 <= after <= MOST_CONFIRM
    return RefusedError(
        str(said.get("code", "unknown"))[:64], str(said.get("text", "")), retry_after=after if known else None
    )


def _once(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)
