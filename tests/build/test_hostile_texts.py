"""Whatever people write into a topology is refused with its place, or reaches each program as it was written."""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conformance.lab import Lab
from conformance.lab.rooted import Root
from conformance.pki import issue_identities
from ids_rules.lock import SidLock
from ids_rules.signature import content
from netpolicy.build import compile_files, compile_topology
from netpolicy.diagnostics import InputError
from netpolicy.relay.text import quoted
from netpolicy.rooted.engine import dry_run
from netpolicy.topology.model import Topology
from tests.topology.writing import refusals, topology, write

_HOSTILE = (
    *(
        "a#b",
        "{x}",
        "a'b",
        "a,h2",
        "a\\",
        'a"b',
        "a b",
        "$(reboot)",
        "${HOME}",
        "`id`",
        "a;b",
        "a|41|b",
        "a\\;b",
        "%0a",
    ),
    *(
        "*/ } chain x {",
        "# }",
        "</title><script>",
        "\N{RIGHT-TO-LEFT OVERRIDE}x",
        "a\nb",
        "a\x00b",
        "\\",
        '"',
        "é",
        "%[src]",
    ),
    *(
        'include "/etc/shadow"',
        "..",
        "/",
        "-n",
        "a\u2028b",
        "a\x85b",
        "a\x1b[2J",
        "@/etc/passwd",
        "!include x",
        "<<: *x",
    ),
    *("住民", "'", "''", '""', "\\x", "\\n", "a\\\\", "x" * 201, "x" * 200, ""),
)
_FIELDS = ("title", "act", "affair", "owner", "alpn", "prologue", "identity", "own_identity", "interface")
_TEXTS = st.one_of(
    st.sampled_from(_HOSTILE),
    st.text(st.sampled_from("aZ0 #'\"\\{}[]$%;:|,()<>&*!?=/-._~`\t\n\r\x00\x1b\x7f\x85\u2028\u202eé住"), max_size=12),
    st.text(max_size=12),
)
_URIS = _TEXTS.map("urn:".__add__)


@pytest.fixture(name="root", scope="module")
def _root() -> Root:
    root = Root.find()
    assert root is not None, "make setup"
    return root


