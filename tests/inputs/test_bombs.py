"""Every reader of foreign bytes refuses a bomb with a sentence and exit code 2, in little memory and little time."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import socket
import struct
import sys
import tarfile
import threading
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from netpolicy.cli import main
from netpolicy.proof import netlink
from tests.topology.writing import write

_MORE_MEMORY = 512 << 20
"""Bytes of address space that a reader may take beside what the test has: the largest bound, and a parser's tree."""
_SECONDS = 30
_GIGABYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class Ended:
    """How a reader ended."""

    code: int
    said: str


def _held(body: Callable[[], int], place: Path) -> Ended:
    """Run something in a process that is given little more memory than this one has, and little time."""
    out = place / "said"
    child = os.fork()
    if child == 0:  # pragma: no cover
        code = 99
        try:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            limit = pages * resource.getpagesize() + _MORE_MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            signal.alarm(_SECONDS)
            with out.open("w") as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                try:
                    code = body()
                except BaseException:  # noqa: BLE001 - it is told
                    traceback.print_exc()
                    code = 98
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), out.read_text(encoding="utf-8", errors="replace"))


def _refused(place: Path, *argv: str | Path, codes: Sequence[int] = (2,)) -> None:
    ended = _held(lambda: main([str(each) for each in argv]), place)
    assert ended.code in codes, ended
    assert "Traceback" not in ended.said
    assert "MemoryError" not in ended.said
    assert len(ended.said) < 1 << 20
    assert ended.said


def _sparse(path: Path, head: bytes = b"", size: int = 64 * _GIGABYTE) -> None:
    with path.open("wb") as stream:
        stream.write(head)
        stream.truncate(size)


_ODD: dict[str, Callable[[Path], None]] = {
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "fifo": os.mkfifo,
    "directory": Path.mkdir,
    "sparse": _sparse,
}
"""What may stand in the place of any file."""


