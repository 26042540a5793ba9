"""Imports run one way, and checking and compiling needs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.docs.source import ROOT, imports, modules

_LANGUAGE = {"netpolicy.topology", "netpolicy.diagnostics", "netpolicy.reasons"}
_ALLOWED = {
    "netpolicy.topology": _LANGUAGE,
    "netpolicy.diagnostics": _LANGUAGE,
    "netpolicy.reasons": _LANGUAGE,
    "netpolicy.intent": {*_LANGUAGE, "netpolicy.intent"},
    # The emitters do not know each other.
    "netpolicy.nftables": {*_LANGUAGE, "netpolicy.intent", "netpolicy.nftables"},
    "netpolicy.host": {*_LANGUAGE, "netpolicy.intent", "netpolicy.host"},
    "netpolicy.relay": {*_LANGUAGE, "netpolicy.intent", "netpolicy.relay"},
    "ids_rules": {*_LANGUAGE, "netpolicy.intent", "ids_rules"},
    "netpolicy.build": {
        *_LANGUAGE,
        "netpolicy.intent",
        "netpolicy.nftables",
        "netpolicy.host",
        "netpolicy.relay",
        "ids_rules",
        "netpolicy.build",
    },
    "netpolicy.pki": {*_LANGUAGE, "netpolicy.pki"},
    # What engines and kernels said, from their own files.
    "netpolicy.alerts": {"netpolicy.alerts"},
    # Evidence as well: what it expects comes from the topology and its routing alone.
    "netpolicy.proof": {*_LANGUAGE, "netpolicy.intent.routing", "netpolicy.proof"},
    # Evidence: it judges compiled files, so nothing that went into compiling them may tell it what to expect.
    "conformance": {
        *_LANGUAGE,
        "netpolicy.intent.routing",
        "netpolicy.intent.model",
        "netpolicy.build",
        "netpolicy.pki",
        # What a proof rests on is held against kernels, too.
        "netpolicy.proof",
        "conformance",
    },
    "netpolicy.cli": {
        *_LANGUAGE,
        "netpolicy.intent",
        "netpolicy.build",
        "netpolicy.alerts",
        "netpolicy.pki",
        "netpolicy.proof",
        "netpolicy.cli",
        "ids_rules",
        "conformance",
    },
}
"""Layer to what it may import of this project."""

_HEAVY = (
    "aiosmtpd",
    "cryptography",
    "nftables",
    "oxidd",
    "pcapng",
    "pyftpdlib",
    "pyroute2",
    "rich",
    "scapy",
    "suricata",
    "telnetlib3",
)


def _within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("module", sorted(modules()))
def test_layers(module: str) -> None:
    """A module imports nothing of the project but what its layer may."""
    if module == "netpolicy":
        assert list(imports(modules()[module])) == []
        return
    allowed = next(packages for layer, packages in _ALLOWED.items() if _within(module, {layer}))
    wrong = [
        f"line {found.line}: {found.module}"
        for found in imports(modules()[module])
        if found.module.startswith((".", "netpolicy", "ids_rules", "conformance"))
        and not _within(found.module, allowed)
        # The command line asks its own package which commands there are.
        and not (module == "netpolicy.cli" and found.module == "netpolicy")
    ]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(name for name in modules() if _within(name, {"netpolicy.cli"})))
def test_command_line_is_lazy(module: str) -> None:
    """A command module imports conformance and the packages it stands on inside the command, not before."""
    eager = [
        f"line {found.line}: {found.module}"
        for found in imports(modules()[module])
        if not found.lazy and _within(found.module, {"conformance", "netpolicy.pki", "netpolicy.proof", *_HEAVY})
    ]
    assert eager == []


_WITHOUT_HEAVY = f"""
import sys
for name in {_HEAVY!r}:
    sys.modules[name] = None  # import raises ModuleNotFoundError
from netpolicy.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["check", "topology.yaml"],
        ["compile", "topology.yaml", "--out", "{out}"],
        ["schema"],
        ["--help"],
        ["lab", "--help"],
    ],
    ids=lambda argv: " ".join(argv[:2]),
)
def test_needs_two_packages_only(argv: list[str], tmp_path: os.PathLike[str]) -> None:
    """Checking, compiling and printing the schema work where no package but pydantic and PyYAML is installed."""
    command = [word.format(out=os.path.join(tmp_path, "build")) for word in argv]  # noqa: PTH118 - a word, not a path
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_HEAVY, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_says_which_package_is_missing() -> None:
    """A command that needs more than is installed ends with 3 and names the package."""
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_HEAVY, "lab", "up", "topology.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert "is missing: pip install 'netpolicy[conformance]'" in done.stderr
