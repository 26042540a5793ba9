"""Where everything is: on an appliance by default, and in other places for tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Root:
    """The places that the agent reads and writes. It acts in the network namespace of its own process."""

    state: Path = Path("/state")
    """The state partition."""
    run: Path = Path("/run/netpolicy")
    """In memory: the bundle that was verified, and what daemons say."""
    share: Path = Path("/usr/share/netpolicy")
    """In the image: the inventory and the certificates of operators' authorities."""
    console: Path = Path("/dev/console")
    mounted: bool = True
    """Whether `state` must be a partition of its own."""
    units: Path = Path("/run/systemd/system")
    """Where the service manager looks for what was changed since power-on."""
    path: str = "/usr/sbin:/usr/bin:/sbin:/bin"
    """Where programs are found."""
    wire: str = "wire-"
    """What the names of engines' network namespaces begin with; the name of the interface follows."""

    @property
    def bundle(self) -> Path:
        """The files of the bundle that runs: a link, put in place only after they were verified."""
        return self.run / "bundle"

    @property
    def inventory(self) -> Path:
        """Which firewalls there are."""
        return self.share / "inventory.json"

    @property
    def trust(self) -> Path:
        """The authorities of each manager's operators."""
        return self.share / "trust"

    @property
    def identity(self) -> Path:
        """The relay's certificate and key, and the key of checkpoints."""
        return self.state / "identity"

    @property
    def journal(self) -> Path:
        """The usage records."""
        return self.state / "journal"

    def namespace(self, interface: str) -> Path:
        """Return the network namespace in which the engine of an interface runs."""
        return Path("/run/netns") / f"{self.wire}{interface}"

    def engine(self, interface: str) -> Path:
        """Return the directory of what the engine of an interface writes."""
        return self.run / "engine" / interface
