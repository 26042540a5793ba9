"""Rules of a vendor, to stand beside ours: what is refused first, and the merge by suricata-update.

suricata-update leaves out what it cannot parse without a word, only warns of numbers that occur twice, and disables
rules whose dataset is not where it looks (ours among them).  So all of a vendor's file is judged here before it runs,
ours never go through it, and what it returns is compared with what it was given.
"""

from __future__ import annotations

import difflib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from suricata.update import rule as suricata_rule

from ids_rules.lock import FIRST, LAST
from ids_rules.version import NEWEST, Suricata
from netpolicy.diagnostics import Diagnostic, InputError, Severity
from netpolicy.environment import ENVIRONMENT
from netpolicy.inputs import read_regular
from netpolicy.topology.model import Place

MAX_BYTES = 256 * 1024 * 1024
ACTIONS = ("alert", "drop")
"""What a vendor's rule may do. ``pass`` would let through what ours drop; ``reject`` has no address to answer from."""
SEEN_NO_MORE = ("bypass",)
"""Keywords that take a connection away from the engine, and so from our rules."""
_SURICATA = {Suricata.V7: "7.0.10", Suricata.V8: "8.0.8"}
_SECONDS = 600.0
_LONGEST = 8190
"""Bytes of a line (DETECT_MAX_RULE_SIZE of Suricata's detect-engine-loader.c, less the end of line and of text)."""
_RULE = re.compile(r"#*\s*(?P<action>[a-z]+)\s[^(]*\(.*\)\s*")
_REFUSED = re.compile(r"error parsing signature .* at line (\d+)", re.DOTALL)
_OPTIONS = re.compile(r'"(?:\\.|[^"\\])*"')
_UNPARSABLE = "a rule: ACTION PROTOCOL SOURCE PORT -> DESTINATION PORT (…; sid:N; rev:N;)"


class MergeError(Exception):
    """suricata-update did not do what it should."""


@dataclass(frozen=True, slots=True)
class VendorFile:
    """A rule file that may stand beside ours."""

    path: Path
    text: str
    rules: tuple[VendorRule, ...]


@dataclass(frozen=True, slots=True)
class VendorRule:
    """One rule of it that is not disabled."""

    gid: int
    sid: int
    line: int


def read_vendor(paths: Iterable[Path]) -> tuple[VendorFile, ...]:
    """Return the rule files of vendors.

    Raises:
        InputError: A line is neither a rule nor a comment, a rule does what none of a vendor's may do, or its number
            occurs twice or is one of ours; all of it, with its lines.
        OSError: A file cannot be read.

    """
    found, wrong, seen = [], list[Diagnostic](), dict[tuple[int, int], Place]()
    for path in paths:
        try:
            text = read_regular(path, MAX_BYTES).decode("utf-8")
        except OSError as refused:
            what = f"the file cannot be read: {refused.strerror}"
            raise InputError([_wrong(path, 1, what, f"a regular file of at most {MAX_BYTES} bytes")]) from refused
        except UnicodeDecodeError as error:
            raise InputError([_wrong(path, 1, f"byte {error.start} is not UTF-8", "a rule file")]) from error
        wrong.extend(_read_otherwise(path, text))
        rules = []
        for number, line in _lines(text):
            try:
                each = _rule(path, number, line)
            except InputError as refused:
                wrong.extend(refused.diagnostics)
                continue
            if each is None:
                continue
            first = seen.setdefault((each.gid, each.sid), Place(str(path), number, 1))
            if first != Place(str(path), number, 1):
                wrong.append(_wrong(path, number, f"sid {each.sid} stands at {first} already", "a number of its own"))
            rules.append(each)
        if not rules:
            wrong.append(_wrong(path, 1, "there is no rule in it", _UNPARSABLE))
        found.append(VendorFile(path, text, tuple(rules)))
    if wrong:
        raise InputError(wrong)
    return tuple(found)


def keywords(rule: str) -> frozenset[str]:
    """Return the names of a rule's options."""
    return frozenset(each.split(":")[0].strip() for each in _OPTIONS.sub("", rule.partition("(")[2]).split(";"))


def complaints(path: Path, said: Iterable[str]) -> list[Diagnostic]:
    """Return what Suricata said against the rules in `path`, by their lines; it names reasons before places."""
    found, reasons = list[Diagnostic](), list[str]()
    for each in said:
        place = _REFUSED.search(each)
        if place is None:
            reasons.append(each)
            continue
        found.append(
            _wrong(path, int(place[1]), f"Suricata does not take this rule: {'; '.join(reasons)}", "one it does")
        )
        reasons.clear()
    return found or [_wrong(path, 1, f"Suricata does not take this file: {'; '.join(reasons)}", "one it does")]


