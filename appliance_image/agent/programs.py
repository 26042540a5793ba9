"""Programs that the agent runs: argument lists, a time limit, a small environment; their own words when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root

SECONDS = 120.0


def _nothing(_argv: Sequence[str]) -> None:
    pass


before: Callable[[Sequence[str]], None] = _nothing
"""Called before each program; tests put a power cut here."""


def run(
    root: Root,
    argv: Sequence[str],
    *,
    given: str = "",
    seconds: float = SECONDS,
    quiet: bool = False,
) -> str:
    """Run a program to its end and return what it wrote on standard output.

    Args:
        root: Where programs are.
        argv: The program and its arguments.
        given: Its standard input.
        seconds: It is killed after so long.
        quiet: Whether anything on standard error is a failure: ip and nft tell some refusals only there.

    Raises:
        AgentError: It is missing, failed or took too long; holds its own words.

    """
    done = attempt(root, argv, given=given, seconds=seconds)
    if done.returncode != 0 or (quiet and done.stderr.strip()):
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}")[-2000:]
        raise AgentError("program", f"{' '.join(argv[:4])}: {said}")
    return done.stdout


def attempt(
    root: Root, argv: Sequence[str], *, given: str = "", seconds: float = SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return how it ended.

    Raises:
        AgentError: It is missing, or took too long.

    """
    # Hours and dates of rulesets are UTC, and nft reads them in the zone of its environment.
    before(argv)
    environment = {"PATH": root.path, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    try:
        return subprocess.run(
            argv,
            input=given,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired as slow:
        raise AgentError("program", f"{argv[0]} has not ended after {seconds:.0f} s") from slow
    except OSError as missing:
        raise AgentError("missing-program", f"{argv[0]} does not start: {missing}") from missing
