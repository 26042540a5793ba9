"""What the TPM has measured of the boot: whoever keeps the image's prediction can compare."""

from __future__ import annotations

from pathlib import Path

PCR = "sys/class/tpm/tpm0/pcr-sha256/11"
"""Kernel image, command line and initial RAM disk (systemd-stub(7)), in the kernel's own form."""


def measured(top: Path = Path("/")) -> str:
    """Return PCR 11 for the console, or that there is no TPM; nothing is decided by it here."""
    try:
        value = (top / PCR).read_text(encoding="ascii").strip()
    except OSError:
        return "no TPM"
    return f"pcr11 sha256 {value.lower()}"
