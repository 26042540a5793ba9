"""Whose certificate a file holds."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509


def uri_of(chain: Path) -> str:
    """Return the one URI in the first certificate of a PEM file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It holds no certificate, or one that does not name exactly one URI.

    """
    try:
        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound) as wrong:
        raise ValueError(f"{chain}: no certificate of an end: {wrong}") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise ValueError(f"{chain}: the certificate names {len(uris)} URIs, not one")
    return uris[0]
