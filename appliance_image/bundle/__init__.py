"""Configuration bundles: one file for each firewall, signed by the operators of its manager.

An appliance imports this package; it needs the standard library and ``openssl`` only. What signs is in
:mod:`appliance_image.signing`, and is on no appliance.
"""

from appliance_image.bundle.archive import read, read_bytes
from appliance_image.bundle.manifest import Held, Manifest, Step
from appliance_image.bundle.model import Bundle, Signer, Verified
from appliance_image.bundle.refused import Code, Refused
from appliance_image.bundle.trust import Trust
from appliance_image.bundle.unpack import unpack
from appliance_image.bundle.verify import verify

__all__ = [
    "Bundle",
    "Code",
    "Held",
    "Manifest",
    "Refused",
    "Signer",
    "Step",
    "Trust",
    "Verified",
    "read",
    "read_bytes",
    "unpack",
    "verify",
]
