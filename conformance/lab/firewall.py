"""A firewall of the lab that runs: its ruleset, its counters, its connections."""

from __future__ import annotations

import threading
from pathlib import Path

from conformance.lab.apply import load_ruleset
from conformance.lab.errors import LabError
from conformance.lab.namespace import Namespace
from conformance.lab.nfnetlink import NetfilterSocket

TABLE = "netpolicy"


class RunningFirewall:
    """What can be asked of a firewall, and changed, while it runs; from any thread."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._netfilter = namespace.call(NetfilterSocket)

    def close(self) -> None:
        """Let go of the firewall's namespace."""
        self._netfilter.close()

    def load(self, ruleset: Path) -> None:
        """Load an nftables file, as one transaction.

        Raises:
            LabError: nft or the kernel refused it; holds nft's message.

        """
        with self._lock:
            load_ruleset(self._namespace, ruleset)

    def counters(self, table: str) -> dict[str, int]:
        """Return the packets of every named counter of a table, from before or after any load().

        Raises:
            LabError: There are none, so there is no such table.

        """
        with self._lock:
            try:
                found = self._netfilter.counters(table)
            except OSError as error:
                raise LabError(f"{self._namespace.name}: the kernel does not tell its counters: {error}") from error
        if not found:
            raise LabError(f"{self._namespace.name}: no counters in table {table}")
        return found

    def flush_conntrack(self) -> None:
        """Forget every tracked connection.

        Raises:
            LabError: The kernel refused.

        """
        with self._lock:
            try:
                self._netfilter.flush_conntrack()
            except OSError as error:
                raise LabError(f"{self._namespace.name}: the kernel keeps its connections: {error}") from error
