"""The Debian packages of an image: what is wanted, the lock file that pins them, and the files themselves.

A lock file has the packages' SHA-256: once it is made, neither the mirror nor its keys need to be trusted.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

from appliance_image.image.errors import ImageError, LackingError
from appliance_image.image.places import PROJECT

SUITE = "trixie"
SNAPSHOTS = "http://snapshot.debian.org/archive"
"""Debian's archive of every version there ever was; asked where a mirror has dropped one."""

_COLUMNS = 9
_DATE = "%Y%m%dT%H%M%SZ"
_TIMEOUT = 60
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_MIRROR = re.compile(r"^[^#]*?(https?://\S+?)/debian/?(?=\s|$)", re.MULTILINE)
_INSTALLED = re.compile(r"^Inst (?P<name>\S+) \((?P<version>\S+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A list in packages/."""

    names: tuple[str, ...]
    """As apt takes them: with ``/suite`` where not the newest of the stable suite is meant."""
    left_out: frozenset[str]
    """Never in the root, although something depends on it."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package file."""

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    """Bytes."""
    path: str
    """Below the mirror: ``debian/pool/…`` or ``debian-security/pool/…``."""
    uses: tuple[str, ...]
    """Where it is wanted: ``root``, ``tools``."""
    source: str
    """The source package, by which vulnerabilities are known."""
    source_version: str

    @property
    def file(self) -> str:
        """Its name in a cache: the hash keeps apart what a mirror calls the same."""
        return f"{self.name}_{self.sha256[:16]}.deb"


@dataclass(frozen=True, slots=True)
class Lock:
    """Exactly these packages."""

    snapshot: datetime
    """The newest date among the suites' Release files; also the date of every file in the image."""
    packages: tuple[Package, ...]

    @property
    def epoch(self) -> int:
        """SOURCE_DATE_EPOCH."""
        return int(self.snapshot.timestamp())

    def of(self, use: str) -> Lock:
        """Return what is wanted for one use."""
        return Lock(self.snapshot, tuple(each for each in self.packages if use in each.uses))

    def text(self) -> str:
        """Return it as a lock file."""
        head = (
            "# The Debian packages of an appliance's image. Made by netpolicy image lock; do not edit.\n"
            f"snapshot {self.snapshot:{_DATE}}\n"
        )
        rows = (
            f"{p.name} {p.version} {p.architecture} {p.sha256} {p.size} {p.path} {','.join(p.uses)} "
            f"{p.source} {p.source_version}\n"
            for p in sorted(self.packages)
        )
        return head + "".join(rows)


def read_wanted(path: Path) -> Wanted:
    """Read a list in packages/: names, comments after ``#``, and after ``-`` what is left out."""
    words = [word for line in path.read_text("utf-8").splitlines() for word in line.partition("#")[0].split()]
    return Wanted(
        tuple(word for word in words if not word.startswith("-")),
        frozenset(word[1:] for word in words if word.startswith("-")),
    )


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        ImageError: It is none.

    """
    snapshot = None
    packages = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        words = line.partition("#")[0].split()
        try:
            if words[:1] == ["snapshot"] and snapshot is None:
                snapshot = datetime.strptime(words[1], _DATE).replace(tzinfo=UTC)
            elif words:
                packages.append(_row(words))
        except (ValueError, IndexError):
            raise ImageError(
                f"{path}:{number}: not a line of a lock file ({_COLUMNS} columns); netpolicy image lock makes it anew"
            ) from None
    if snapshot is None or not packages:
        raise ImageError(f"{path}: it pins nothing; netpolicy image lock makes it anew")
    return Lock(snapshot, tuple(sorted(packages)))


def _row(words: Sequence[str]) -> Package:
    """Return the package of a row of a lock file; ValueError if it is none."""
    name, version, architecture, sha256, size, where, uses, source, source_version = words
    if not re.fullmatch("[0-9a-f]{64}", sha256) or ".." in where or where.startswith("/"):
        raise ValueError(where)
    places = tuple(uses.split(","))
    return Package(name, version, architecture, sha256, int(size), where, places, source, source_version)


def lock_path(flavour: str) -> Path:
    """Return where the lock file of a flavour is."""
    return PROJECT / f"packages/image-{SUITE}-{flavour}.lock"


def pin(flavour: str, mirror: str | None) -> Lock:
    """Return today's packages of a flavour."""
    lists = {name: read_wanted(PROJECT / "packages" / name) for name in
             (f"image-{SUITE}", f"image-{SUITE}-{flavour}", f"tools-{SUITE}")}  # fmt: skip
    root, kernel, tools = lists.values()
    return resolve({"root": [root, kernel], "tools": [tools]}, mirror or own_mirror())


def changes(old: Lock, new: Lock) -> list[str]:
    """Return what differs between two lock files, a line for each package."""
    before, after = ({each.name: each.version for each in lock.packages} for lock in (old, new))
    return [
        f"{name} {before.get(name, '(new)')} → {after.get(name, '(gone)')}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def own_mirror(directory: Path = Path("/etc/apt")) -> str:
    """Return the mirror that this machine's apt uses, less ``/debian``; Debian's own where it names none."""
    lists = [directory / "sources.list", *sorted((directory / "sources.list.d").glob("*"))]
    for path in lists:
        if path.is_file() and (found := _MIRROR.search(path.read_text("utf-8", errors="replace"))):
            return found[1]
    return "http://deb.debian.org"


def resolve(wanted: Mapping[str, Sequence[Wanted]], mirror: str) -> Lock:
    """Let apt choose today's packages, with what they depend on; the suites' signatures are checked.

    Nothing of this machine's own packages or sources takes part.

    Args:
        wanted: Lists for each use; those of one use are resolved together.
        mirror: The address that ``debian`` and ``debian-security`` are below.

    Raises:
        LackingError: apt says why not.

    """
    with tempfile.TemporaryDirectory(prefix="netpolicy-apt-") as name:
        apt = Path(name)
        for directory in ("state/lists/partial", "cache/archives/partial"):
            (apt / directory).mkdir(parents=True)
        (apt / "status").touch()
        suites = [("debian", suite) for suite in (SUITE, f"{SUITE}-updates", f"{SUITE}-backports")]
        suites.append(("debian-security", f"{SUITE}-security"))
        (apt / "sources.list").write_text(
            "".join(
                f"deb [signed-by={_KEYS}] {mirror}/{where} {suite} main non-free-firmware\n" for where, suite in suites
            )
        )
        options = _options(apt)
        _apt("apt-get", *options, "update", "-qq", "--error-on=any")
        uses: dict[str, set[str]] = {}
        for use, lists in wanted.items():
            left_out = frozenset[str]().union(*(each.left_out for each in lists))
            names = sorted({name for each in lists for name in each.names})
            for found in _INSTALLED.finditer(_apt("apt-get", *options, "install", "--simulate", *names)):
                if found["name"] not in left_out:
                    uses.setdefault(f"{found['name']}={found['version']}", set()).add(use)
        shown = _apt("apt-cache", *options, "show", *sorted(uses))
        packages = {}
        for stanza in filter(str.strip, shown.split("\n\n")):
            field = dict(_FIELD.findall(stanza))
            where = "debian-security" if field["Filename"].startswith("pool/updates/") else "debian"
            package = Package(
                field["Package"],
                field["Version"],
                field["Architecture"],
                field["SHA256"],
                int(field["Size"]),
                f"{where}/{field['Filename']}",
                tuple(sorted(uses[f"{field['Package']}={field['Version']}"])),
                *_source(field),
            )
            packages[package.name, package.version] = package
        releases = [
            re.search(r"^Date: (.*)$", path.read_text("utf-8"), re.MULTILINE)
            for path in (apt / "state/lists").glob("*InRelease")
        ]
    snapshot = max(parsedate_to_datetime(found[1]) for found in releases if found)
    return Lock(snapshot.astimezone(UTC), tuple(sorted(packages.values())))


def _options(apt: Path) -> list[str]:
    """Return options by which apt works in a directory of its own."""
    settings = {
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Dir::Etc::SourceList": apt / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::Etc::Preferences": "/dev/null",
        "Dir::Etc::PreferencesParts": "/dev/null",
        "APT::Architecture": "amd64",
        "APT::Architectures": "amd64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
        "Acquire::Languages": "none",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _source(field: Mapping[str, str]) -> tuple[str, str]:
    """Return a binary package's source package and its version (deb-control(5))."""
    name, _, version = field.get("Source", field["Package"]).partition(" ")
    return name, version.strip("()") or field["Version"]


def _apt(*argv: str) -> str:
    """Run apt and return what it prints."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode != 0:
        raise LackingError(f"{argv[0]} has failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


_FIELD = re.compile(r"^(Package|Source|Version|Architecture|Filename|SHA256|Size): (.*)$", re.MULTILINE)


def fetch(lock: Lock, cache: Path, mirror: str | None, *, offline: bool, snapshots: str = SNAPSHOTS) -> list[Path]:
    """Return the packages' files, in the order of the lock; what the cache lacks is fetched.

    Raises:
        LackingError: Some cannot be had; which, and what to do.

    """
    cache.mkdir(parents=True, exist_ok=True)
    mirror = mirror or own_mirror()
    dated = f"{lock.snapshot:{_DATE}}"

    def sources(package: Package) -> Sequence[str]:
        archive, _, rest = package.path.partition("/")
        return [f"{mirror}/{quote(package.path)}", f"{snapshots}/{archive}/{dated}/{quote(rest)}"]

    def get(package: Package) -> tuple[Path, str | None]:
        path = cache / package.file
        if path.is_file() and _holds(path, package):
            return path, None
        if offline:
            return path, "not in the cache"
        why = []
        for address in sources(package):
            try:
                with urllib.request.urlopen(address, timeout=_TIMEOUT) as answer:  # noqa: S310 - checked by its hash
                    content = answer.read(package.size + 1)
            except (urllib.error.URLError, OSError) as failed:
                why.append(f"{address}: {failed}")
                continue
            if hashlib.sha256(content).hexdigest() == package.sha256:
                # Named after this process: another build may fetch the same at the same time.
                fresh = path.with_suffix(f".{os.getpid()}.part")
                fresh.write_bytes(content)
                fresh.replace(path)
                return path, None
            why.append(f"{address}: not the file that the lock file pins")
        return path, "; ".join(why)

    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(get, lock.packages))
    missing = [(package, why) for package, (_, why) in zip(lock.packages, got, strict=True) if why]
    if missing:
        package, why = missing[0]
        raise LackingError(
            f"{len(missing)} of {len(got)} packages that the lock file pins cannot be had, such as "
            f"{package.name} {package.version} ({why}). "
            + (
                "Build once without --offline."
                if offline
                else "A mirror drops what is superseded: renew the pins with netpolicy image lock, or build with "
                "--refresh."
            )
        )
    return [path for path, _ in got]


def _holds(path: Path, package: Package) -> bool:
    """Say whether a cached file is the package."""
    if path.stat().st_size != package.size:
        return False
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == package.sha256
