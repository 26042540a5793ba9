"""``netpolicy image``: the base image of appliances."""

from __future__ import annotations

import argparse
import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy import cli
from netpolicy.cli._card import add_card, card
from netpolicy.cli._topology import TOPOLOGY

if TYPE_CHECKING:
    from appliance_image.image.build import Built, Wish
    from appliance_image.image.packages import Lock

_HOLDS, _BAD_INPUT, _MACHINE_LACKS = 0, 2, 3
_MIB = 1 << 20
_FLAVOURS = ("virtual", "hardware")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "image",
        help="the image that appliances run",
        description="Build the image that all firewalls run: a signed kernel image and a root that cannot change.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_build(commands)
    _add_lock(commands)
    for module in sorted(pkgutil.iter_modules(cli.__path__), key=lambda found: found.name):
        if module.name.startswith("_image_"):
            import_module(f"{cli.__name__}.{module.name}").add_parser(commands)


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="build an image",
        description="Build an image from the packages that the lock file pins, and print its hash, its size and how "
        "long it took. The same pins, version, keys and topology give the same bytes; without a key it is unsigned, "
        "to be compared with one that is signed. Needs root. A failure leaves what was there.",
    )
    build.add_argument("--out", metavar="DIR", type=Path, default=Path("image"), help="default: %(default)s")
    build.add_argument("--test", action="store_true", help="with a console, and signed by a test key")
    build.add_argument("--flavour", choices=_FLAVOURS, default="virtual", help="default: %(default)s")
    build.add_argument(
        "--topology",
        metavar="TOPOLOGY",
        type=Path,
        default=TOPOLOGY,
        help="whose firewalls the appliance may become; default: %(default)s",
    )
    build.add_argument(
        "--trust",
        metavar="DIR",
        type=Path,
        help="MANAGER.pem: the authority of the operators of each manager (default with --test: trial operators, whose "
        "keys anybody here can use)",
    )
    build.add_argument(
        "--release-authority", metavar="FILE", type=Path, help="who signs image updates (PEM); default: nobody"
    )
    build.add_argument(
        "--secure-boot-certificate", metavar="FILE", type=Path, help="of the RSA key that the firmware trusts (PEM)"
    )
    build.add_argument("--secure-boot-key", metavar="FILE", type=Path, help="the key (PEM), if it is on no card")
    add_card(build)
    build.add_argument("--key-label", metavar="NAME", help="the key's label, if the card holds several")
    build.add_argument(
        "--image-version", metavar="N", help="the boot loader prefers the greater; default: the day of the packages"
    )
    build.add_argument("--lock", metavar="FILE", type=Path, help="default: that of the flavour in packages/")
    build.add_argument("--offline", action="store_true", help="use no network: packages are in the cache")
    build.add_argument(
        "--refresh", action="store_true", help="where a pinned package is gone, build from today's; says so"
    )
    build.add_argument(
        "--vulnerabilities", metavar="FILE", type=Path, help="debsecan's data for trixie, to look the packages up in"
    )
    _add_places(build)
    build.add_argument("--json", action="store_true", help="print the manifest as JSON")
    build.set_defaults(run=run_build)


