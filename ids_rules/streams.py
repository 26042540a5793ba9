"""What the engine and the kernel behind it read as two connections, or as two streams of one.

The engine judges first, and believes segments that the kernel then drops; of some that the kernel takes it reads no
stream. Nothing passes on the strength of either (docs/engine.md, "Connections that end for one of two").
"""

from __future__ import annotations

from collections.abc import Iterator

from ids_rules.events import STREAM, STREAM_BYTES
from ids_rules.signature import SILENT, Action, Classtype, Signature
from ids_rules.tls_policy import HELLO_BYTES

_OPTIONS = "|".join(rf"\x{length:02x}.{{{length - 2}}}" for length in range(2, 41))
_FAST_OPEN = (
    "tcp.hdr",
    'content:"|22|"; offset:20',
    rf'pcre:"/^.{{20}}(?:[\x00\x01]|[\x02-\xff](?:{_OPTIONS}))*?\x22/s"',
)
"""Option 34 (RFC 7413), found by walking over those before it."""


def streams() -> Iterator[Signature]:
    """Yield the signatures of what is no part of a stream that is read."""
    for event, message in STREAM.items():
        yield _of_stream("stream-" + event.replace("_", "-"), Action.DROP, message, (f"stream-event:{event}",))
    for event, message in STREAM_BYTES.items():
        match = ("dsize:>0", f"stream-event:{event}")
        yield _of_stream("stream-" + event.replace("_", "-"), Action.DROP, message, match)
    # Who ends a connection with a segment that the kernel drops, and begins it anew with another, has two connections:
    # one here that has only begun, of which no stream is read, and the kernel's, which is the old one.
    yield _of_stream(
        "stream-unestablished",
        Action.DROP,
        "bytes outside of an established connection",
        ("flow:not_established", "dsize:>0"),
    )
    # Of a segment with this option the engine reads no stream, whatever its flags are; the kernel of the far end does.
    yield _of_stream("stream-fast-open", Action.DROP, "TCP Fast Open", _FAST_OPEN)
    yield from _ended()


def _ended() -> Iterator[Signature]:
    """Yield what stops an end that goes on after it has ended its connection.

    The engine believes a FIN or RST that the kernel behind it drops (RST with data, FIN without ACK, one that
    acknowledges what was never said), and from then on reads no stream; to the kernel the connection lives.  A FIN
    counts while no more than a ClientHello has been said: later, what was lost before it may still come.
    """
    for end, direction in (("client", "to_server"), ("server", "to_client")):
        bit = f"netpolicy.ended.{end}"
        ways: dict[str, tuple[str, ...]] = {"reset": ("flags:R+",)}
        if end == "client":
            ways["fin"] = ("flags:F+", f"stream_size:client,<,{HELLO_BYTES}")
        for way, match in ways.items():
            yield _of_stream(
                f"stream-{way}-{end}",
                Action.ALERT,
                f"the {end} ends the connection",
                (f"flow:{direction}", *match, f"flowbits:set,{bit}", SILENT),
            )
        yield _of_stream(
            f"stream-goes-on-{end}",
            Action.DROP,
            f"the {end} goes on after it has ended the connection",
            (f"flow:{direction}", "dsize:>0", f"flowbits:isset,{bit}"),
        )


def _of_stream(kind: str, action: Action, message: str, match: tuple[str, ...]) -> Signature:
    return Signature(
        id=kind,
        action=action,
        header="tcp any any -> any any",
        message=message,
        match=match,
        classtype=Classtype.PROTOCOL_COMMAND_DECODE,
        technique="T1599",
        reference="www.rfc-editor.org/rfc/rfc9293",
    )
