"""Which certificates are pinned: the one thing in a build that changes without the topology."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ids_rules.datasets import certificate_list
from ids_rules.tls_policy import pinned_list


def pin_certificates(directory: Path, certificates: Mapping[str, Iterable[str]]) -> None:
    """Fill the lists of the ends that the engine in `directory` (``suricata/`` of a firewall) holds to certificates.

    Args:
        directory: Its lists are replaced one by one, each in one step; the engine must then reload its rules.
        certificates: By node or firewall, SHA-1 of each of its certificates in hexadecimal; nobody passes for others.

    Raises:
        OSError: A list cannot be written.

    """
    for path in sorted(directory.glob(pinned_list("*") + ".lst")):
        end = path.name.removeprefix(pinned_list("")).removesuffix(".lst")
        fresh = path.with_suffix(".new")
        fresh.write_text(certificate_list(certificates.get(end, ())), encoding="ascii")
        fresh.replace(path)