def merge(files: Sequence[VendorFile], version: Suricata = NEWEST) -> str:
    """Return one rule file of several, as suricata-update merges them.

    Raises:
        MergeError: suricata-update failed, or left out or disabled a rule.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        work = Path(directory)
        nothing = work / "nothing"
        nothing.mkdir()
        sources = []
        for number, file in enumerate(files):
            source = work / f"{number}.rules"
            source.write_text(file.text, encoding="utf-8")
            sources.append(source.as_uri())
        settings = {"sources": sources, "dist-rule-directory": str(nothing)}
        (work / "update.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        argv = [
            *(sys.executable, "-m", "suricata.update.main", "update", "--quiet", "--force", "--fail"),
            *("--config", str(work / "update.yaml"), "--data-dir", str(work / "data")),
            *("--output", str(work / "out"), "--suricata-version", _SURICATA[version]),
            *("--suricata-conf", str(nothing / "none"), "--no-test", "--no-reload"),
        ]
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=work, env=ENVIRONMENT
        )
        merged = work / "out" / "suricata.rules"
        if done.returncode != 0 or not merged.is_file():
            raise MergeError(f"suricata-update failed: {(done.stderr or done.stdout).strip()}")
        text = merged.read_text(encoding="utf-8")
    kept = {(each.gid, each.sid) for line in text.splitlines() if (each := suricata_rule.parse(line)) and each.enabled}
    lost = sorted({(each.gid, each.sid) for file in files for each in file.rules} - kept)
    if lost:
        raise MergeError(f"suricata-update left out {len(lost)} rules, the first of them sid {lost[0][1]}")
    return text


def _read_otherwise(path: Path, text: str) -> Iterator[Diagnostic]:
    """Yield lines that Suricata does not read as they stand: it reads pieces, and each begins a line of its own."""
    for number, line in enumerate(text.split("\n"), 1):
        if len(line.encode()) > _LONGEST:
            yield _wrong(
                path, number, "the line is too long", f"at most {_LONGEST} bytes, which Suricata reads at once"
            )
        if "\0" in line:
            yield _wrong(path, number, "there is a zero byte in the line", "text")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield rules that may go over several lines, by the number of their first; a comment never does."""
    first, whole = 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not whole:
            first = number
            if line.startswith("#"):
                continue
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        yield first, (whole + line).strip()
        whole = ""
    if whole:
        yield first, whole.strip()


def _rule(path: Path, number: int, line: str) -> VendorRule | None:
    """Return the rule in a line; None for a comment, a disabled rule and an empty line.

    Raises:
        InputError: It is something else, or not one that a vendor's may be.

    """
    if not line or line.startswith("#"):
        return None
    shape = _RULE.fullmatch(line)
    if shape is None:
        raise InputError([_wrong(path, number, f"'{line[:60]}' is no rule", _UNPARSABLE)])
    action = shape["action"]
    if action not in ACTIONS:
        near = difflib.get_close_matches(action, ACTIONS, 1)
        raise InputError(
            [_wrong(path, number, f"action '{action}' is not taken", " or ".join(ACTIONS), near[0] if near else None)]
        )
    try:
        parsed = suricata_rule.parse(line)
    except Exception as error:  # its own kinds, and what int() and slices raise
        raise InputError([_wrong(path, number, f"suricata-update cannot parse this: {error}", _UNPARSABLE)]) from error
    if parsed is None:
        raise InputError([_wrong(path, number, "suricata-update cannot parse this", _UNPARSABLE)])
    for keyword in SEEN_NO_MORE:
        if keyword in keywords(line):
            raise InputError(
                [_wrong(path, number, f"'{keyword}' takes connections away from our rules", "no such one")]
            )
    if parsed.gid == 1 and FIRST <= parsed.sid <= LAST:
        raise InputError([_wrong(path, number, f"sid {parsed.sid} is one of ours", f"none of {FIRST} to {LAST}")])
    return VendorRule(parsed.gid, parsed.sid, number)


def _wrong(path: Path, line: int, message: str, expected: str, nearest: str | None = None) -> Diagnostic:
    return Diagnostic(Place(str(path), line, 1), Severity.ERROR, message, expected, nearest)
