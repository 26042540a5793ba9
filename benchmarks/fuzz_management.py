"""Seeded mutations of everything that the management's parsers take, in this process: no exception but a refusal.

    fuzz_management.py --seed S --inputs N

What a peer sends before and after its handshake is read by :mod:`appliance_image.management.protocol`,
:mod:`~appliance_image.management.renewal` and :class:`~appliance_image.management.transport.Lines`; what the other half
of the appliance sends by :mod:`~appliance_image.management.endpoint`. Each input is a good one that was changed, or one
of the grammar's corners. It ends with 1 at the first uncaught exception, or where an input takes more time or memory
than any may.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from appliance_image.management import endpoint, protocol, renewal
from appliance_image.management.errors import LinkError, RefusedError
from appliance_image.management.transport import CHUNK, Lines

_SECONDS = 2.0
"""For one input: the machine is shared."""
_BYTES = 96 << 20
"""That the process may grow by."""
_ID = "0123456789abcdef0123456789abcdef"
_REPLIES: protocol.Document = {
    "answer": {},
    "progress": "apply",
    "continue": 1,
    "refused": {"code": "x", "retry_after": 1},
}
_GOOD = [
    *(protocol.Request(name, {}).line() for name in ("status", "drift")),
    protocol.Request("journal", {"since": 1, "most": 1000}).line(),
    *(protocol.Request(name, {"request": _ID}).line() for name in ("outcome", "confirm", "rollback", "restart")),
    protocol.Request("apply", {"request": _ID, "confirm": 60}, 1 << 20).line(),
    protocol.Request("image-update", {"request": _ID}, 1 << 28).line(),
    *(protocol.encode({kind: said}) for kind, said in _REPLIES.items()),
]
_RENEWAL = json.dumps({"chain.pem": "a" * 40, "crl.pem": "b" * 40, "key.pem": "c" * 40}).encode()
_FLOW = {"flow": "manage", "ports": [17100], "families": [4, 6], "prologue": "JUKI", "operators": ["urn:x:y"]}
_ENDPOINT = json.dumps(
    {"format": 1, "firewall": "edge", "uri": "urn:n:fw", "flows": [{**_FLOW, "alpn": protocol.ALPN}]}
).encode()
_CORNERS = [
    b"",
    b"\n",
    b"{" * 4000,
    b"[" * 4000,
    b'{"a":' * 800,
    b'"' + b"\\u0000" * 600 + b'"',
    b'{"command":"\\ud800","arguments":{},"size":0}',
    b"1" * 4090,
    b"-" + b"9" * 4000,
    b"1e999999",
    b'{"command":"status","arguments":{},"size":1' + b"0" * 3900 + b"}",
    b'{"command":"status","command":"drift","arguments":{},"size":0}',
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"NaN",
    b'{"size":Infinity}',
    b"\x16\x03\x01\x02\x00\x01\x00",
]
_TOKENS = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\n", b"\r", b"\0"),
    *(b"\xff", b"\xc3\x28", b"\\ud800", b"\\u0000"),
    *(b"null", b"true", b"-1", b"-0", b"1e400", b"9007199254740993", b"NaN", b"0.1"),
    *(b'"size"', b'"command"', b'"request"'),
]


@dataclass
class Found:
    """What came of all inputs."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


class _Source:
    """Gives bytes as a connection does: in parts of any length."""

    def __init__(self, content: bytes, chance: random.Random) -> None:
        self._content, self._chance = content, chance

    def send(self, data: bytes) -> None:
        """Take nothing."""

    def receive(self, most: int) -> bytes:
        """Return the next part."""
        size = self._chance.randint(1, max(1, min(most, CHUNK, 1 + len(self._content))))
        part, self._content = self._content[:size], self._content[size:]
        return part


def mutated(chance: random.Random, good: bytes) -> bytes:
    """Return an input with some changes."""
    if chance.random() < 0.02:
        return chance.choice(_CORNERS)
    found = bytearray(good)
    for _ in range(chance.randint(0, 4)):
        at = chance.randint(0, len(found))
        kind = chance.randrange(6)
        if kind == 0 and found:
            found[at % len(found)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at:at] = chance.choice(_TOKENS)
        elif kind == 2:
            del found[at : at + chance.randint(1, 20)]
        elif kind == 3:
            found[at:at] = found[at : at + chance.randint(1, 40)] * chance.randint(1, 8)
        elif kind == 4:
            found[at : at + 4] = chance.randbytes(chance.randint(0, 8))
        else:
            other = chance.choice(_GOOD)
            found[at:] = other[chance.randint(0, len(other)) :]
    return bytes(found)


def _request(content: bytes, _: random.Random) -> None:
    protocol.request(protocol.decode(content))


def _reply(content: bytes, _: random.Random) -> None:
    kind, said = protocol.reply(protocol.decode(content))
    if kind == "refused":
        protocol.refused(said)


def _lines(content: bytes, chance: random.Random) -> None:
    lines = Lines(_Source(content, chance), protocol.MOST_REQUEST)
    while (line := lines.line()) is not None:
        if len(line) > protocol.MOST_REQUEST:
            raise AssertionError("a line is longer than any may be")
        protocol.request(protocol.decode(line))


def _renewal(content: bytes, _: random.Random) -> None:
    renewal.unpack(content)


def _endpoint(content: bytes, _: random.Random) -> None:
    endpoint.read(content).sockets()


_TARGETS: list[tuple[str, Callable[[bytes, random.Random], None], list[bytes]]] = [
    ("request", _request, _GOOD),
    ("reply", _reply, _GOOD),
    ("lines", _lines, [b"".join(_GOOD[:4]), *_GOOD]),
    ("renewal", _renewal, [_RENEWAL]),
    ("endpoint", _endpoint, [_ENDPOINT]),
]


def inputs(seed: int, count: int) -> Iterator[tuple[str, Callable[[bytes, random.Random], None], bytes, random.Random]]:
    """Yield inputs, each with the parser that is to read it."""
    chance = random.Random(seed)  # noqa: S311 - so that others can choose the seed
    for number in range(count):
        name, target, good = _TARGETS[number % len(_TARGETS)]
        yield name, target, mutated(chance, chance.choice(good)), chance


def fuzz(seed: int, count: int) -> Found:
    """Have every input read.

    Raises:
        AssertionError: One takes more time or memory than it may; names it.
        Exception: What a parser lets out, of which there must be none.

    """
    found = Found()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, target, content, chance in inputs(seed, count):
        begun = time.thread_time()
        try:
            target(content, chance)
            outcome = "taken"
        except RefusedError as refused:
            outcome = refused.code
        except LinkError:
            outcome = "link"
        except Exception as failed:
            failed.add_note(f"{name}: {content!r}")
            raise
        took = time.thread_time() - begun
        found.slowest = max(found.slowest, took)
        found.outcomes[f"{name} {outcome}"] += 1
        if took > _SECONDS:
            raise AssertionError(f"{name}: {took:.1f} s for {content!r}")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    if grown > _BYTES:
        raise AssertionError(f"the process has grown by {grown} bytes")
    return found


def main() -> int:
    """Fuzz, and tell what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    args = parser.parse_args()
    found = fuzz(args.seed, args.inputs)
    for outcome, count in sorted(found.outcomes.items()):
        print(f"{outcome:32} {count:>9,}")
    print(f"{args.inputs:,} inputs, 0 uncaught; the slowest took {found.slowest * 1000:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
