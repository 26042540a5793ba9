"""``netpolicy bundle``: what a firewall runs, in one file that its manager's operators have signed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from netpolicy.build.tree import replace_file
from netpolicy.cli._card import add_card, card
from netpolicy.cli._journalled import REFUSED, Recorded, add_journal, journalled
from netpolicy.inputs import read_regular

if TYPE_CHECKING:
    from appliance_image.bundle import Bundle, Refused, Signer, Verified
    from appliance_image.signing.key import SigningKey

_HOLDS, _REFUSED, _BAD_INPUT, _MACHINE_LACKS = 0, 1, 2, 3
_VALID_DAYS, _MOST_DAYS = 180, 3650
_MOST_BYTES = 16 << 20
"""Of certificates and lists."""


class _CallError(Exception):
    """The options do not fit each other."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "bundle",
        help="sign and verify what a firewall runs",
        description="A bundle is one file that holds what a firewall runs, signed by operators of its manager.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_sign(commands)
    _add_verify(commands)
    unlock = commands.add_parser(
        "unlock-token",
        help="allow a card's PIN again after too many wrong ones",
        description="Forget the wrong PINs that were counted on this machine for a card. Find out first who gave them. "
        "A card that has locked itself is unlocked by its issuer only.",
    )
    add_card(unlock, required=True)
    add_journal(unlock)
    unlock.set_defaults(run=lambda args: _run(args, "unlock-token", _unlock))


def _add_sign(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sign = commands.add_parser(
        "sign",
        help="make a bundle of a build and sign it, or add a second operator's signature",
        description="Make the bundle of FIREWALL from the build SOURCE and sign it; or, where SOURCE is a bundle, "
        "verify it, show what it is, and add a signature to it. What comes out is verified before it is written.",
    )
    sign.add_argument("source", metavar="SOURCE", type=Path, help="a build (directory), or a bundle (file)")
    sign.add_argument("firewall", metavar="FIREWALL", nargs="?", help="whose bundle to make of a build")
    sign.add_argument("--trust", metavar="DIR", type=Path, required=True, help="MANAGER.pem: operators' authorities")
    sign.add_argument("--out", metavar="FILE", type=Path, help="default: FIREWALL-SERIAL.bundle, or the bundle itself")
    sign.add_argument("--serial", metavar="N", type=int, help="higher than that of the firewall's last bundle")
    sign.add_argument("--crl", metavar="FILE", type=Path, help="the manager's revocation lists (PEM)")
    sign.add_argument(
        "--authorities",
        metavar="FILE",
        type=Path,
        help="roots and issuers of all ends (PEM), for a firewall with a relay",
    )
    sign.add_argument("--valid-days", metavar="N", type=int, help=f"default: {_VALID_DAYS}")
    sign.add_argument("--not-before", metavar="TIME", type=_time, help="such as 2026-12-01T00:00:00Z; default: now")
    add_card(sign)
    sign.add_argument("--key-label", metavar="NAME", help="the key's label, if the card holds several")
    sign.add_argument("--certificate", metavar="FILE", type=Path, help="the key's (PEM), if the card does not hold it")
    sign.add_argument(
        "--unsafe-key-file",
        metavar="FILE",
        type=Path,
        help="sign with a key (PEM) that whoever copies the file has too; needs --certificate; for rehearsals only",
    )
    add_journal(sign)
    sign.set_defaults(run=lambda args: _run(args, "sign", _sign))


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="tell whether a firewall would take a bundle",
        description="Verify a bundle as the firewall does that it is for; offline, and with openssl only. Without "
        "--topology, what the bundle says of its firewall, manager and signatures is taken as what is demanded.",
    )
    verify.add_argument("bundle", metavar="BUNDLE", type=Path)
    verify.add_argument("--trust", metavar="DIR", type=Path, required=True, help="MANAGER.pem: operators' authorities")
    verify.add_argument("--topology", metavar="TOPOLOGY", type=Path, help="who manages the firewall, and how many sign")
    verify.add_argument("--firewall", metavar="FIREWALL", help="the firewall that it must be for")
    verify.add_argument("--after-serial", metavar="N", type=int, default=0, help="the serial that the firewall has")
    verify.add_argument("--stored-crl", metavar="FILE", type=Path, help="revocation lists that the firewall has seen")
    verify.add_argument("--at", metavar="TIME", type=_time, help="judge at this time; default: now")
    verify.add_argument("--json", action="store_true", help="print the answer as JSON")
    add_journal(verify)
    verify.set_defaults(run=lambda args: _run(args, "verify", _verify))