def _text(text: str | bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    return make


_TOPOLOGIES: dict[str, Callable[[Path], None]] = _ODD | {
    "deep": _text("a: " + "[" * 500_000),
    "deep mapping": _text("{a: " * 200_000),
    "laughs": _text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
    "large number": _text("network: " + "9" * 1_000_000),
    "large scalar": _text("network: '" + "x" * 1_000_000 + "'"),
    "large key": _text("x" * 1_000_000 + ": 1"),
    "many keys": _text("".join(f"k{number}: 1\n" for number in range(60_000))),
    "many documents": _text("---\n" * 250_000),
    "no end": _text('"' + "\\" * 1_000_000),
}
_TABLES: dict[str, Callable[[Path], None]] = _ODD | {
    "large field": _text('id\n"' + "x" * 1_000_000 + '"\n'),
    "open quote": _text('id\n"' + "x\n" * 500_000),
    "wide": _text(",".join(f"c{number}" for number in range(200_000)) + "\n"),
    "many rows": _text("id\n" + "x\n" * 150_000),
    "zeros": _text(b"id\n" + bytes(1 << 20)),
}


def _many_elements(path: Path) -> None:
    with path.open("w", encoding="ascii") as stream:
        stream.write("table inet netpolicy\ndelete table inet netpolicy\ntable inet netpolicy { set s { type mark; ")
        stream.write("elements = { ")
        for begin in range(0, 10_000_000, 100_000):
            stream.write("".join(f"{number}," for number in range(begin, begin + 100_000)))
        stream.write("0 }; } }\n")


_RULESETS: dict[str, Callable[[Path], None]] = {
    "endless device": _ODD["endless device"],
    "fifo": _ODD["fifo"],
    "a gigabyte": lambda path: _sparse(path, b"table inet x {\n", _GIGABYTE),
    "many elements": _many_elements,
}


@pytest.mark.skipif(os.geteuid() != 0, reason="rulesets are loaded as root")
@pytest.mark.parametrize("bomb", list(_RULESETS))
def test_rulesets(tmp_path: Path, bomb: str) -> None:
    """A ruleset that nobody has compiled is refused before nft sees it."""
    topology, builds = tmp_path / "topology.yaml", [tmp_path / "before", tmp_path / "after"]
    write(topology)
    for build in builds:
        assert main(["compile", str(topology), "--out", str(build)]) == 0
    changed = builds[1] / "town-fw/nftables.nft"
    changed.unlink()
    _RULESETS[bomb](changed)
    _refused(tmp_path, "diff", *builds, "--firewall", "town-fw")
    _refused(tmp_path, "prove", topology, "--build", builds[1])


def test_answers_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's listing that does not end is an error after so many bytes, however quickly it comes."""
    monkeypatch.setattr(netlink, "_MOST_BYTES", 1 << 20)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    message = struct.pack("=IHHII", 1 << 15, 24, 2, 1, 0) + bytes((1 << 15) - 16)
    with ours, theirs, netlink.Netlink(netlink.NETLINK_ROUTE) as kernel:
        kernel.__dict__["_socket"].close()
        monkeypatch.setattr(kernel, "_socket", ours)
        threading.Thread(target=_send_until_closed, args=(theirs, message), daemon=True).start()
        with pytest.raises(netlink.MalformedError, match="too long"):
            list(kernel.ask(26, netlink.DUMP, bytes(12)))


def _send_until_closed(stream: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):
        while True:
            stream.send(message)


@pytest.mark.parametrize("bomb", list(_TOPOLOGIES))
def test_topology(tmp_path: Path, bomb: str) -> None:
    """YAML: depth, aliases, numbers, scalars."""
    _TOPOLOGIES[bomb](tmp_path / "topology.yaml")
    _refused(tmp_path, "check", tmp_path / "topology.yaml")


@pytest.mark.parametrize("bomb", list(_TABLES))
def test_tables(tmp_path: Path, bomb: str) -> None:
    """CSV: tables of templates, the numbers of signatures, pinned certificates."""
    topology = tmp_path / "topology.yaml"
    for name, argv in (
        ("table.csv", ("check", topology)),
        ("topology.sids.csv", ("compile", topology, "--out", tmp_path / "build")),
        ("pinned.csv", ("compile", topology, "--out", tmp_path / "build", "--certificates", tmp_path / "pinned.csv")),
    ):
        write(topology, "templates: {t: {table: table.csv, sites: {}}}" if name == "table.csv" else "")
        _TABLES[bomb](tmp_path / name)
        _refused(tmp_path, *argv)
        (tmp_path / name).rmdir() if (tmp_path / name).is_dir() else (tmp_path / name).unlink()
    assert not (tmp_path / "build").exists()


def _pax(path: Path, size: int = 480 << 20) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, size
    _sparse(path, entry.tobuf(tarfile.USTAR_FORMAT), size + (1 << 20))


def _large_member(path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = 7 << 30, 0o644
    _sparse(path, entry.tobuf(tarfile.USTAR_FORMAT), 8 << 30)


def _long_name(path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    _sparse(path, entry.tobuf(tarfile.GNU_FORMAT), (1 << 32) + (1 << 20))


def _holes(path: Path) -> None:
    """Write a header of GNU's sparse form whose list of holes never ends."""
    entry = tarfile.TarInfo("manifest.json")
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:512]))
    path.write_bytes(bytes(block) + (bytes(504) + b"\1" + bytes(7)) * 200_000)


