"""How long before its end something is due to be renewed. Appliances have this module: it needs nothing else."""

from __future__ import annotations

from datetime import timedelta

CERTIFICATE_WARNING = timedelta(days=30)
"""Before a certificate, of an end or an authority, ends."""
CRL_WARNING = timedelta(days=2)
"""Before a revocation list does."""
