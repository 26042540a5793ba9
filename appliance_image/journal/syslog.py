"""Records as syslog messages (RFC 5424), counted in octets for a stream (RFC 5425, 4.3)."""

from __future__ import annotations

import re

from appliance_image.journal.channel import Stream
from appliance_image.journal.record import MOST_BYTES, MalformedError, Record, parse

_FACILITY = 13
"""Log audit (RFC 5424, 6.2.1)."""
_WARNING, _NOTICE = 4, 5
_WARNS = frozenset({"refused", "drift", "journal-damaged", "journal-recovered", "journal-full"})
_LARGEST_ID = 2**31 - 1
"""Of the parameter sequenceId (RFC 5424, 7.3.1), which begins with 1 again after it."""
_BOM = b"\xef\xbb\xbf"
"""Says that the message is UTF-8 (RFC 5424, 6.4)."""
_MOST = MOST_BYTES + 512
_MESSAGE = re.compile(
    rb"<\d{1,3}>1 (?P<time>\S+) (?P<host>\S+) netpolicy - (?P<event>\S+) "
    rb'\[meta sequenceId="(?P<seq>\d+)"\] ' + _BOM + rb"(?P<text>[^\n]+)",
)


def message(record: Record, host: str) -> bytes:
    """Return the message that carries a record whole."""
    severity = _WARNING if record.event in _WARNS else _NOTICE
    name = "".join(letter for letter in host if "!" <= letter <= "~")[:255] or "-"
    header = f"<{_FACILITY * 8 + severity}>1 {record.time} {name} netpolicy - {record.event}"
    data = f'[meta sequenceId="{_sequence_id(record.seq)}"]'
    return f"{header} {data} ".encode() + _BOM + record.line().removesuffix(b"\n")


def record_of(received: bytes) -> Record:
    """Return the record that a message carries.

    Raises:
        MalformedError: It carries none, or its header says something else.

    """
    found = _MESSAGE.fullmatch(received)
    if found is None:
        raise MalformedError("it is no message of a journal")
    record = parse(found["text"] + b"\n")
    said = (found["time"].decode(), found["event"].decode(), int(found["seq"]))
    if said != (record.time, record.event, _sequence_id(record.seq)):
        raise MalformedError("the header of the message is another record's")
    return record


def frame(octets: bytes) -> bytes:
    """Return a message with its length before it."""
    return f"{len(octets)} ".encode() + octets


def read_frame(stream: Stream) -> bytes | None:
    """Return the next message of a stream, None at its end.

    Raises:
        MalformedError: What comes is not counted so, or longer than a record can be.
        EOFError: The stream ended within a message.

    """
    length = b""
    while not length.endswith(b" "):
        octet = stream.read(1)
        if not octet and not length:
            return None
        if not octet:
            raise EOFError
        length += octet
        if not re.fullmatch(rb"[1-9][0-9]{0,4} ?", length):
            raise MalformedError("a message does not begin with its length")
    if int(length) > _MOST:
        raise MalformedError(f"a message is longer than {_MOST} octets")
    received = stream.read(int(length))
    if len(received) != int(length):
        raise EOFError
    return received


def _sequence_id(seq: int) -> int:
    return (seq - 1) % _LARGEST_ID + 1
