"""What ``renew`` uploads: the files of an identity that change, as one object of JSON with their texts."""

from __future__ import annotations

from collections.abc import Mapping

from appliance_image.management import protocol
from appliance_image.management.errors import RefusedError

_NEEDED, _ALL = frozenset({"chain.pem", "crl.pem"}), frozenset({"chain.pem", "crl.pem", "key.pem"})


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return files, by the names that ``netpolicy pki`` gives them, as one upload.

    Raises:
        UnicodeDecodeError: One is no text.

    """
    return protocol.encode({name: files[name].decode("ascii") for name in sorted(files)})


def unpack(upload: bytes) -> dict[str, bytes]:
    """Return the files of an upload.

    Raises:
        RefusedError: It is none.

    """
    found = protocol.decode(upload)
    if not _NEEDED <= set(found) <= _ALL or not all(isinstance(each, str) for each in found.values()):
        raise RefusedError("malformed", "a renewal has chain.pem and crl.pem, perhaps key.pem, and nothing else")
    try:
        return {name: text.encode("ascii") for name, text in found.items()}
    except UnicodeEncodeError:
        raise RefusedError("malformed", "a file of a renewal is no PEM") from None
