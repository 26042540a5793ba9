"""The unified kernel image: kernel, initial RAM disk and command line, signed as one; and what it measures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance_image.image.errors import ImageError
from appliance_image.image.keys import SigningKey
from appliance_image.image.workshop import Workshop

if TYPE_CHECKING:
    from appliance_image.signing.card import Card

STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
"""Both in the tools' root."""

_MEASURED = ("linux", "osrel", "cmdline", "initrd", "uname", "sbat")
_ALWAYS = (
    "console=tty0",
    "console=ttyS0,115200",
    "loglevel=4",
    "panic=10",
    "oops=panic",
    "lockdown=confidentiality",
    "module.sig_enforce=1",
    "init_on_alloc=1",
    "slab_nomerge",
    "page_alloc.shuffle=1",
    "randomize_kstack_offset=on",
    "vsyscall=none",
    "vdso32=0",
    "ia32_emulation=0",
    "proc_mem.force_override=never",
    "kfence.sample_interval=100",
    "intel_iommu=on",
    "iommu.passthrough=0",
    "iommu.strict=1",
    "debugfs=off",
    "systemd.gpt_auto=no",
    "systemd.import_credentials=no",
    "systemd.getty_auto=no",
    "systemd.ssh_auto=no",
    "systemd.log_target=journal-or-kmsg",
    "systemd.show_status=no",
    "systemd.default_debug_tty=null",
)
"""Kernel command line of every image (Kernel Self Protection Project; nothing from outside configures systemd)."""


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A unified kernel image."""

    unsigned: Path
    """The same bytes from each build."""
    signed: Path | None
    """None without a key."""
    command_line: str
    pcr11: str
    """SHA-256 bank, hexadecimal: what systemd-stub leaves in PCR 11."""


def command_line(roothash: str) -> str:
    """Return the command line of an image."""
    return " ".join([*_ALWAYS, f"netpolicy.roothash={roothash}"])


def kernel_image(
    *, kernel: Path, initrd: Path, release: str, line: str, os_release: Path, key: SigningKey | None, shop: Workshop
) -> KernelImage:
    """Assemble a unified kernel image, and sign it.

    Args:
        kernel: vmlinuz, below the workshop's directory, as the other files.
        initrd: The initial RAM disk.
        release: The kernel's (``uname -r``).
        line: The command line.
        os_release: os-release(5), by which the boot loader sorts.
        key: With what to sign; None to leave it unsigned.
        shop: With ukify and systemd-measure.

    Raises:
        ImageError: The card does not sign, or the certificate is of another key.

    """
    here = {name: "/work/" + str(path.relative_to(shop.work)) for name, path in
            (("linux", kernel), ("initrd", initrd), ("os-release", os_release))}  # fmt: skip
    (shop.work / "cmdline").write_text(line)
    shop.run("ukify", "build", f"--linux={here['linux']}", f"--initrd={here['initrd']}", "--cmdline=@/work/cmdline",
             f"--os-release=@{here['os-release']}", f"--uname={release}", f"--stub=/{STUB}",
             "--output=/work/kernel.unsigned.efi")  # fmt: skip
    unsigned = shop.work / "kernel.unsigned.efi"
    signed = None if key is None else sign(unsigned, shop.work / "kernel.efi", key, shop)
    return KernelImage(unsigned, signed, line, _measure(unsigned, shop))


def boot_loader(key: SigningKey | None, shop: Workshop) -> Path:
    """Return systemd-boot, signed if there is a key.

    Raises:
        ImageError: The card does not sign, or the certificate is of another key.

    """
    unsigned = shop.work / "loader.unsigned.efi"
    unsigned.write_bytes((shop.root / LOADER).read_bytes())
    return unsigned if key is None else sign(unsigned, shop.work / "loader.efi", key, shop)


def sign(unsigned: Path, signed: Path, key: SigningKey, shop: Workshop) -> Path:
    """Sign a program of the firmware (Authenticode), and return where; the time in the signature is the epoch's.

    Raises:
        ImageError: The card does not sign, or the certificate is of another key.

    """
    if not isinstance(key.key, Path):
        _sign_with_card(unsigned, signed, key.key, key, shop)
        return signed
    keys = shop.work / "keys"
    keys.mkdir(mode=0o700, exist_ok=True)
    (keys / "certificate").write_bytes(key.certificate.read_bytes())
    try:
        (keys / "key").touch(mode=0o600)
        (keys / "key").write_bytes(key.key.read_bytes())
        shop.run(
            "systemd-sbsign", "sign", "--certificate=/work/keys/certificate", "--private-key=/work/keys/key",
            f"--output=/work/{signed.name}", f"/work/{unsigned.name}",
            environment=shop.still,
        )  # fmt: skip
    finally:
        (keys / "key").unlink(missing_ok=True)
    return signed


def _sign_with_card(unsigned: Path, signed: Path, card: Card, key: SigningKey, shop: Workshop) -> None:
    from cryptography import x509  # noqa: PLC0415 - python-pkcs11 is there only where cards are

    from appliance_image.bundle.refused import Refused  # noqa: PLC0415 - the same
    from appliance_image.signing import authenticode  # noqa: PLC0415 - the same
    from appliance_image.signing.card import card_key  # noqa: PLC0415 - the same

    try:
        owner = x509.load_pem_x509_certificate(key.certificate.read_bytes())
        with card_key(card, label=key.label, certificate=owner) as held:
            at = datetime.fromtimestamp(shop.epoch, UTC)
            signed.write_bytes(authenticode.sign(unsigned.read_bytes(), held, at))
    except (Refused, authenticode.NotSignedError) as refused:
        raise ImageError(f"the card does not sign: {refused}") from refused


def _measure(image: Path, shop: Workshop) -> str:
    """Return what PCR 11 holds once systemd-stub has measured the image, before anything else extends it."""
    arguments = []
    for name, content in sorted(sections(image.read_bytes()).items()):
        if name in _MEASURED:
            (shop.work / f"section.{name}").write_bytes(content)
            arguments.append(f"--{name}=/work/section.{name}")
    said = json.loads(
        shop.run(
            "/usr/lib/systemd/systemd-measure", "calculate", "--json=short", "--bank=sha256", "--phase=", *arguments
        )
    )
    for each in said.get("sha256", []):
        if not each.get("phase"):
            return str(each["hash"])
    raise ImageError(f"systemd-measure predicts nothing: {said}")


def sections(raw: bytes) -> dict[str, bytes]:
    """Return what the sections of a PE file hold, each of its virtual size, as systemd-stub measures it."""
    header = int.from_bytes(raw[0x3C:0x40], "little")
    count = int.from_bytes(raw[header + 6 : header + 8], "little")
    table = header + 24 + int.from_bytes(raw[header + 20 : header + 22], "little")
    result = {}
    for entry in range(table, table + 40 * count, 40):
        name = raw[entry : entry + 8].rstrip(b"\0").decode().removeprefix(".")
        size, _, _, at = (int.from_bytes(raw[entry + 8 + 4 * n : entry + 12 + 4 * n], "little") for n in range(4))
        result[name] = raw[at : at + size]
    return result
