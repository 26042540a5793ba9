"""``netpolicy image audit``: how hard an image is, in figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

_HOLDS, _OVER, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to those of ``netpolicy image``."""
    parser = subparsers.add_parser(
        "audit",
        help="hold an image against its limits: units, files, ports, kernel settings, known vulnerabilities",
        description="Print, each beside its limit, how exposed the units of IMAGE are (systemd-analyze security), "
        "which files give rights, what each interface lets in by the rules of --build, how the kernel is set by the "
        "Kernel Self-Protection Project's recommendations, and which known vulnerabilities the security tracker's file "
        "--feed tells of. What was not given is said to be unknown. Needs root.",
        epilog="0: within every limit; 1: over one; 2: the input or the call is wrong; 3: the machine lacks something.",
    )
    parser.add_argument("image", metavar="IMAGE", type=Path, help="what image build has made, or an unpacked root")
    parser.add_argument("--build", metavar="DIR", type=Path, help="what compile has made: its rules and settings")
    parser.add_argument("--firewall", metavar="ID", action="append", help="only this one of it; may be repeated")
    parser.add_argument("--report", metavar="FILE", type=Path, help="of a running appliance: netpolicy status --json")
    parser.add_argument("--feed", metavar="FILE", type=Path, help="Debian's security tracker as JSON")
    parser.add_argument("--packages", metavar="FILE", type=Path, help="lock file of what a root is made of")
    parser.add_argument("--cmdline", metavar="FILE", type=Path, help="the kernel's command line, for a root")
    parser.add_argument("--kernel-config", metavar="FILE", type=Path, help="the kernel's configuration, for a root")
    parser.add_argument("--all", action="store_true", help="also units of Debian's, which no limit holds for")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from appliance_image.hardening.audit import Wish, audit
    from appliance_image.hardening.figures import AuditError, LackingError
    from appliance_image.hardening.text import document, table

    wish = Wish(
        given=args.image,
        build=args.build,
        firewalls=tuple(args.firewall or ()),
        report=args.report,
        feed=args.feed,
        packages=args.packages,
        command_line=args.cmdline,
        configuration=args.kernel_config,
    )
    try:
        found = audit(wish)
    except LackingError as lacking:
        print(f"netpolicy: {lacking}", file=sys.stderr)
        return _MACHINE_LACKS
    except AuditError as wrong:
        print(f"netpolicy: {wrong}", file=sys.stderr)
        return _BAD_INPUT
    if args.json:
        print(json.dumps(document(found), ensure_ascii=False, indent=1))
    else:
        print(*table(found, everything=args.all), sep="\n")
    return _HOLDS if found.holds else _OVER
