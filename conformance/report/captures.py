"""The frames of a deviation as a capture (pcapng), for Wireshark and tcpdump."""

from __future__ import annotations

import tempfile
from pathlib import Path

from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter

from conformance.outcome import Outcome
from conformance.results import why


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
        with PcapNgWriter(str(path)) as writer:
            for number, frame in enumerate(outcome.frames):
                packet = Ether(frame)
                packet.time = number / 1_000_000  # their order; no clock was read
                packet.comments = [(comment if number == 0 else "came out of the firewall").encode()]
                writer.write(packet)
        return path.read_bytes()
