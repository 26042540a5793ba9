"""Parsers of the management let nothing out but refusals: the short form of ``benchmarks/fuzz_management.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from appliance_image.management import endpoint
from appliance_image.management.errors import RefusedError
from appliance_image.management.protocol import ALPN

_ROOT = Path(__file__).parents[2]


def test_fuzzed() -> None:
    """No input of twenty thousand is more than refused, and none takes long or much."""
    command = [sys.executable, "benchmarks/fuzz_management.py", "--seed", "16", "--inputs", "20000"]
    environment = {"PYTHONPATH": str(_ROOT)}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "20,000 inputs, 0 uncaught" in done.stdout


@pytest.mark.parametrize("change", [{"ports": [float("inf")]}, {"ports": [65536]}, {"families": [5]}])
def test_an_endpoint_out_of_bounds(change: dict[str, object]) -> None:
    """What no socket could be made for is told as any other mistake of the file: fuzzing found the first."""
    flow = {
        "flow": "manage",
        "ports": [17100],
        "families": [4],
        "prologue": "",
        "operators": [],
        "alpn": ALPN,
        **change,
    }
    document = {"format": 1, "firewall": "edge", "uri": "urn:x", "flows": [flow]}
    with pytest.raises(RefusedError):
        endpoint.read(json.dumps(document).encode())