@settings(deadline=None, max_examples=150, derandomize=True)
@given(field=st.sampled_from(_FIELDS), text=_TEXTS | _URIS)
@example(field="alpn", text="a#b")
@example(field="identity", text="urn:a b")
@example(field="identity", text='urn:a"b')
@example(field="interface", text="eth0 up")
def test_refused_with_a_place_or_one_line_as_before(field: str, text: str) -> None:
    """No text makes a line, a rule or a word more than another text of its kind."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "topology.yaml")
        found: Topology | None
        try:
            found = topology(path, **{field: text})
        except InputError:
            found = None
        if found is None:
            assert refusals(path)
            for each in refusals(path):
                assert re.match(rf"{path}:\d+:\d+: error: .*; expected ", each)
                assert each.isprintable()
            return
        assert text.isprintable()
        plain = compile_files(topology(path), SidLock())
        files = compile_files(found, SidLock())
        assert [name for name in files if name.endswith((".cfg", ".nft", ".rules", ".batch"))] == [
            name for name in plain if name.endswith((".cfg", ".nft", ".rules", ".batch"))
        ]
        for name, content_ in files.items():
            if name == "manifest.json":
                continue
            assert len(content_.splitlines()) == len(plain[name].splitlines()), name
            if name.endswith(("haproxy.cfg", ".nft")):
                values = {"alpn": "app/1", "prologue": "JUKI"} | {field: text}
                wanted = _code(plain[name]).replace("app/1", values["alpn"])
                wanted = wanted.replace(b"JUKI".hex(), values["prologue"].encode().hex())
                wanted = wanted.replace("payload(0,4)", f"payload(0,{len(values['prologue'])})")
                assert _code(content_) == wanted, name
            if name.endswith(("clients.map", "servers.map")):
                for line in content_.splitlines():
                    assert len(line.split(" ")) == 2, line


def _code(text: str) -> str:
    """Return a text without what is in comments."""
    return "\n".join("#" if line.lstrip().startswith("#") else line for line in text.splitlines())


@given(text=st.text(min_size=1, max_size=40))
def test_words_of_haproxy(text: str) -> None:
    """What is written is read as one word, the same; what no word can hold is refused (HAProxy's manual, 2.2)."""
    try:
        written = quoted(text)
    except ValueError:
        assert not text.isprintable()
        return
    assert _words(f"alpn {written} end") == ["alpn", text, "end"]


def _words(line: str) -> list[str]:
    """Split a line as HAProxy does (``parse_line`` of its ``tools.c``)."""
    words, word, at, weak, strong = [""], 0, 0, False, False
    while at < len(line):
        letter = line[at]
        if letter == '"' and not strong:
            weak = not weak
        elif letter == "'" and not weak:
            strong = not strong
        elif letter == "\\" and not strong:
            at += 1
            assert not weak or line[at] in '"\\$', "weak quotes know these three"
            words[word] += line[at]
        elif letter == " " and not weak and not strong:
            words.append("")
            word += 1
        else:
            assert letter not in "#$" or strong or (letter == "#" and weak), "a comment, or a variable"
            words[word] += letter
        at += 1
    assert not weak
    assert not strong
    return words


@given(text=st.text(max_size=40))
def test_content_of_suricata(text: str) -> None:
    """What is written is read as the same octets; nothing in it ends the keyword."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    written = content(text)
    assert not set(written) & set('";:\\()')
    octets = b"".join(
        bytes.fromhex(part) if number % 2 else part.encode() for number, part in enumerate(written.split("|"))
    )
    assert octets == text.encode()


def test_each_hostile_text_is_judged(tmp_path: Path) -> None:
    """What the grammars of names and beginnings do not have is refused where it stands."""
    path = tmp_path / "topology.yaml"
    for field in ("alpn", "prologue", "interface"):
        for text in ("a#b", "{x}", "a'b", "a,h2", "a\\", 'a"b', "a b", "$x", "a;b", "é"):
            write(path, **{field: text})
            assert refusals(path), (field, text)
            assert all(re.match(rf"{path}:\d+:\d+: error: ", each) for each in refusals(path))
    for text in ("urn:a b", "urn:a\\", 'urn:a"b', "urn:{x}", "urn:<x>", "urn:%zz", "urn:`x`", "urn:a|b", "urn:a^b"):
        write(path, identity=text)
        assert refusals(path), text


def test_programs_take_hostile_texts(tmp_path: Path, root: Root) -> None:
    """nft, HAProxy and Suricata have nothing to say against texts that would mean something to them."""
    odd = "\\ \" ' # { } ; | $x ${HOME} %[src] `id` */ </title> 住民 é ,() \\"
    network = topology(
        tmp_path / "topology.yaml",
        title=odd,
        act=odd,
        affair=odd,
        owner=odd,
        alpn="a" + "/.-" * 80 + "z",
        prologue="a/.-0",
        identity="urn:x:a#b'c,d;e$(f)?g&h=%22*!@[1]~",
        own_identity="urn:x:#'",
    )
    build = tmp_path / "build"
    compile_topology(network, build)
    identities = issue_identities(network, tmp_path / "identities", now=datetime.now(UTC))
    with Lab(network, build, root, inline=False) as lab:
        assert set(lab.relays) == set(network.firewalls)
        for firewall, relay in lab.relays.items():
            for name in ("guard.nft", "nftables.nft"):
                command = ["nft", "-c", "-f", str(build / firewall / name)]
                done = lab.namespace(firewall).run(command, timeout=30)
                assert (done.returncode, done.stdout + done.stderr) == (0, ""), (firewall, name)
            relay.equip(identities.directory / firewall)
            assert relay.check() == ""
    for engine in sorted(build.glob("*/suricata/engine-*.yaml")):
        assert dry_run(root, engine.parent, engine.stem.removeprefix("engine-")) == []
