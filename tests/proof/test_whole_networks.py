"""Whatever `check` accepts is compiled, loaded and proven; and what it does not accept it refuses with a place."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import event, given, settings

from ids_rules.lock import SidLock
from netpolicy.build import compile_files, write_build
from netpolicy.diagnostics import Diagnostic, InputError
from netpolicy.intent.check import check_topology
from netpolicy.proof.prove import prove
from tests.proof.whole_networks import topologies

_EXAMPLES = int(os.environ.get("NETPOLICY_NETWORKS", "10"))


@settings(derandomize=_EXAMPLES == 10, max_examples=_EXAMPLES, deadline=None, database=None)
@given(topologies())
def test_what_is_accepted_is_proven(text: str) -> None:
    """No traceback anywhere, and every theorem holds."""
    with tempfile.TemporaryDirectory() as directory:
        path, build = Path(directory) / "topology.yaml", Path(directory) / "build"
        path.write_text(text, encoding="utf-8")
        try:
            topology = check_topology(path).topology
        except InputError as found:
            refused: tuple[Diagnostic, ...] = found.diagnostics
        else:
            refused = ()
        event("refused" if refused else "accepted")
        if refused:
            assert all(each.place.file == str(path) and each.place.line > 0 for each in refused)
            return
        write_build(build, compile_files(topology, SidLock()))
        proof = prove(topology, build)
        wrong = [str(finding) for theorem in proof.theorems for finding in theorem.findings]
        assert not wrong
        assert proof.holds