def _run(args: argparse.Namespace, event: str, command: Callable[[argparse.Namespace, Recorded], int]) -> int:
    """Run a command and tell what was refused; the journal tells it as well."""
    from appliance_image.bundle import Code, Refused

    def refusing(args: argparse.Namespace, recorded: Recorded) -> int:
        try:
            return command(args, recorded)
        except Refused as refused:
            recorded[REFUSED], recorded["reason"] = refused.code, refused.text
            _tell_refused(args, refused)
            return _MACHINE_LACKS if refused.code == Code.NO_CARD else _REFUSED
        except _CallError as wrong:
            print(f"netpolicy: {wrong}", file=sys.stderr)
            return _BAD_INPUT

    return journalled(args, event, refusing)


def _tell_refused(args: argparse.Namespace, refused: Refused) -> None:
    if getattr(args, "json", False):
        print(json.dumps({"accepted": False, "code": refused.code, "text": refused.text}, indent=2, ensure_ascii=False))
    else:
        print(f"netpolicy: refused ({refused.code}): {refused.text}", file=sys.stderr)


def _sign(args: argparse.Namespace, recorded: Recorded) -> int:
    from appliance_image.bundle import Trust
    from appliance_image.bundle.archive import file_name
    from appliance_image.signing.sign import add_signature, signed_so_far

    now, trust = datetime.now(UTC), Trust(args.trust)
    _check_key_options(args)
    bundle = _to_sign(args, now)
    manifest = bundle.manifest
    out = args.out or (Path(file_name(manifest)) if args.source.is_dir() else args.source)
    if out.exists() and out != args.source:
        raise _CallError(f"{out} exists: remove it, or name another with --out")
    recorded.update(firewall=manifest.firewall, serial=manifest.serial, topology_sha256=manifest.topology_sha256)
    before = signed_so_far(bundle, trust, now)
    for line in _about(bundle, before):
        print(line)
    # All that is shown is shown before the PIN is asked for: giving it is the operator's consent.
    sys.stdout.flush()
    with _key(args) as key:
        recorded["key"] = key.where
        signed, operators = add_signature(bundle, key, trust, now)
    by = next(each for each in operators if each not in before)
    recorded.update(operator=by.subject, certificate=f"{by.serial:x}", bundle_sha256=signed.sha256, out=str(out))
    replace_file(out, signed.content)
    missing = manifest.signatures - len(operators)
    print(f"{out}: signed by {by.subject}")
    print(f"  sha256 {signed.sha256}")
    if missing > 0:
        print(f"  {missing} more must sign it: netpolicy bundle sign {out}")
    return _HOLDS


def _check_key_options(args: argparse.Namespace) -> None:
    if args.unsafe_key_file is None:
        if args.module is None or args.token is None:
            raise _CallError("a card is named by --module and --token")
        return
    if args.module is not None or args.token is not None:
        raise _CallError("--unsafe-key-file goes without --module and --token")
    if args.certificate is None:
        raise _CallError("--unsafe-key-file needs --certificate")
    print(
        f"netpolicy: warning: {args.unsafe_key_file} is a file: whoever copies it signs as its owner, and nobody "
        "notices. Use a card for anything but rehearsals",
        file=sys.stderr,
    )


def _to_sign(args: argparse.Namespace, now: datetime) -> Bundle:
    from appliance_image.bundle import read
    from appliance_image.signing.prepare import Order, prepare

    making = {"--serial": args.serial, "--crl": args.crl, "--valid-days": args.valid_days}
    making |= {"--not-before": args.not_before, "FIREWALL": args.firewall, "--authorities": args.authorities}
    if not args.source.is_dir():
        given = [name for name, value in making.items() if value is not None]
        if given:
            raise _CallError(f"{args.source} is a bundle already: {', '.join(given)} cannot be changed")
        return read(args.source)
    for name in ("FIREWALL", "--serial", "--crl"):
        if making[name] is None:
            raise _CallError(f"to make a bundle of a build, {name} is needed")
    days = _VALID_DAYS if args.valid_days is None else args.valid_days
    if not 0 < days <= _MOST_DAYS:
        raise _CallError(f"--valid-days {days} is not from 1 to {_MOST_DAYS}")
    life = timedelta(days=days)
    authorities = None if args.authorities is None else read_regular(args.authorities, _MOST_BYTES)
    begin = args.not_before or now
    return prepare(
        args.source,
        Order(args.firewall, args.serial, begin, life, read_regular(args.crl, _MOST_BYTES), authorities=authorities),
    )


