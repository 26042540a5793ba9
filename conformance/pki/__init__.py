"""The lab's own certificates: a root, an issuing authority for each tier, short-lived leaves with role URIs, CRLs."""

from conformance.pki.identities import Identities, issue_identities

__all__ = ["Identities", "issue_identities"]