_ARCHIVES: dict[str, Callable[[Path], None]] = _ODD | {
    "pax header": _pax,
    "long name": _long_name,
    "large manifest": lambda path: _large_member(path, "manifest.json"),
    "large signature": lambda path: _large_member(path, "manifest.cms"),
    "holes": _holes,
    "deep manifest": lambda path: _archive(path, {"manifest.json": b"[" * 900_000, "manifest.cms": b""}),
    "long signature": lambda path: _archive(
        path, {"manifest.json": b"{}", "manifest.cms": b"\x30\x84\xff\xff\xff\xff" + bytes(64)}
    ),
    "deep signature": lambda path: _archive(path, {"manifest.json": b"{}", "manifest.cms": b"\x30\x80" * 400_000}),
    "compressed": lambda path: path.write_bytes(zlib.compress(bytes(64 << 20))) and None,
    "many members": lambda path: _archive(path, {f"{number:06}": b"" for number in range(20_000)}),
}


def _archive(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))


@pytest.mark.parametrize("bomb", list(_ARCHIVES))
def test_archives(tmp_path: Path, bomb: str) -> None:
    """Bundles and image updates, before any signature; CMS and JSON inside them."""
    from appliance_image.agent.errors import AgentError
    from appliance_image.agent.release import Demand, opened

    path, trust = tmp_path / "x.bundle", tmp_path / "trust"
    trust.mkdir()
    _ARCHIVES[bomb](path)
    _refused(tmp_path, "bundle", "verify", "--trust", trust, path, codes=(1, 2))  # 1: no bundle that may run
    (tmp_path / "release.pem").write_bytes(b"")

    def update() -> int:
        try:
            with opened(path, tmp_path / "release.pem", Demand(1, b"")):
                return 0
        except AgentError as refused:
            print(f"{refused.code}: {refused.text}", file=sys.stderr)
            return 2

    ended = _held(update, tmp_path)
    assert ended.code == 2, ended
    assert "Traceback" not in ended.said


_DOCUMENTS: dict[str, Callable[[Path], None]] = _ODD | {
    "deep": _text("[" * 900_000),
    "deep mapping": _text('{"a":' * 300_000),
    "large number": _text("9" * 900_000),
    "open text": _text('"' + "x" * 900_000),
    "not UTF-8": _text(b"\xff\xfe" * 1000),
}


@pytest.mark.parametrize("bomb", list(_DOCUMENTS))
def test_documents(tmp_path: Path, bomb: str) -> None:
    """JSON: records of proofs, events of engines, reports of appliances, feeds of vulnerabilities."""
    topology, path = tmp_path / "topology.yaml", tmp_path / "x.json"
    write(topology)
    (tmp_path / "build").mkdir()
    _DOCUMENTS[bomb](path)
    _refused(tmp_path, "prove", topology, "--build", tmp_path / "build", "--check-record", path)
    if bomb in _ODD:
        return
    with path.open("ab") as stream:
        stream.write(b"\n")  # what has no end yet is a line that is still being written
    _refused(tmp_path, "alerts", path)


def test_events(tmp_path: Path) -> None:
    """EVE: one line of a gigabyte, and lines that nest; also where a directory is searched."""
    _sparse(tmp_path / "eve.json", b"{", _GIGABYTE)
    _refused(tmp_path, "alerts", tmp_path)
    (tmp_path / "eve.json").write_bytes(b"[" * 900_000 + b"\n")
    _refused(tmp_path, "alerts", tmp_path)


_PCAP = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0xFFFFFFFF, 1)
_PCAPNG = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
_INTERFACE = struct.pack("<IIHHII", 1, 20, 1, 0, 0, 20)
_CAPTURES: dict[str, Callable[[Path], None]] = _ODD | {
    "caplen": lambda path: _sparse(path, _PCAP + struct.pack("<IIII", 0, 0, 0xFFFFFFF0, 64), 8 * _GIGABYTE),
    "block": lambda path: _sparse(path, _PCAPNG + struct.pack("<II", 6, 0xFFFFFFF0), 8 * _GIGABYTE),
    "first block": lambda path: _sparse(path, struct.pack("<III", 0x0A0D0D0A, 0xFFFFFFF0, 0x1A2B3C4D), 8 * _GIGABYTE),
    "no interface": _text(_PCAPNG + struct.pack("<IIIIIIII", 6, 32, 7, 0, 0, 0, 0, 32)),
    "block of none": _text(_PCAPNG + _INTERFACE + struct.pack("<III", 6, 0, 0)),
    "gzip": lambda path: path.write_bytes(zlib.compress(bytes(64 << 20), wbits=31)) and None,
    "zeros": _text(bytes(1 << 20)),
}


