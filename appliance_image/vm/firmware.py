"""The firmware of the machine: OVMF with Secure Boot, which boots what one key has signed and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from appliance_image.vm.errors import MachineError

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
"""With Secure Boot, which is kept in memory that only system management mode may write (Debian package ovmf)."""
BLANK = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""Variables without any key."""

_OWNER = "8fd1d2f4-6c3d-4c0a-9d0e-6e6574706f6c"
"""Whose keys they are: a number of our own, the same in every store."""
_SECONDS = 60.0


def enrol(certificate: Path, store: Path) -> None:
    """Write the variables of a firmware that trusts one certificate: platform key, key exchange key and signer.

    Nothing of any vendor is trusted.

    Raises:
        MachineError: The certificate or the blank store cannot be used.

    """
    if not BLANK.is_file():
        raise MachineError(f"{BLANK} is missing: Debian package ovmf")
    key = ("--set-pk", "--add-kek", "--add-db")
    command = [sys.executable, "-I", "-m", "virt.firmware.vars", "--loglevel", "error", "--input", str(BLANK)]
    for option in key:
        command += [option, _OWNER, str(certificate)]
    command += ["--secure-boot", "--output", str(store)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode != 0 or not store.is_file():
        raise MachineError(f"no keys can be enrolled from {certificate}: {done.stderr.strip() or done.stdout.strip()}")
