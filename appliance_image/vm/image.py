"""An image that ``netpolicy image build`` has made, as a virtual machine takes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance_image.vm.errors import MachineError
from appliance_image.vm.firmware import enrol

_MANIFEST, _DISK, _CERTIFICATE = "image.json", "disk.raw", "secure-boot.pem"


@dataclass(frozen=True, slots=True)
class Image:
    """The directory of an image."""

    directory: Path
    manifest: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Image:
        """Read an image.

        Raises:
            MachineError: It is none.

        """
        try:
            manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MachineError(f"{directory} is no image: {error}") from error
        found = cls(directory.absolute(), manifest)
        for each in (found.disk, found.certificate):
            if not each.is_file():
                raise MachineError(f"{directory} is no whole image: {each.name} is missing")
        return found

    @property
    def disk(self) -> Path:
        """The whole disk, raw."""
        return self.directory / _DISK

    @property
    def certificate(self) -> Path:
        """Of the key that has signed what the firmware starts."""
        return self.directory / _CERTIFICATE

    @property
    def pcr11(self) -> str:
        """What PCR 11 (SHA-256) must be after it was started, in hexadecimal."""
        return str(self.manifest["pcr11"]).lower()

    @property
    def test(self) -> bool:
        """Whether it is signed by a test key."""
        return bool(self.manifest.get("test"))

    def enrol(self, store: Path) -> Path:
        """Write the variables of a firmware that starts this image and nothing else; return where.

        Raises:
            MachineError: The certificate is no good.

        """
        if not store.exists():
            enrol(self.certificate, store)
        return store