@pytest.mark.parametrize("bomb", list(_CAPTURES))
def test_captures(tmp_path: Path, bomb: str) -> None:
    """Pcap and pcapng: lengths of frames and blocks."""
    topology, path = tmp_path / "topology.yaml", tmp_path / "x.pcap"
    write(topology)
    _CAPTURES[bomb](path)
    _refused(tmp_path, "explain", topology, "--pcap", path)


@pytest.mark.parametrize("bomb", list(_ODD))
def test_journal(tmp_path: Path, bomb: str) -> None:
    """A segment that is no file, or one line without end; keys."""
    journal, segment = tmp_path / "journal", tmp_path / "journal" / "000001.jsonl"
    journal.mkdir()
    _ODD[bomb](segment)
    ended = _held(lambda: main(["journal", "verify", str(journal)]), tmp_path)
    assert ended.code in {1, 2}, ended
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("bomb", list(_ODD))
def test_certificates(tmp_path: Path, bomb: str) -> None:
    """PEM: authorities, lists and keys that the command line names; an authority's own list of what it issued."""
    path, trust = tmp_path / "x.pem", tmp_path / "trust"
    trust.mkdir()
    (tmp_path / "x.bundle").write_bytes(b"")
    _ODD[bomb](path)
    _refused(tmp_path, "bundle", "verify", "--trust", trust, "--stored-crl", path, tmp_path / "x.bundle", codes=(1, 2))
    topology, pki = tmp_path / "topology.yaml", tmp_path / "pki"
    write(topology)
    pki.mkdir()
    (pki / "network").write_text("small\n", encoding="utf-8")
    _ODD[bomb](pki / "issued.csv")
    _refused(tmp_path, "pki", "status", topology, pki)


def test_der(tmp_path: Path) -> None:
    """DER: lengths beyond the end, depth beyond reason, in what a signature or a list holds."""
    from appliance_image.bundle import cms
    from appliance_image.bundle.certificate import certificates, lists
    from appliance_image.bundle.der import DerError

    hostile: Sequence[bytes] = (
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80" * 500_000,
        b"\x30\x82\xff\xff" * 100_000,
        b"\xbf" + b"\xff" * 1_000_000,
        b"\x30\x89" + b"\xff" * 9,
    )

    def read() -> int:
        from base64 import b64encode

        for der in hostile:
            pem = {
                name: b"-----BEGIN %s-----\n" % name + b64encode(der) + b"\n-----END %s-----\n" % name
                for name in (b"CERTIFICATE", b"X509 CRL")
            }
            for call in (
                lambda der=der: cms.split(der),
                lambda pem=pem: certificates(pem[b"CERTIFICATE"]),
                lambda pem=pem: lists(pem[b"X509 CRL"]),
            ):
                try:
                    list(call())
                except DerError:
                    continue
                return 1
        print("refused")
        return 2

    ended = _held(read, tmp_path)
    assert ended.code == 2, ended


@pytest.mark.parametrize("bomb", [*_ODD, "long line"])
def test_vendor(tmp_path: Path, bomb: str) -> None:
    """Rules of a vendor."""
    path = tmp_path / "vendor.rules"
    _text(b"alert " * 2_000_000)(path) if bomb == "long line" else _ODD[bomb](path)

    def read() -> int:
        from ids_rules.vendor import read_vendor
        from netpolicy.diagnostics import InputError

        try:
            read_vendor([path])
        except InputError as refused:
            print(str(refused)[:1000])
            return 2
        return 1

    ended = _held(read, tmp_path)
    assert ended.code == 2, ended
