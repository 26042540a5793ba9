"""The tools that images are made with: Debian 13's, as pinned as what goes into the image, in a root of their own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance_image.image.errors import ImageError, LackingError
from appliance_image.image.extract import extract

_INSIDE = Path(__file__).with_name("inside.py")
_OWNERS = ".owners.json"


@dataclass(frozen=True, slots=True)
class Workshop:
    """The root of the tools, and a directory that they see as /work."""

    root: Path
    work: Path
    epoch: int
    """SOURCE_DATE_EPOCH: seconds since 1970, of whatever is written."""
    extra: tuple[tuple[Path, str], ...] = ()
    """Further directories, and where the tools see them."""

    @property
    def still(self) -> dict[str, str]:
        """Environment in which the clock stands at the epoch, for tools that know no SOURCE_DATE_EPOCH."""
        return {
            "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
            "FAKETIME": f"{datetime.fromtimestamp(self.epoch, UTC):%Y-%m-%d %H:%M:%S}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def owner(self, path: Path) -> str:
        """Return the package file that a file of the tools' root is from."""
        owners: dict[str, str] = json.loads((self.root / _OWNERS).read_text("utf-8"))
        return owners[str(path.relative_to(self.root))]

    def run(self, *argv: str | Path, stdin: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
        """Run one of the tools in /work and return what it prints.

        Raises:
            ImageError: It failed; with what it said.

        """
        plan = {
            "root": str(self.root),
            "mounts": [[str(self.work), "/work"], *([str(path), target] for path, target in self.extra)],
            "cwd": "/work",
            "argv": [str(each) for each in argv],
            "environment": {
                "PATH": "/usr/sbin:/usr/bin:/usr/lib/systemd",
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
                "SOURCE_DATE_EPOCH": str(self.epoch),
                "PYTHONHASHSEED": "0",
                **(environment or {}),
            },
        }
        done = subprocess.run(
            [sys.executable, "-I", str(_INSIDE), json.dumps(plan)],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            said = (done.stderr + done.stdout).decode(errors="replace").strip()
            raise ImageError(f"{argv[0]} has failed ({done.returncode}): {said[-2000:]}")
        return done.stdout


def tool_root(packages: Sequence[Path], cache: Path) -> Path:
    """Return the root of the tools; it is made when it is not there.

    Args:
        packages: The package files it is made of.
        cache: Where it is kept.

    Raises:
        LackingError: This is not root.

    """
    if os.geteuid() != 0:
        raise LackingError("an image is built as root: its tools run in a root of their own")
    # How it is made belongs to what it is.
    how = Path(__file__).with_name("extract.py").read_text("utf-8") + Path(__file__).read_text("utf-8")
    key = hashlib.sha256((how + "".join(f"{each.name}\n" for each in packages)).encode()).hexdigest()[:16]
    root = cache / f"tools-{key}"
    if root.is_dir():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".tools-", dir=cache))
    try:
        fresh.chmod(0o755)
        owners = extract(packages, fresh, whole=True).owners
        (fresh / _OWNERS).write_text(json.dumps(owners), "utf-8")
        for name in ("work", "proc", "dev", "tmp", "run", "var/tmp", "etc/apt/apt.conf.d"):
            (fresh / name).mkdir(parents=True, exist_ok=True)
        # debsecan compares versions with apt's library, which wants to see a Debian system.
        (fresh / "var/lib/dpkg").mkdir(parents=True, exist_ok=True)
        (fresh / "var/lib/dpkg/status").touch()
        fresh.rename(root)
    except OSError:
        # Another build has made it meanwhile.
        if not root.is_dir():
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return root


@contextmanager
def workshop(root: Path, epoch: int, extra: Sequence[tuple[Path, str]] = ()) -> Iterator[Workshop]:
    """Yield a workshop with an empty directory to work in, which is gone afterwards."""
    work = Path(tempfile.mkdtemp(prefix="netpolicy-image-"))
    try:
        yield Workshop(root, work, epoch, tuple(extra))
    finally:
        shutil.rmtree(work)
