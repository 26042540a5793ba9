"""Whom an appliance trusts comes in what operators signed, and in no other way."""

from __future__ import annotations

import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from appliance_image.agent.adopt import adopt_from
from appliance_image.agent.identity import identify
from appliance_image.agent.root import Root
from appliance_image.agent.state import State
from conformance.pki import Identities, issue_identities
from netpolicy.topology.identity import server_name
from netpolicy.topology.model import Assurance
from tests.agent.making import FIREWALL, PORT, Operator, files_of, topology
from tests.agent.relayed import answering, context_of
from tests.agent.world import QUESTION, World

_FILES = ("chain.pem", "key.pem", "crl.pem")


@pytest.fixture
def strangers(tmp_path: Path) -> Identities:
    """Return another authority's certificates, with the very names."""
    relayed = topology("notice", assurance=Assurance.TERMINATE)
    return issue_identities(relayed, tmp_path / "strangers", now=datetime.now(UTC))


def _medium(world: World, operator: Operator, bundle: dict[str, bytes], serial: int, **files: Path | bytes) -> Path:
    """Return a medium with a signed bundle and these files of an identity."""
    place = world.place / f"medium-{serial}"
    shutil.rmtree(place, ignore_errors=True)
    (place / "identity").mkdir(parents=True)
    (place / "next.bundle").write_bytes(operator.bundle(bundle, serial).content)
    for name, content in files.items():
        path = place / "identity" / f"{name}.pem"
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return place


def _adopted(world: World, medium: Path) -> str:
    """Offer a medium, and return the code of the refusal, ``adopted`` if there was none."""

    def adopt(root: Root) -> int:
        state = State(root)
        state.prepare()
        refused = adopt_from(root, medium, identify(root), state)
        (world.place / "came").write_text("adopted" if refused is None else refused.code)
        return 0

    assert world.fork(adopt) == 0, (world.place / "said").read_text()
    return (world.place / "came").read_text()


def _all(identities: Identities) -> dict[str, Path | bytes]:
    place = identities.directory / FIREWALL
    return {name.removesuffix(".pem"): place / name for name in _FILES}


def _held(world: World) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in world.root.identity.iterdir()}


def test_a_medium_brings_no_trust(
    world: World, operator: Operator, identities: Identities, strangers: Identities
) -> None:
    """A signed bundle with somebody else's root beside it changes neither whom the relay trusts nor who it is."""
    files, own, foreign = files_of("notice", relay=identities), _all(identities), _all(strangers)
    assert _adopted(world, _medium(world, operator, files, 1, **own)) == "adopted"
    kept = _held(world)
    assert {name: kept[name] for name in _FILES} == {
        name: (identities.directory / FIREWALL / name).read_bytes() for name in _FILES
    }
    root = strangers.directory / FIREWALL / "trust.pem"
    lists = identities.directory / FIREWALL / "crl.pem"
    cases: list[tuple[str, dict[str, Path | bytes]]] = [
        ("other-trust", {**foreign, "trust": root}),
        ("other-trust", {"trust": root}),
        ("false-crl", foreign),
        ("wrong-authority", {**foreign, "crl": lists}),
        ("other-key", {**own, "key": foreign["key"]}),
        ("other-names", {**own, "chain": identities.directory / "alpha" / "chain.pem"}),
        ("malformed", {**own, "checkpoint": foreign["key"]}),
        ("malformed", {**own, "crl": b"nonsense"}),
    ]
    for code, offered in cases:
        assert (_adopted(world, _medium(world, operator, files, 2, **offered)), offered.keys()) == (
            code,
            offered.keys(),
        )
        assert _held(world) == kept, code
        last = [each["fields"] for each in world.records() if each["event"] == "refused"][-1]
        assert (last["code"], last["source"]) == (code, "medium")
    # What a stick of before has beside it, the very root of the bundle, does no harm.
    own["trust"] = identities.directory / FIREWALL / "trust.pem"
    assert _adopted(world, _medium(world, operator, files, 2, **own)) == "adopted"
    assert "trust.pem" not in _held(world)


def test_a_bundle_without_authorities(world: World, operator: Operator, identities: Identities) -> None:
    """A relay that is not told by whose certificates to judge does not come to run, nor does an identity come alone."""
    files = files_of("notice", relay=identities)
    bare = {name: content for name, content in files.items() if not name.startswith("authorities/")}
    assert _adopted(world, _medium(world, operator, bare, 1)) == "no-authorities"
    plain = files_of("notice")
    assert _adopted(world, _medium(world, operator, plain, 1, **_all(identities))) == "no-authorities"
    assert _adopted(world, _medium(world, operator, plain, 1)) == "adopted"


def test_a_bundle_of_another_root(relaying: World, operator: Operator, strangers: Identities) -> None:
    """A bundle whose roots do not know this firewall's own certificate is refused before anything changes."""
    bundle = operator.bundle(files_of("notice", "manage", relay=strangers), 2)
    done = relaying.agent("apply", str(relaying.write(bundle)), "--confirm", "60s", "--json")
    assert '"wrong-authority"' in done.stdout
    assert any("relay: ok: listens" in line for line in relaying.console())


def _renewed(world: World, identities: Identities) -> None:
    done = world.agent("renew", str(identities.directory / FIREWALL), "--json")
    assert done.returncode == 0, done.stdout


def _ended(secured: ssl.SSLSocket, seconds: float) -> bool:
    """Tell whether a connection ends within some seconds, though both ends go on speaking."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            secured.sendall(QUESTION)
            if not secured.recv(100):
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_revoked_one_keeps_no_connection(relaying: World, identities: Identities) -> None:
    """New lists as such leave connections alone; lists that revoke somebody end all, so that theirs ends as well."""
    name = server_name(identities.topology, identities.topology.firewalls[FIREWALL])
    context = context_of(identities, identities.topology.nodes["alpha"], server=False)

    @contextmanager
    def connected() -> Iterator[ssl.SSLSocket]:
        with relaying.connect(PORT) as plain, context.wrap_socket(plain, server_hostname=name) as secured:
            secured.sendall(QUESTION)
            if secured.recv(100) != QUESTION:
                raise ConnectionResetError("closed")
            yield secured

    with answering(relaying, identities):
        with connected() as living:
            identities.renew(identities.topology.firewalls[FIREWALL], now=datetime.now(UTC))
            _renewed(relaying, identities)
            assert not _ended(living, 1.0)
            identities.revoke(identities.of(identities.topology.nodes["alpha"]), now=datetime.now(UTC))
            begun = time.monotonic()
            _renewed(relaying, identities)
            assert _ended(living, 1.0)
            print(f"a revoked one had ended {time.monotonic() - begun:.1f} s after renew began")
        with pytest.raises(OSError, match=r"(?i)revoked|reset|eof|closed"), connected():
            pass
