"""``netpolicy proof``: the proof's model of rulesets by itself."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.modelled.replay import Replayed

_HOLDS, _FINDING, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "proof", help="try the proof's model of rulesets", description="Hold the proof's model against this kernel."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    replay = commands.add_parser(
        "replay",
        help="hold the model against the kernel for rulesets of others",
        description="Load every *.nft file below FOLDER in a namespace of its own, send packets at the edges of its "
        "rules, and compare where each one falls with what the model says. 0 if every file agrees, or is refused by "
        "the name of what the model does not know; 1 if one disagrees. Needs root.",
    )
    replay.add_argument("folder", metavar="FOLDER", type=Path)
    replay.add_argument("--json", action="store_true", help="print the files as JSON")
    replay.set_defaults(run=run_replay)


def run_replay(args: argparse.Namespace) -> int:
    """Run the command."""
    from conformance.lab.preflight import LAB, missing
    from conformance.modelled.replay import Answer, replay_folder

    if not args.folder.is_dir() or not any(args.folder.rglob("*.nft")):
        print(f"netpolicy: {args.folder} holds no *.nft file", file=sys.stderr)
        return _BAD_INPUT
    lacking = [str(each) for each in missing() if each.needed_for == LAB] if os.geteuid() == 0 else ["root"]
    if lacking:
        print(f"netpolicy: this machine lacks {'; '.join(lacking)}", file=sys.stderr)
        return _MACHINE_LACKS
    found = []
    for each in replay_folder(args.folder):
        found.append(each)
        if not args.json:
            _print(each)
    if args.json:
        print(json.dumps([asdict(each) for each in found], indent=2))
    else:
        _print_counts(found)
    return _FINDING if any(each.answer is Answer.DISAGREES for each in found) else _HOLDS


def _print(each: Replayed) -> None:
    tried = f"{each.packets} packets, {each.rules_matched} of {each.rules} rules decided some" if each.packets else ""
    print(f"{each.file}: {each.answer}{': ' if each.reason or tried else ''}{each.reason or tried}", flush=True)
    for disagreement in each.disagreements:
        print(disagreement)


def _print_counts(found: list[Replayed]) -> None:
    answers = Counter(str(each.answer) for each in found)
    print(f"\n{len(found)} files: " + ", ".join(f"{count} {answer}" for answer, count in answers.most_common()))
    for answer in ("refused", "not loaded"):
        for reason, count in Counter(each.reason for each in found if each.answer == answer).most_common():
            print(f"  {count} {answer}: {reason}")
