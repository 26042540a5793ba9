"""Checkpoints: records that seal with a signature all that stands before them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from appliance_image.journal.keys import fingerprint, is_signed, public_key, sign
from appliance_image.journal.record import Record, make

EVENT = "checkpoint"
_DOMAIN = "netpolicy journal checkpoint 1"


class Sealer:
    """Makes checkpoints with a private key (PEM file)."""

    def __init__(self, private: Path) -> None:
        self._private = private
        self._key = fingerprint(public_key(private))

    def seal(self, seq: int, digest: str, time: datetime) -> Record:
        """Return the checkpoint that follows record `seq` with this hash."""
        signature = b64encode(sign(self._private, _message(seq, digest))).decode()
        return make(seq + 1, time, EVENT, {"sealed": seq, "key": self._key, "signature": signature}, digest)


def is_sealed(checkpoint: Record, keys: Mapping[str, bytes]) -> bool:
    """Tell whether a checkpoint was signed by one of the keys (PEM by fingerprint) and seals the record before it."""
    public, signature = keys.get(str(checkpoint.fields.get("key"))), checkpoint.fields.get("signature")
    if public is None or not isinstance(signature, str) or checkpoint.fields.get("sealed") != checkpoint.seq - 1:
        return False
    try:
        raw = b64decode(signature, validate=True)
    except ValueError:
        return False
    return is_signed(public, _message(checkpoint.seq - 1, checkpoint.previous), raw)


def by_fingerprint(*public: bytes) -> dict[str, bytes]:
    """Return public keys (PEM) by their fingerprints."""
    return {fingerprint(key): key for key in public}


def _message(seq: int, digest: str) -> bytes:
    return f"{_DOMAIN}\n{seq}:{digest}\n".encode()
