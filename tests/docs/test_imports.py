"""Imports run one way, and checking and compiling needs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.docs.source import PACKAGES, ROOT, imports, modules

_LANGUAGE = {
    *("netpolicy.topology", "netpolicy.diagnostics", "netpolicy.reasons", "netpolicy.inputs", "netpolicy.environment"),
}
_APPLIANCE = {
    *_LANGUAGE,
    "netpolicy.intent",
    "netpolicy.nftables",
    "netpolicy.host",
    "netpolicy.relay",
    "netpolicy.build",
    "netpolicy.alerts",
    "netpolicy.pki",
    "netpolicy.processors",
    "netpolicy.proof",
    "netpolicy.rooted",
    "ids_rules",
    "appliance_image",
}
_PROOF = {*_LANGUAGE, "netpolicy.intent.routing", "netpolicy.proof"}
_ALLOWED = {
    "netpolicy.topology": _LANGUAGE,
    "netpolicy.diagnostics": _LANGUAGE,
    "netpolicy.reasons": _LANGUAGE,
    "netpolicy.inputs": {"netpolicy.inputs"},
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
    # The programs themselves, asked what they say of a configuration; the relay's reads an identity.
    "netpolicy.environment": {"netpolicy.environment"},
    "netpolicy.rooted": {"netpolicy.environment", "netpolicy.rooted", "netpolicy.pki", "ids_rules.version"},
    "netpolicy.pki": {*_LANGUAGE, "netpolicy.pki"},
    "netpolicy.processors": {"netpolicy.processors"},
    # What engines and kernels said, from their own files.
    "netpolicy.alerts": {"netpolicy.alerts", "netpolicy.inputs"},
    # Evidence as well: what it expects of packets comes from the topology and its routing alone. A build it compiles
    # anew to compare bytes, and only its theorem `files` sees the result.
    "netpolicy.proof.theorems.files": {*_PROOF, "netpolicy.build"},
    "netpolicy.proof.running": {*_PROOF, "netpolicy.build", "ids_rules.lock"},
    "netpolicy.proof.prove": {*_PROOF, "netpolicy.build", "netpolicy.rooted", "ids_rules.lock"},
    # What a vendor's rule may do is one list.
    "netpolicy.proof.engine_reading": {*_PROOF, "ids_rules.vendor"},
    "netpolicy.proof.theorems.configured": {*_PROOF, "netpolicy.rooted"},
    "netpolicy.proof.record": {*_PROOF, "netpolicy.build.compared"},
    "netpolicy.proof": _PROOF,
    # Evidence: it judges compiled files, so nothing that went into compiling them may tell it what to expect.
    "conformance": {
        *_LANGUAGE,
        "netpolicy.intent.routing",
        "netpolicy.intent.model",
        "netpolicy.build",
        "netpolicy.pki",
        "netpolicy.processors",
        "netpolicy.rooted",
        # What a proof rests on is held against kernels, too.
        "netpolicy.proof",
        "conformance",
    },
    # The lab's firewalls as virtual machines: the only part of the appliance that knows the lab.
    "appliance_image.vm": {*_APPLIANCE, "conformance"},
    "appliance_image": _APPLIANCE,
    "netpolicy.cli": {
        *_LANGUAGE,
        "netpolicy.rooted",
        "netpolicy.intent",
        "netpolicy.build",
        "netpolicy.alerts",
        "netpolicy.pki",
        "netpolicy.proof",
        "netpolicy.cli",
        "ids_rules",
        "conformance",
        "appliance_image",
    },
}
"""Layer to what it may import of this project."""

_ON_APPLIANCE = {
    "appliance_image.agent",
    "appliance_image.bundle",
    "appliance_image.journal",
    "appliance_image.management",
}
"""What runs where there is no package but these two:"""
_APPLIANCE_HAS = {"nftables", "oxidd"}

_BUILD_HOST = {"appliance_image.image", "appliance_image.vm"}
"""The rest of appliance_image: what not every command may cost."""

_HEAVY = (
    "aiosmtpd",
    "cryptography",
    "nftables",
    "oxidd",
    "pcapng",
    "pkcs11",
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
        if found.module.startswith((".", *PACKAGES))
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
        if not found.lazy
        and _within(found.module, {"conformance", *_BUILD_HOST, "netpolicy.pki", "netpolicy.proof", *_HEAVY})
    ]
    assert eager == []


_IMPORT_ON_APPLIANCE = f"""
import sys
from importlib import import_module
for name in {sorted({*_HEAVY, "pydantic", "yaml"} - _APPLIANCE_HAS)!r}:
    sys.modules[name] = None  # import raises ModuleNotFoundError
for name in sys.argv[1:]:
    import_module(name)
"""


def test_appliance_needs_little() -> None:
    """What runs on the appliance imports without pydantic, PyYAML and all other packages that are not there."""
    names = sorted(name for name in modules() if _within(name, _ON_APPLIANCE) and name.rpartition(".")[2] != "__main__")
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ON_APPLIANCE, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


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
