"""Until when this firewall's certificate and its revocation lists are good."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from appliance_image.agent.errors import AgentError
from appliance_image.agent.root import Root
from appliance_image.bundle.certificate import Certificate, RevocationList, certificates, lists, name_text
from appliance_image.bundle.der import DerError
from netpolicy.pki.due import CERTIFICATE_WARNING, CRL_WARNING

_Read = TypeVar("_Read")

CHAIN, KEY, LISTS = "chain.pem", "key.pem", "crl.pem"
"""Files of an identity, as ``netpolicy pki`` writes them."""


@dataclass(frozen=True, slots=True)
class Validity:
    """Until when an identity is good."""

    certificate: str
    """Serial number of the certificate, in hexadecimal."""
    certificate_until: str
    """RFC 3339, UTC."""
    lists: tuple[str, ...]
    """Each authority with the number of its list."""
    lists_until: str
    """When the first of them ends: from then on nobody is let in."""
    due: tuple[str, ...]
    """What is to be renewed now: ``certificate``, ``lists``."""


def current_validity(root: Root) -> Validity | None:
    """Return until when the identity that is held is good; None if there is none, or it cannot be read."""
    try:
        chain, crl = ((root.identity / name).read_bytes() for name in (CHAIN, LISTS))
        return validity(chain, crl, datetime.now(UTC))
    except (AgentError, OSError):
        return None


def validity(chain: bytes, crl: bytes, now: datetime) -> Validity:
    """Return until when a chain and lists are good.

    Raises:
        AgentError: They are none.

    """
    leaf, found = chain_of(chain)[0], lists_of(crl)
    ends = min(each.next_update for each in found if each.next_update is not None)
    due = (
        *(["certificate"] if leaf.not_after - now < CERTIFICATE_WARNING else []),
        *(["lists"] if ends - now < CRL_WARNING else []),
    )
    numbers = tuple(sorted(f"{name_text(each.issuer)}: {each.number}" for each in found))
    return Validity(f"{leaf.serial:x}", _when(leaf.not_after), numbers, _when(ends), due)


def chain_of(content: bytes) -> list[Certificate]:
    """Return the certificates of a chain, the end's own first.

    Raises:
        AgentError: There are none.

    """
    return _parsed(CHAIN, certificates, content)


def lists_of(content: bytes) -> list[RevocationList]:
    """Return revocation lists, each with its number and the time of the next one.

    Raises:
        AgentError: They are none.

    """
    found = _parsed(LISTS, lists, content)
    if any(each.number is None or each.next_update is None for each in found):
        raise AgentError("malformed", f"{LISTS}: a list is without a number or the time of the next")
    return found


def _parsed(name: str, parse: Callable[[bytes], list[_Read]], content: bytes) -> list[_Read]:
    try:
        found = parse(content)
    except DerError as wrong:
        raise AgentError("malformed", f"{name}: {wrong}") from wrong
    if not found:
        raise AgentError("malformed", f"{name} is empty")
    return found


def _when(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
