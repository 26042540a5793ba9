"""What runs against what was signed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appliance_image.agent import bundles, daemons, kernel, live, machine, network, rules, services
from appliance_image.agent.identity import identify
from appliance_image.agent.loaded import Loaded, recall
from appliance_image.agent.records import record
from appliance_image.agent.root import Root
from appliance_image.agent.state import Pointer, State
from netpolicy.proof.settings import differing, wanted_settings


@dataclass(frozen=True, slots=True)
class Drift:
    """All differences, in words."""

    firewall: str
    serial: int
    rules_identical: bool
    packets: tuple[str, ...]
    """Packets that fare otherwise than the bundle says."""
    settings: tuple[str, ...]
    network: tuple[str, ...]
    daemons: tuple[str, ...]
    files: tuple[str, ...]
    """What of the bundle's files in memory is not as it was signed."""
    unseen: tuple[str, ...]
    """What this kernel has no way to tell, and why that is not needed."""

    @property
    def none(self) -> bool:
        """Whether everything is as it was signed."""
        return not (self.packets or self.settings or self.network or self.daemons or self.files)

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        if self.none:
            how = "identical" if self.rules_identical else "read otherwise, but do the same with every packet"
            yield f"{self.firewall}: no drift from serial {self.serial}; its rules are {how}"
            yield from (f"  not looked at: {each}" for each in self.unseen)
            return
        yield f"{self.firewall}: drift from serial {self.serial}"
        for title, found in (
            ("rules", self.packets),
            ("kernel settings", self.settings),
            ("network", self.network),
            ("engines and relay", self.daemons),
            ("files", self.files),
        ):
            for line in found:
                yield f"  {title}: {line}"
        yield from (f"  not looked at: {each}" for each in self.unseen)


def drift(root: Root) -> Drift:
    """Compare this appliance with its signed bundle, which is verified again from the state partition.

    Raises:
        AgentError: Nothing runs, or it cannot be found out.

    """
    loaded, state = recall(root), State(root)
    verified = bundles.take(root, state.bundle(Pointer(loaded.sha256, loaded.serial)), identify(root), state)
    changed = tuple(
        f"{path} is not as it was signed"
        for path, content in sorted(verified.bundle.files.items())
        if not (root.bundle / path).is_file() or (root.bundle / path).read_bytes() != content
    )
    if changed:
        # What is compared below must be what was signed.
        bundles.put(root, bundles.renewed(root, verified))
    comparison = live.compare(loaded.firewall, root.bundle, loaded.interfaces)
    found = Drift(
        loaded.firewall,
        loaded.serial,
        comparison.identical,
        (*comparison.packets, *_tables(root)),
        tuple(
            f"{key} is {present}, signed is {wanted}"
            for key, wanted, present in (
                *differing(wanted_settings(root.bundle)),
                *machine.differences(root.bundle),
            )
        ),
        tuple(_network(root, loaded)),
        tuple(_daemons(root, loaded)),
        changed,
        comparison.unseen,
    )
    if not found.none:
        record(root, "drift", firewall=found.firewall, serial=found.serial, found=list(found.lines())[1:20])
    return found


def _tables(root: Root) -> Iterator[str]:
    """Yield what no packet shows: the guard table decides nothing as long as the other stands."""
    found = rules.tables(root)
    yield from (f"table {family} {name} is missing" for family, name in rules.OWN if (family, name) not in found)


def _network(root: Root, loaded: Loaded) -> Iterator[str]:
    missing, surplus = network.differences(root.bundle, loaded.interfaces)
    yield from (f"missing: {each}" for each in sorted(missing))
    yield from (f"not signed: {each}" for each in sorted(surplus))


def _daemons(root: Root, loaded: Loaded) -> Iterator[str]:
    engines = daemons.engines_of(root.bundle)
    for interface in loaded.interfaces:
        if root.namespace(interface).exists() != (interface in engines):
            yield f"{interface} {'is not' if interface in engines else 'is'} behind an engine's namespace"
    for interface in engines:
        state = services.state(root, services.engine(interface))
        if state != "active":
            yield f"the engine of {interface} does not run ({state})"
    if engines and not daemons.engines_stand(root, root.bundle):
        yield "engines do not run with the signed files"
    if not daemons.relay_stands(root, root.bundle):
        yield "the relay does not run with the signed files"
    if not kernel.forwards():
        yield "the kernel does not forward"
