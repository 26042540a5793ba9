"""Everything that is tried on one connection."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.application.book import Exchange
from conformance.inspection.case import Case, forge
from conformance.inspection.inspected import inspected_cases
from conformance.inspection.relayed import relayed_cases
from conformance.pki import Identities


class Cases:
    """Makes the cases of exchanges; all certificates are made when it is, by one thread."""

    def __init__(self, identities: Identities, exchanges: list[Exchange]) -> None:
        self._identities = identities
        sources = {each.source.id: each.source for each in exchanges}
        self._forged = {source.id: forge(identities, source) for source in sources.values()}
        identities.revoke(*(forged["a revoked certificate"] for forged in self._forged.values()))

    def of(self, exchange: Exchange) -> Iterator[Case]:
        """Yield what is tried against a server that takes anything."""
        forged = self._forged[exchange.source.id]
        cases = relayed_cases if exchange.relays else inspected_cases
        yield from cases(self._identities, exchange, forged)
