"""One usage record: a line of JSON that names the hash of the line before it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Scalar = str | int | bool | None
Value = Scalar | Sequence[Scalar]
Fields = Mapping[str, Value]

START = "0" * 64
"""What the first record names as the hash before it."""
MOST_BYTES = 8192
"""The longest line, its newline included."""
_LONGEST_TEXT, _LONGEST_LIST = 256, 8
"""What is left of a value where a record would be longer than a line may be."""
_LARGEST = 2**53
"""Integers beyond it are not the same number everywhere (RFC 8259, 6)."""
_DOMAIN = b"netpolicy journal 1\n"
_EVENT = re.compile(r"[a-z][a-z0-9-]{0,31}")
"""A MSGID of RFC 5424 has at most 32 characters."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class MalformedError(ValueError):
    """A line is not a record, or not the one that was written."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as it stands in the journal."""

    seq: int
    """From 1, without gaps."""
    time: str
    """RFC 3339, UTC, microseconds. The clock may have been set: only `seq` gives the order."""
    event: str
    fields: Fields
    previous: str
    """Hash of the record before, or START."""
    hash: str
    """SHA-256 of this record without this member."""

    def line(self) -> bytes:
        """Return the one way in which the record is written."""
        return _line(_body(self), self.hash)

    def document(self) -> dict[str, object]:
        """Return the record as JSON has it."""
        return {**_members(self), "hash": self.hash}


def make(seq: int, time: datetime, event: str, fields: Fields, previous: str) -> Record:
    """Return a record with its hash.

    What is too long for a line is shortened, and says so with its own hash: an operation that has begun is never left
    without its record for the length of an error message.

    Raises:
        ValueError: The event or a field is not one that a record can have.

    """
    if not _EVENT.fullmatch(event):
        raise ValueError(f"'{event}' is no name of an event")
    stamp = time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)  # years before 1000 have no zeros
    kept = {name: _value(name, value) for name, value in fields.items()}
    record = _hashed(Record(seq, stamp, event, kept, previous, ""))
    if len(record.line()) > MOST_BYTES:
        record = _hashed(Record(seq, stamp, event, {k: _shortened(v) for k, v in kept.items()}, previous, ""))
    if len(record.line()) > MOST_BYTES:
        raise ValueError(f"the record of '{event}' is longer than {MOST_BYTES} bytes")
    return record


def parse(line: bytes) -> Record:
    """Return the record of a whole line.

    Raises:
        MalformedError: It is not, byte for byte, what `make` gives.

    """
    if len(line) > MOST_BYTES or not line.endswith(b"\n"):
        raise MalformedError("it is no whole line")
    try:
        read = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedError("it is no JSON") from None
    if not isinstance(read, dict) or list(read) != ["seq", "time", "event", "fields", "previous", "hash"]:
        raise MalformedError("it has not the members of a record")
    record = Record(**read)
    if not _is_record(record):
        raise MalformedError("a member is not what a record has")
    body = _body(record)
    if _line(body, record.hash) != line:
        raise MalformedError("it is not written as records are")
    if _digest(body) != record.hash:
        raise MalformedError("its hash does not match what it says")
    return record


def _is_record(record: Record) -> bool:
    return (
        _is_integer(record.seq)
        and record.seq > 0
        and all(isinstance(text, str) for text in (record.time, record.event, record.previous, record.hash))
        and bool(_TIME.fullmatch(record.time))
        and bool(_EVENT.fullmatch(record.event))
        and bool(_HASH.fullmatch(record.previous))
        and bool(_HASH.fullmatch(record.hash))
        and isinstance(record.fields, dict)
        and all(_NAME.fullmatch(name) for name in record.fields)
        and all(_is_value(value) for value in record.fields.values())
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _is_integer(value)


def _is_value(value: object) -> bool:
    return _is_scalar(value) or (isinstance(value, list) and all(_is_scalar(item) for item in value))


def _value(name: str, value: Value) -> Value:
    if isinstance(value, tuple):
        value = list(value)
    if not _NAME.fullmatch(name) or not _is_value(value):
        raise ValueError(f"field '{name}' is not one that a record can have")
    if isinstance(value, list):
        return [_text(item) if isinstance(item, str) else item for item in value]
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    """Return text that UTF-8 has: names of files may hold bytes that are none."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _shortened(value: Value) -> Value:
    if isinstance(value, str):
        if len(value) <= _LONGEST_TEXT:
            return value
        whole = hashlib.sha256(value.encode()).hexdigest()
        return f"{value[:_LONGEST_TEXT]}… ({len(value)} characters, sha256 {whole})"
    if isinstance(value, list):
        kept = [item if not isinstance(item, str) else item[:_LONGEST_TEXT] for item in value[:_LONGEST_LIST]]
        whole = hashlib.sha256(json.dumps(value).encode()).hexdigest()
        return [*kept, f"… ({len(value)} entries, sha256 {whole})"]
    return value


def _members(record: Record) -> dict[str, object]:
    return {
        "seq": record.seq,
        "time": record.time,
        "event": record.event,
        "fields": dict(record.fields),
        "previous": record.previous,
    }


def _body(record: Record) -> bytes:
    text = json.dumps(_members(record), ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "backslashreplace")


def _line(body: bytes, digest: str) -> bytes:
    return body[:-1] + f',"hash":"{digest}"}}\n'.encode()


def _digest(body: bytes) -> str:
    return hashlib.sha256(_DOMAIN + body).hexdigest()


def _hashed(record: Record) -> Record:
    return Record(record.seq, record.time, record.event, record.fields, record.previous, _digest(_body(record)))
