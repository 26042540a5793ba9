"""Whose signatures count: the authorities of each manager's operators."""

from __future__ import annotations

from pathlib import Path

from appliance_image.bundle.certificate import certificates
from appliance_image.bundle.der import DerError
from appliance_image.bundle.refused import Code, Refused


class Trust:
    """A directory with ``<manager>.pem``: the certificates of the authorities of that manager's operators.

    Each of them is trusted as it stands, a root or not; what they certified in turn is not, unless it stands there too.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def authorities(self, manager: str) -> bytes:
        """Return the certificates (PEM) of a manager's authorities.

        Raises:
            Refused: There are none, or what is there is something else (no-trust).
            OSError: They cannot be read.

        """
        path = self.directory / f"{manager}.pem"
        try:
            pem = path.read_bytes()
            found = certificates(pem)
        except FileNotFoundError as missing:
            raise Refused(Code.NO_TRUST, f"no authority of operators of '{manager}' is known: no {path}") from missing
        except DerError as wrong:
            raise Refused(Code.NO_TRUST, f"{path}: {wrong}") from wrong
        if not found or not all(each.signs_certificates for each in found):
            raise Refused(Code.NO_TRUST, f"{path} holds no authority's certificate, or one that is no authority's")
        return pem
