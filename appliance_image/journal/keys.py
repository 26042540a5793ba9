"""Ed25519 keys and signatures (RFC 8032), made by the `openssl` program: the appliance has no library for them."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance_image.journal.errors import JournalError

_LONGEST = 30
"""Seconds."""


def new_key(path: Path) -> None:
    """Write a new private key, PEM, for the owner's eyes only.

    Raises:
        JournalError: There is one already, or openssl fails.

    """
    made = _openssl(["genpkey", "-algorithm", "ED25519"])
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise JournalError(f"{path}: there is a key already") from None
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(made)
        stream.flush()
        os.fsync(stream.fileno())


def public_key(private: Path) -> bytes:
    """Return the public key of a private one, PEM."""
    return _openssl(["pkey", "-in", str(private), "-pubout"])


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a public key (PEM) as certificates hold it (SubjectPublicKeyInfo, DER)."""
    with _file(public) as path:
        return hashlib.sha256(_openssl(["pkey", "-pubin", "-in", path, "-outform", "DER"])).hexdigest()


def sign(private: Path, message: bytes) -> bytes:
    """Return the signature of a message.

    Raises:
        JournalError: The key cannot be read, or openssl fails.

    """
    with _file(message) as path:
        return _openssl(["pkeyutl", "-sign", "-rawin", "-inkey", str(private), "-in", path])


def is_signed(public: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether the owner of `public` (PEM) signed the message."""
    with _file(public) as key, _file(message) as text, _file(signature) as seal:
        command = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key, "-in", text, "-sigfile", seal]
        return _run(command).returncode == 0


def _openssl(arguments: list[str]) -> bytes:
    done = _run(arguments)
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise JournalError(f"openssl {arguments[0]}: {said[0] if said else 'failed'}")
    return done.stdout


def _run(arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    passed = tuple(int(word.removeprefix("/proc/self/fd/")) for word in arguments if word.startswith("/proc/self/fd/"))
    try:
        return subprocess.run(
            ["openssl", *arguments], capture_output=True, timeout=_LONGEST, check=False, pass_fds=passed
        )
    except FileNotFoundError:
        raise JournalError("this machine lacks openssl") from None
    except subprocess.TimeoutExpired:
        raise JournalError(f"openssl {arguments[0]} took longer than {_LONGEST} s") from None


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Give some bytes a name, in memory: openssl 3.0 signs only files, and the disk may be full."""
    descriptor = os.memfd_create("netpolicy")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
