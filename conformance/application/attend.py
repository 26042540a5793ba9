"""The application in a lab that is kept alive: identities for all ends, servers on all destinations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from conformance.application.serve import Serving, serve_lab
from conformance.lab import Lab
from conformance.pki import issue_identities


@contextmanager
def attend(lab: Lab, directory: Path) -> Iterator[Serving]:
    """Issue identities into `directory`, which must not exist, and serve the application while inside.

    Relays start with them, and engines are told to pin them.

    Certificates are valid for a day: a lab that is kept longer refuses its own.
    """
    identities = issue_identities(lab.topology, directory, now=datetime.now(UTC))
    lab.start_relays(directory)
    if lab.engines:
        lab.pin(identities.fingerprints([*lab.topology.nodes.values(), *lab.topology.firewalls.values()]))
    with serve_lab(lab, identities) as serving:
        yield serving
