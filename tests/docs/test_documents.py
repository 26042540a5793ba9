"""What the documents say can be typed and followed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from netpolicy.cli import parser
from tests.docs.source import ROOT

_DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)|(?:src|href)=\"(?P<attribute>[^\"]+)\"")
_PROMPTS = ("$ ", "# ")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def _typed(document: str) -> Iterator[list[str]]:
    """Yield the commands that a document shows after a prompt."""
    for fence in _FENCE.finditer((ROOT / document).read_text(encoding="utf-8")):
        if fence["language"] != "console":
            continue
        for line in fence["body"].replace("\\\n", " ").splitlines():
            if line.startswith(_PROMPTS):
                words = shlex.split(line[2:], comments=True)
                yield words[1:] if words[:1] == ["sudo"] else words


def _anchors(document: Path) -> set[str]:
    """Return the anchors that a forge gives to the headings of a document."""
    text = _FENCE.sub("", document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in _HEADING.findall(text)}


def _taken(arguments: list[str]) -> bool:
    try:
        parser().parse_args(arguments)
    except SystemExit as end:
        return end.code == 0  # --help and --version end by themselves
    return True


def test_there_are_documents() -> None:
    """The newcomer's page and the reference pages exist, and the first shows commands of both kinds."""
    assert {"README.md", "CHANGELOG.md", "docs/architecture.md", "docs/language.md"} <= set(_DOCUMENTS)
    shown = list(_typed("README.md"))
    assert ["make", "demo"] in shown
    assert any(Path(words[0]).name == "netpolicy" for words in shown)


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_commands_parse(document: str) -> None:
    """Each netpolicy command line shown is one that netpolicy takes, and each make target exists."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in _typed(document):
        if Path(words[0]).name == "netpolicy":
            assert _taken(words[1:]), words
        elif words[0] == "make":
            assert set(words[1:]) <= targets


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_links_resolve(document: str) -> None:
    """Each link to a file of the project leads to one, and to a heading that it has."""
    path = ROOT / document
    broken = []
    for link in _LINK.finditer(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        target = link["target"] or link["attribute"]
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_command_is_documented() -> None:
    """Every command of netpolicy appears in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    (\w+) ", parser().format_help(), re.MULTILINE)
    assert "compile" in commands
    assert [name for name in commands if f"netpolicy {name}" not in text] == []
