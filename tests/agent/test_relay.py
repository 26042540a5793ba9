"""The appliance with the real relay: its own identity, checked before it is switched to, started with its bundle."""

from __future__ import annotations

import json
import re

import pytest

from conformance.pki import Identities
from tests.agent.making import PORT, Operator, files_of
from tests.agent.world import World


def test_relay_comes_and_goes(relaying: World, operator: Operator) -> None:
    """Connections end at the relay; a bundle without one ends it and them, and the way back starts it again."""
    assert any("relay: ok: listens" in line for line in relaying.console())
    with relaying.connect(PORT):
        done = relaying.agent("apply", str(relaying.write(operator.bundle(files_of("manage"), 2))), "--confirm", "60s")
        assert done.returncode == 0, done.stderr
        assert "connections ended: 0" not in done.stdout
    with pytest.raises(TimeoutError):
        relaying.connect(PORT, seconds=0.5)
    assert relaying.agent("drift").returncode == 0
    done = relaying.agent("rollback")
    assert "relay started" in done.stdout
    with relaying.connect(PORT):
        pass
    assert relaying.agent("drift").returncode == 0


def test_relay_refuses(relaying: World, operator: Operator, identities: Identities) -> None:
    """What HAProxy would not start with is refused before anything changes; so is a relay without an identity."""
    files = files_of("notice", relay=identities)
    files["relay/haproxy.cfg"] += b"nonsense\n"
    done = relaying.agent("apply", str(relaying.write(operator.bundle(files, 2))), "--confirm", "60s", "--json")
    assert json.loads(done.stdout)["code"] == "relay"
    (relaying.root.identity / "key.pem").unlink()
    files = files_of("notice", "manage", relay=identities)
    done = relaying.agent("apply", str(relaying.write(operator.bundle(files, 3))), "--confirm", "60s", "--json")
    assert json.loads(done.stdout)["code"] == "relay"
    assert "no relay identity" in done.stderr
    with relaying.connect(PORT):
        pass
    relaying.power_on()
    assert not relaying.boot()
    assert "relay: closed" in relaying.console()[-1]


def test_a_worker_that_ends_at_once_is_seen(relaying: World, operator: Operator, identities: Identities) -> None:
    """What only the worker finds out, after its master has said that all is well: nothing was changed in the end.

    A busy agent may see the relay for the first time when it has ended.
    """
    files = files_of("notice", "manage", relay=identities)
    files["relay/haproxy.cfg"] = files["relay/haproxy.cfg"].replace(b"chroot /var/lib/haproxy", b"chroot /nowhere")
    done = relaying.agent("apply", str(relaying.write(operator.bundle(files, 2))), "--confirm", "60s", "--json")
    assert json.loads(done.stdout)["code"] == "relay"
    assert re.search(r"the relay (ended as soon as it had begun|does not listen) \((failed|inactive)\)", done.stderr)
    with relaying.connect(PORT):
        pass
