"""The ``netpolicy`` command. It holds no logic: each command is a module that parses, calls and prints."""

from __future__ import annotations

import argparse
import io
import os
import pkgutil
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from netpolicy import cli
from netpolicy.build import BuildError
from netpolicy.cli._parser import Parser
from netpolicy.diagnostics import InputError
from netpolicy.rooted import RootError

HOLDS, FINDING, BAD_INPUT, MACHINE_LACKS = 0, 1, 2, 3
INTERRUPTED = 128 + signal.SIGINT
"""As a shell tells it."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, one for each module beside this one."""
    result = Parser(
        prog="netpolicy",
        description="Compile one declarative topology to firewalls, and prove on a real kernel that they hold.",
        epilog="Exit codes: 0 holds; 1 does not hold; 2 the input or the call is wrong; 3 the machine lacks something.",
    )
    result.add_argument("--version", action="version", version=f"%(prog)s {version('netpolicy')}")
    commands = result.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in sorted(pkgutil.iter_modules(cli.__path__), key=lambda found: found.name):
        if not module.name.startswith("_"):
            import_module(f"{cli.__name__}.{module.name}").add_parser(commands)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; 130 if Ctrl-C has ended it."""
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's or the pipe's encoding has no letter for is shown as a number, not as a failure.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is left to say, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HOLDS
    except (Exception, KeyboardInterrupt) as ended:
        told = _told(ended)
        if told is None:
            raise
        message, code = told
        print(message, file=sys.stderr)
    return code


def _told(ended: BaseException) -> tuple[str, int] | None:
    """Return what is said of the end of a command, and its exit code; None of what is a fault of this program."""
    match ended:
        case InputError():
            return str(ended), BAD_INPUT
        case RootError():
            return f"netpolicy: {ended}", MACHINE_LACKS
        case ModuleNotFoundError():
            extra = {"oxidd": "proof", "pkcs11": "signing"}.get(ended.name or "", "conformance")
            package = f"Python package '{ended.name}' is missing: pip install 'netpolicy[{extra}]'"
            return f"netpolicy: {package}", MACHINE_LACKS
        case KeyboardInterrupt():
            return "netpolicy: interrupted", INTERRUPTED
        case BuildError() | OSError():
            return f"netpolicy: {ended}", BAD_INPUT
    return None
