"""The frames of a deviation as a capture (pcapng), for Wireshark and tcpdump."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scapy.utils import PcapNgWriter

from conformance.outcome import Outcome
from conformance.results import why

_ETHERNET = 1


def capture(outcome: Outcome) -> bytes:
    """Return a pcapng file: the probe, then what came out of the firewall; comments say what was expected and seen."""
    expected = outcome.expected
    flow = f", flow {expected.flow}" if expected.flow else ""
    comment = (
        f"{outcome.stage} at {outcome.firewall}: {outcome.source} to {outcome.destination}, {outcome.probe}; "
        f"expected {expected.verdict} ({why(expected)}{flow}); observed: {outcome.observed}"
    )
    with tempfile.TemporaryDirectory(prefix="netpolicy-") as directory:
        path = Path(directory) / "capture.pcapng"
        writer = PcapNgWriter(str(path))
        for number, frame in enumerate(outcome.frames):
            part = comment if number == 0 else "came out"
            writer.write_header(frame) if not writer.header_present else None
            writer.write_packet(frame, sec=0, usec=number, linktype=_ETHERNET, comment=part.encode())
        writer.close()
        return path.read_bytes()
