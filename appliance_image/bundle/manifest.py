"""What is signed: the manifest of a bundle, in one form only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from appliance_image.bundle.refused import Code, Refused

FORMAT = 1
MANIFEST_BYTES = 1 << 20
"""The most a manifest may have."""
SERIALS = range(1, 1 << 63)
LISTS = "operators.crl"

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,7}\Z")
_PATH_LENGTH = 90
"""A name in ustar without its prefix field, less ``files/``."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Held:
    """One file, as the manifest knows it."""

    sha256: str
    """In hexadecimal."""
    size: int
    """In bytes."""

    @classmethod
    def of(cls, content: bytes) -> Held:
        """Return what a manifest says of a file with this content."""
        return cls(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True, slots=True)
class Step:
    """One step of applying a bundle: a file, and the command that takes its path as the last argument."""

    file: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What operators sign."""

    network: str
    topology_sha256: str
    """Of the topology that was compiled."""
    firewall: str
    managed_by: str
    signatures: int
    """How many different operators must sign: 1 or 2."""
    serial: int
    """Rises from bundle to bundle of a firewall."""
    not_before: datetime
    """UTC, in whole seconds."""
    not_after: datetime
    interfaces: Mapping[str, str]
    """MAC address by interface."""
    apply: tuple[Step, ...]
    """In this order."""
    crl: Held
    """The manager's revocation lists that travel with the bundle."""
    files: Mapping[str, Held]
    """By path below ``files/``."""

    def emit(self) -> bytes:
        """Return the bytes that are signed: the only ones that :func:`parse` takes for this manifest."""
        plain = {
            "format": FORMAT,
            "network": self.network,
            "topology_sha256": self.topology_sha256,
            "firewall": self.firewall,
            "managed_by": self.managed_by,
            "signatures": self.signatures,
            "serial": self.serial,
            "not_before": self.not_before.strftime(_TIME),
            "not_after": self.not_after.strftime(_TIME),
            "interfaces": dict(self.interfaces),
            "apply": [_plain_step(step) for step in self.apply],
            "crl": {"sha256": self.crl.sha256, "size": self.crl.size},
            "files": {path: {"sha256": held.sha256, "size": held.size} for path, held in self.files.items()},
        }
        return (json.dumps(plain, indent=2, sort_keys=True) + "\n").encode("ascii")


def parse(content: bytes) -> Manifest:
    """Return the manifest with these bytes.

    Raises:
        Refused: They are not what :meth:`Manifest.emit` gives for any manifest (malformed).

    """
    if len(content) > MANIFEST_BYTES:
        raise _malformed(f"manifest.json has {len(content)} bytes, and may have {MANIFEST_BYTES}")
    try:
        plain = json.loads(content.decode("ascii"), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as wrong:
        raise _malformed(f"manifest.json: {wrong}") from wrong
    manifest = _manifest(plain)
    if manifest.emit() != content:
        raise _malformed("manifest.json is not written in the one form that it may have")
    return manifest


def _manifest(plain: object) -> Manifest:
    top = _mapping(plain, "manifest.json")
    wanted = {"format", "network", "topology_sha256", "firewall", "managed_by", "signatures", "serial", "not_before"}
    wanted |= {"not_after", "interfaces", "apply", "crl", "files"}
    if set(top) != wanted:
        raise _malformed(f"manifest.json: keys missing or unknown: {', '.join(sorted(set(top) ^ wanted))}")
    if _number(top["format"], "format") != FORMAT:
        raise _malformed(f"manifest.json: format {top['format']} is not known here, {FORMAT} is")
    signatures, serial = _number(top["signatures"], "signatures"), _number(top["serial"], "serial")
    if signatures not in {1, 2}:
        raise _malformed(f"manifest.json: signatures is {signatures}, and can be 1 or 2")
    if serial not in SERIALS:
        raise _malformed(f"manifest.json: serial {serial} is not from 1 to 2^63 - 1")
    begin, end = _time(top["not_before"], "not_before"), _time(top["not_after"], "not_after")
    if begin >= end:
        raise _malformed("manifest.json: not_after is not later than not_before")
    files = {_path(path): _held(held, path) for path, held in _mapping(top["files"], "files").items()}
    _refuse_nesting(files)
    steps = top["apply"]
    if not isinstance(steps, list) or not steps:
        raise _malformed("manifest.json: apply is no list of steps")
    return Manifest(
        network=_text(top["network"], _NAME, "network"),
        topology_sha256=_text(top["topology_sha256"], _SHA256, "topology_sha256"),
        firewall=_text(top["firewall"], _NAME, "firewall"),
        managed_by=_text(top["managed_by"], _NAME, "managed_by"),
        signatures=signatures,
        serial=serial,
        not_before=begin,
        not_after=end,
        interfaces={
            _text(name, _INTERFACE, "interfaces"): _text(mac, _MAC, f"interfaces.{name}")
            for name, mac in _mapping(top["interfaces"], "interfaces").items()
        },
        apply=tuple(_step(step, files) for step in steps),
        crl=_held(top["crl"], "crl"),
        files=files,
    )


def _plain_step(step: Step) -> dict[str, object]:
    plain: dict[str, object] = {"file": step.file, "command": list(step.command)}
    return {**plain, "environment": dict(step.environment)} if step.environment else plain


def _step(plain: object, files: Mapping[str, Held]) -> Step:
    step = _mapping(plain, "apply")
    command = step.get("command")
    environment = _mapping(step.get("environment", {}), "apply.environment")
    if set(step) - {"environment"} != {"file", "command"} or not isinstance(command, list) or not command:
        raise _malformed("manifest.json: a step of apply is not of a file, a command and an environment")
    if not all(isinstance(word, str) for word in (*command, *environment.values())):
        raise _malformed("manifest.json: a step of apply holds what is no text")
    if step["file"] not in files:
        raise _malformed(f"manifest.json: apply names '{step['file']}', which is no file of the bundle")
    return Step(step["file"], tuple(command), tuple(environment.items()))


def _refuse_nesting(files: Mapping[str, Held]) -> None:
    for path in files:
        parts = path.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in files:
                raise _malformed(f"manifest.json: '{path}' lies below a file")


def _held(plain: object, what: str) -> Held:
    held = _mapping(plain, what)
    if set(held) != {"sha256", "size"}:
        raise _malformed(f"manifest.json: '{what}' has not just sha256 and size")
    size = _number(held["size"], what)
    if size < 0:
        raise _malformed(f"manifest.json: '{what}' has a size below zero")
    return Held(_text(held["sha256"], _SHA256, what), size)


def _path(path: str) -> str:
    if _PATH.match(path) is None or len(path) > _PATH_LENGTH:
        raise _malformed(f"manifest.json: '{path}' is no path that a file of a bundle may have")
    return path


def _time(value: object, what: str) -> datetime:
    try:
        return datetime.strptime(str(value), _TIME).replace(tzinfo=UTC)
    except ValueError as wrong:
        raise _malformed(f"manifest.json: {what} is no time in UTC such as 2026-11-01T00:00:00Z") from wrong


def _number(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _malformed(f"manifest.json: {what} is no whole number")
    return value


def _text(value: object, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or pattern.match(value) is None:
        raise _malformed(f"manifest.json: {what} is not of the form it must have")
    return value


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(f"manifest.json: {what} is no mapping")
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _malformed(text: str) -> Refused:
    return Refused(Code.MALFORMED, text)
