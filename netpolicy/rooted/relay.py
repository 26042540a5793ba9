"""What HAProxy says of a configuration: its own check, with every warning an error; and its reading."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from netpolicy.environment import ENVIRONMENT
from netpolicy.rooted.root import Mount, Root

_SECONDS = 60.0
_TLS = "tls"


@dataclass(frozen=True, slots=True)
class RelaySaid:
    """About the configuration of one relay."""

    complaints: tuple[str, ...]
    """Nothing if it would start."""
    lines: tuple[str, ...]
    """Of ``haproxy -dC``: each line that says something, its words with one blank between them."""


@contextmanager
def stand_in() -> Iterator[Path]:
    """Yield a directory with an identity that is nobody's and is gone afterwards: a check reads certificates."""
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - not what reading a root needs
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    from netpolicy.pki.authority import Authority  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        now = datetime.now(UTC)
        authority = Authority.root("stand-in", now)
        certificate = authority.certificate.public_bytes(Encoding.PEM)
        key = authority.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        revoked = authority.crl(now).public_bytes(Encoding.PEM)
        for name, content in (
            ("chain.pem", certificate),
            ("chain.pem.key", key),
            ("trust.pem", certificate),
            ("crl.pem", revoked),
        ):
            descriptor = os.open(Path(directory) / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
        yield Path(directory)


def relay_says(root: Root, configuration: Path, identity: Path) -> RelaySaid:
    """Return what ``haproxy -c`` says.

    Args:
        root: With a relay.
        configuration: ``relay/`` of a firewall's build.
        identity: The files that an operator adds as ``tls/``; see :func:`stand_in`.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        files = Path(directory) / "relay"
        shutil.copytree(configuration, files)
        shutil.rmtree(files / _TLS, ignore_errors=True)
        shutil.copytree(identity, files / _TLS)
        checked, dumped = _run(root, files, "-dW"), _run(root, files, "-dC")
    said = [line.strip() for line in checked.stderr.splitlines() if line.strip()]
    complaints = said or [f"haproxy ends with {checked.returncode}"]
    # It ends a dump with a word of its own: what it only prints it does not take for a relay that could start.
    lines = [line.strip() for line in dumped.stdout.splitlines() if not line.startswith("Configuration file ")]
    return RelaySaid(tuple(complaints) if checked.returncode else (), tuple(filter(None, lines)))


def _run(root: Root, files: Path, option: str) -> subprocess.CompletedProcess[str]:
    argv = ["/usr/sbin/haproxy", "-c", option, "-f", "/etc/haproxy/haproxy.cfg"]
    command = root.command(argv, (Mount(files, "/etc/haproxy"),))
    return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, env=ENVIRONMENT)