@contextmanager
def _key(args: argparse.Namespace) -> Iterator[SigningKey]:
    from cryptography import x509

    from appliance_image.signing.card import card_key
    from appliance_image.signing.sign import unsafe_file_key

    certificate = None
    if args.certificate is not None:
        try:
            certificate = x509.load_pem_x509_certificate(read_regular(args.certificate, _MOST_BYTES))
        except ValueError as wrong:
            raise _CallError(f"{args.certificate} holds no certificate: {wrong}") from wrong
    if args.unsafe_key_file is not None and certificate is not None:
        yield unsafe_file_key(args.unsafe_key_file, certificate)
        return
    with card_key(card(args), label=args.key_label, certificate=certificate) as key:
        yield key


def _verify(args: argparse.Namespace, recorded: Recorded) -> int:
    from appliance_image.bundle import Trust, read, verify

    bundle = read(args.bundle)
    manifest = bundle.manifest
    recorded.update(bundle_sha256=bundle.sha256, firewall=manifest.firewall, serial=manifest.serial)
    name, managed_by, signatures, network = args.firewall or manifest.firewall, manifest.managed_by, 1, None
    if args.topology is not None:
        from netpolicy.topology.load import load_topology

        topology = load_topology(args.topology).topology
        if name not in topology.firewalls:
            raise _CallError(f"{args.topology} has no firewall '{name}'")
        firewall, network = topology.firewalls[name], topology.id
        managed_by, signatures = firewall.managed_by, firewall.signatures
    verified = verify(
        bundle,
        Trust(args.trust),
        firewall=name,
        managed_by=managed_by,
        signatures=signatures,
        after_serial=args.after_serial,
        now=args.at or datetime.now(UTC),
        crl=None if args.stored_crl is None else read_regular(args.stored_crl, _MOST_BYTES),
        network=network,
    )
    if args.json:
        print(json.dumps(_plain(verified), indent=2, ensure_ascii=False))
        return _HOLDS
    for line in _about(bundle, verified.operators, verified.others):
        print(line)
    demanded = "the topology demands" if args.topology is not None else "it demands itself (--topology tells the truth)"
    print(f"{args.bundle}: signed as {demanded}")
    return _HOLDS


def _unlock(args: argparse.Namespace, recorded: Recorded) -> int:
    recorded["token"] = args.token
    wrong = card(args).unlock()
    recorded["wrong"] = wrong
    print(f"token '{args.token}': {wrong} wrong PINs are forgotten on this machine")
    return _HOLDS


def _about(bundle: Bundle, operators: tuple[Signer, ...], others: tuple[Signer, ...] = ()) -> Iterator[str]:
    manifest = bundle.manifest
    size = sum(held.size for held in manifest.files.values())
    yield f"bundle {manifest.serial} of {manifest.firewall}"
    yield f"  network     {manifest.network}, managed by {manifest.managed_by}"
    yield f"  valid       {manifest.not_before:%Y-%m-%d %H:%M} to {manifest.not_after:%Y-%m-%d %H:%M} UTC"
    yield f"  topology    {manifest.topology_sha256}"
    yield f"  manifest    {_sha256(bundle.manifest_json)}"
    yield f"  files       {len(manifest.files)}, {size:,} bytes"
    yield f"  signatures  {len(operators)} of {manifest.signatures}"
    for signer in operators:
        yield f"    {signer.subject} (certificate {signer.serial:x}, until {signer.not_after:%Y-%m-%d})"
    for signer in others:
        yield f"    not counted: {signer.subject}, by {signer.issuer}"


def _plain(verified: Verified) -> dict[str, object]:
    manifest = verified.manifest
    return {
        "accepted": True,
        "network": manifest.network,
        "firewall": manifest.firewall,
        "managed_by": manifest.managed_by,
        "serial": manifest.serial,
        "not_before": manifest.not_before.isoformat(),
        "not_after": manifest.not_after.isoformat(),
        "topology_sha256": manifest.topology_sha256,
        "bundle_sha256": verified.bundle.sha256,
        "signatures": manifest.signatures,
        "operators": [_plain_signer(each) for each in verified.operators],
        "not_counted": [_plain_signer(each) for each in verified.others],
    }


def _plain_signer(signer: Signer) -> dict[str, object]:
    return {
        "subject": signer.subject,
        "issuer": signer.issuer,
        "person": signer.person,
        "certificate": f"{signer.serial:x}",
        "not_after": signer.not_after.isoformat(),
    }


def _sha256(content: bytes) -> str:
    from hashlib import sha256

    return sha256(content).hexdigest()


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
