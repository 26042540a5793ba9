"""The ``netpolicy`` command. It holds no logic: each command is a module that parses, calls and prints."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from netpolicy import cli
from netpolicy.build import BuildError
from netpolicy.diagnostics import InputError
from netpolicy.rooted import RootError

HOLDS, FINDING, BAD_INPUT, MACHINE_LACKS = 0, 1, 2, 3


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, one for each module beside this one."""
    result = argparse.ArgumentParser(
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
    """Run one command and return its exit code."""
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except InputError as refused:
        print(refused, file=sys.stderr)
        return BAD_INPUT
    except (BuildError, RootError) as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return MACHINE_LACKS if isinstance(refused, RootError) else BAD_INPUT
    except ModuleNotFoundError as missing:
        extra = {"oxidd": "proof", "pkcs11": "signing"}.get(missing.name or "", "conformance")
        print(
            f"netpolicy: Python package '{missing.name}' is missing: pip install 'netpolicy[{extra}]'", file=sys.stderr
        )
        return MACHINE_LACKS
    except BrokenPipeError:
        # The reader (head, less) has gone; nothing is left to say, and the interpreter must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return HOLDS
    except OSError as failed:
        print(f"netpolicy: {failed}", file=sys.stderr)
        return BAD_INPUT
    return code
