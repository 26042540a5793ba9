"""``openssl`` as the judge of signatures: argument lists, no configuration, no authorities but those given."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

_SECONDS = 60
_ERROR = re.compile(rb"^error (\d+) at (\d+) depth lookup: *(.*)$", re.MULTILINE)
_ONLY_THESE = ("-no-CApath", "-no-CAstore")
# An authority in the trust file is trusted as it stands, be it a root or not. 112 bits: SHA-1 and RSA below 2048 fail.
_CHAIN = (*_ONLY_THESE, "-partial_chain", "-purpose", "any", "-auth_level", "2")
UNKNOWN_ERROR = 1
"""X509_V_ERR_UNSPECIFIED: openssl gave no number."""


@dataclass(frozen=True, slots=True)
class ChainError:
    """Why a certificate is not good."""

    number: int
    """Of openssl (X509_V_ERR_…, ``x509_vfy.h``)."""
    text: str


def check_chain(certificate: bytes, authorities: bytes, crl: bytes | None, at: datetime) -> ChainError | None:
    """Return why a certificate is not good at a time, None if it is.

    Args:
        certificate: PEM.
        authorities: Those that are trusted (PEM).
        crl: The revocation list of the certificate's authority (PEM); None to leave revocation out.
        at: The time.

    Raises:
        OSError: ``openssl`` cannot be run.

    """
    files = {"-CAfile": authorities} | ({} if crl is None else {"-CRLfile": crl})
    check = () if crl is None else ("-crl_check",)
    return _verified(_run("verify", (*_CHAIN, *check, "-attime", _epoch(at)), files, last=certificate))


def check_end(certificate: bytes, others: bytes, authorities: bytes, crl: bytes, at: datetime) -> ChainError | None:
    """Return why an end's certificate for TLS, client and server, is not good at a time, None if it is.

    Args:
        certificate: PEM.
        others: Those between it and the authority (PEM); may be empty.
        authorities: Those that are trusted (PEM).
        crl: The revocation lists of every authority of the chain (PEM).
        at: The time.

    Raises:
        OSError: ``openssl`` cannot be run.

    """
    files = {"-CAfile": authorities, "-CRLfile": crl} | ({"-untrusted": others} if others else {})
    for purpose in ("sslserver", "sslclient"):
        arguments = (*_ONLY_THESE, "-x509_strict", "-crl_check_all", "-auth_level", "2", "-purpose", purpose)
        found = _verified(_run("verify", (*arguments, "-attime", _epoch(at)), files, last=certificate))
        if found is not None:
            return found
    return None


def check_authority(certificate: bytes, others: bytes, roots: bytes, at: datetime) -> ChainError | None:
    """Return why an authority's certificate does not lead to a root at a time, None if it does.

    Args:
        certificate: PEM.
        others: Those between it and the root (PEM); may be empty.
        roots: Those that are trusted (PEM).
        at: The time.

    Raises:
        OSError: ``openssl`` cannot be run.

    """
    files = {"-CAfile": roots} | ({"-untrusted": others} if others else {})
    arguments = (*_ONLY_THESE, "-x509_strict", "-auth_level", "2", "-purpose", "any", "-attime", _epoch(at))
    return _verified(_run("verify", arguments, files, last=certificate))


def list_holds(crl: bytes, issuer: bytes) -> bool:
    """Return whether a revocation list (PEM) has the signature of an authority (PEM).

    Raises:
        OSError: ``openssl`` cannot be run.

    """
    _, said = _run("crl", ("-noout", *_ONLY_THESE), {"-in": crl, "-CAfile": issuer})
    return said.strip() == b"verify OK"


def signature_holds(cms: bytes, content: bytes, authorities: bytes, at: datetime) -> bool:
    """Return whether detached SignedData (DER) with one signer is over `content`, and its signer is good.

    ``-noverify`` is not given: the chain is judged here once more, in the call that judges the signature.

    Raises:
        OSError: ``openssl`` cannot be run.

    """
    arguments = ("-verify", "-binary", "-inform", "DER", *_CHAIN, "-attime", _epoch(at), "-out", os.devnull)
    code, _ = _run("cms", arguments, {"-in": cms, "-content": content, "-CAfile": authorities})
    return code == 0


def _verified(done: tuple[int, bytes]) -> ChainError | None:
    """Return what ``openssl verify`` had against a certificate."""
    code, output = done
    if code == 0:
        return None
    found = _ERROR.search(output)
    if found is None:
        return ChainError(UNKNOWN_ERROR, "openssl does not take it")
    return ChainError(int(found.group(1)), found.group(3).decode("ascii", "replace").strip())


def _epoch(at: datetime) -> str:
    return str(int(at.timestamp()))


def _run(
    command: str, arguments: tuple[str, ...], files: Mapping[str, bytes], last: bytes | None = None
) -> tuple[int, bytes]:
    """Run openssl with files that have no name: nobody can put another one in their place."""
    with ExitStack() as stack:
        descriptors: list[int] = []

        def held(content: bytes) -> str:
            descriptor = os.memfd_create("netpolicy")
            stack.callback(os.close, descriptor)
            descriptors.append(descriptor)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            return f"/proc/self/fd/{descriptor}"

        called = ["openssl", command, *arguments]
        for option, content in files.items():
            called += [option, held(content)]
        if last is not None:
            called.append(held(last))
        try:
            done = subprocess.run(
                called,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                timeout=_SECONDS,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "OPENSSL_CONF": os.devnull},
            )
        except subprocess.TimeoutExpired as late:
            raise TimeoutError(f"openssl {command} has not ended in {_SECONDS} seconds") from late
    return done.returncode, done.stdout