def _add_lock(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lock = commands.add_parser(
        "lock",
        help="pin today's packages",
        description="Let apt choose today's packages of Debian 13 for the lists in packages/, write them to the lock "
        "file of the flavour and print what has changed.",
    )
    lock.add_argument("--flavour", choices=_FLAVOURS, default="virtual", help="default: %(default)s")
    lock.add_argument("--lock", metavar="FILE", type=Path, help="default: that of the flavour in packages/")
    _add_places(lock)
    lock.set_defaults(run=run_lock)


def _add_places(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", metavar="DIR", type=Path, help="of packages; default: ~/.cache/netpolicy")
    parser.add_argument("--mirror", metavar="URL", help="that debian/ and debian-security/ are below; default: apt's")


def run_build(args: argparse.Namespace) -> int:
    """Build an image."""
    from appliance_image.image.build import build
    from appliance_image.image.errors import ImageError, LackingError

    try:
        built = build(_wish(args), args.out, lambda what: _progress(args, what))
    except LackingError as lacking:
        print(f"netpolicy: {lacking}", file=sys.stderr)
        return _MACHINE_LACKS
    except ImageError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    _print(built, as_json=args.json)
    return _HOLDS


def run_lock(args: argparse.Namespace) -> int:
    """Write a lock file."""
    from appliance_image.image.errors import ImageError, LackingError
    from appliance_image.image.packages import changes, lock_path, pin, read_lock

    path = args.lock or lock_path(args.flavour)
    try:
        new = pin(args.flavour, args.mirror)
        changed = changes(read_lock(path), new) if path.is_file() else [f"{len(new.packages)} packages"]
    except LackingError as lacking:
        print(f"netpolicy: {lacking}", file=sys.stderr)
        return _MACHINE_LACKS
    except ImageError as refused:
        print(f"netpolicy: {refused}", file=sys.stderr)
        return _BAD_INPUT
    path.write_text(new.text(), "utf-8")
    for line in changed:
        print(line)
    print(f"{path}: {len(new.packages)} packages of {new.snapshot:%Y-%m-%d %H:%M} UTC")
    return _HOLDS


def _wish(args: argparse.Namespace) -> Wish:
    """Return what the arguments ask for."""
    from appliance_image.image.build import Wish, read_certificates, read_trust
    from appliance_image.image.errors import ImageError
    from appliance_image.image.inventory import inventory
    from appliance_image.image.places import CACHE
    from netpolicy.topology.load import load_topology

    if (args.module is None) != (args.token is None):
        raise ImageError("--module and --token go together")
    keys = [args.secure_boot_key, args.token]
    if sum(each is not None for each in keys) != (args.secure_boot_certificate is not None):
        raise ImageError("--secure-boot-certificate goes with --secure-boot-key, or with --module and --token")
    topology = load_topology(args.topology).topology
    trust = args.trust
    if trust is None and args.secure_boot_certificate is not None and not args.test:
        raise ImageError("an image that is signed needs --trust: the appliance would accept no bundle")
    if trust is None and args.test:
        from appliance_image.vm.operators import TrialOperators
        from netpolicy.cli._vm import operators_of

        trust = TrialOperators.make(operators_of(topology), topology).trust.directory
    lock = _lock(args, args.cache or CACHE)
    return Wish(
        lock=lock,
        version=args.image_version or f"{lock.snapshot:%Y%m%d}",
        test=args.test,
        flavour=args.flavour,
        inventory=inventory(topology),
        trust={} if trust is None else read_trust(trust, topology),
        release_authority=None if args.release_authority is None else read_certificates(args.release_authority),
        key=args.secure_boot_key if args.token is None else card(args),
        key_label=args.key_label,
        certificate=args.secure_boot_certificate,
        cache=args.cache or CACHE,
        mirror=args.mirror,
        offline=args.offline,
        feed=args.vulnerabilities,
    )


def _lock(args: argparse.Namespace, cache: Path) -> Lock:
    """Return the pinned packages, or today's where those are gone and that is allowed."""
    from appliance_image.image.errors import LackingError
    from appliance_image.image.packages import changes, fetch, lock_path, pin, read_lock

    lock = read_lock(args.lock or lock_path(args.flavour))
    if args.refresh and not args.offline:
        try:
            fetch(lock, cache / "packages", args.mirror, offline=False)
        except LackingError as gone:
            new = pin(args.flavour, args.mirror)
            print(f"netpolicy: warning: {gone}", file=sys.stderr)
            print("netpolicy: warning: building from today's packages instead:", file=sys.stderr)
            for line in changes(lock, new):
                print(f"  {line}", file=sys.stderr)
            return new
    return lock


def _progress(args: argparse.Namespace, what: str) -> None:
    """Tell a person who waits what is being done."""
    if sys.stderr.isatty() and not args.json:
        print(f"\r\033[K{what} …", end="", file=sys.stderr, flush=True)


def _print(built: Built, *, as_json: bool) -> None:
    """Print what was built."""
    if as_json:
        print(json.dumps({"out": str(built.directory), "seconds": round(built.seconds, 1), **built.manifest}, indent=1))
        return
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    root, disk, kernel = (built.manifest["files"][name] for name in ("root.erofs", "disk.raw", "kernel.unsigned.efi"))
    kind = "TEST image, with a console" if built.manifest["test"] else "image"
    print(f"{built.directory}: {kind} {built.manifest['version']}, {built.manifest['packages']} Debian packages")
    print(f"appliances   {len(built.manifest['firewalls'])} firewalls of {built.manifest['network']}")
    trusted, signed_by = built.manifest["trust"], (built.manifest["signed_by"] or "").removeprefix("subject=")
    print(
        f"trusts       {'operators of ' + ', '.join(trusted) if trusted else 'nobody, so accepts no bundle: --trust'}"
    )
    print(f"signed by    {signed_by or 'nobody, so does not start under Secure Boot: --secure-boot-certificate'}")
    print(f"root hash    {built.manifest['roothash']}")
    print(f"disk         sha256 {disk['sha256']}, {disk['on_disk'] / _MIB:.1f} MiB of {disk['size'] / _MIB:.0f}")
    print(f"kernel image sha256 {kernel['sha256']} before it was signed, {kernel['size'] / _MIB:.1f} MiB")
    print(f"root         {root['size'] / _MIB:.1f} MiB")
    print(f"PCR 11       {built.manifest['pcr11']}")
    print(f"time         {built.seconds:.1f} s")
