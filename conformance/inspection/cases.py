"""Everything that is tried on one connection."""

from __future__ import annotations

from collections.abc import Iterator

from conformance.application.book import Exchange
from conformance.inspection.case import Case, forge
from conformance.inspection.inspected import inspected_cases
from conformance.inspection.relayed import relayed_cases
from conformance.pki import Identities
from netpolicy.topology.model import Node


class Cases:
    """Makes the cases of exchanges; all certificates are made when it is, by one thread."""

    def __init__(self, identities: Identities, exchanges: list[Exchange]) -> None:
        self._identities = identities
        # Of servers, too, where what stands before them judges more than whether it is theirs.
        nodes = {each.source.id: each.source for each in exchanges}
        nodes |= {each.destination.id: each.destination for each in exchanges if isinstance(each.destination, Node)}
        self._forged = {node.id: forge(identities, node) for node in nodes.values()}
        identities.revoke(*(forged["a revoked certificate"] for forged in self._forged.values()))

    def of(self, exchange: Exchange) -> Iterator[Case]:
        """Yield what is tried against a server that takes anything."""
        forged = self._forged[exchange.source.id]
        if exchange.relays:
            yield from relayed_cases(self._identities, exchange, forged, self._forged[exchange.destination.id])
        else:
            yield from inspected_cases(self._identities, exchange, forged)
