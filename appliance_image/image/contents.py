"""What is in an image: a bill of materials (CycloneDX 1.6), and what is known to be vulnerable in it (debsecan)."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from appliance_image.image.errors import ImageError
from appliance_image.image.packages import SUITE, Package
from appliance_image.image.workshop import Workshop
from netpolicy.inputs import read_regular

_FEED_HEAD = b"VERSION 1\n"
_FEED_BYTES = 256 << 20
"""Packed or not; it has some 30 MiB."""


@dataclass(frozen=True, slots=True)
class Contents:
    """All that an image is made of."""

    version: str
    """The image's."""
    snapshot: str
    """RFC 3339: the date of its packages."""
    seed: uuid.UUID
    root: tuple[Package, ...]
    boot: tuple[Package, ...]
    """Of which there are programs in the initial RAM disk or on the EFI system partition."""
    wheels: Mapping[str, tuple[str, str]]
    """name: (version, SHA-256)."""
    modules: Mapping[str, str]
    """This repository's, with their SHA-256."""


def bill(contents: Contents) -> str:
    """Return the bill of materials, in a fixed order; the same contents give the same bytes."""
    components = [
        _component(
            "library",
            f"{place}:{package.name}@{package.version}",
            package.name,
            package.sha256,
            {"place": place, "source": f"{package.source} {package.source_version}"},
            version=package.version,
            purl=f"pkg:deb/debian/{quote(package.name)}@{quote(package.version)}"
            f"?arch={package.architecture}&distro=debian-13",
        )
        for place, packages in (("root", contents.root), ("boot", contents.boot))
        for package in sorted(packages)
    ]
    components += [
        _component(
            "library", f"wheel:{name}@{version}", name, sha256, {"place": "root"},
            version=version, purl=f"pkg:pypi/{name}@{version}",
        )
        for name, (version, sha256) in sorted(contents.wheels.items())
    ]  # fmt: skip
    components += [
        _component("file", f"module:{path}", path, sha256, {"place": "root"})
        for path, sha256 in sorted(contents.modules.items())
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(contents.seed, 'bill of materials')}",
        "version": 1,
        "metadata": {
            "timestamp": contents.snapshot,
            "component": {
                "type": "operating-system",
                "bom-ref": "image",
                "name": "netpolicy",
                "version": contents.version,
            },
        },
        "components": components,
    }
    return json.dumps(document, indent=1) + "\n"


def _component(
    kind: str, reference: str, name: str, sha256: str, properties: Mapping[str, str], **more: str
) -> dict[str, object]:
    """Return a component of a bill of materials."""
    return {
        "type": kind,
        "bom-ref": reference,
        "name": name,
        **more,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "properties": [{"name": f"netpolicy:{key}", "value": value} for key, value in properties.items()],
    }


def vulnerabilities(packages: Iterable[Package], feed: Path | None, shop: Workshop) -> dict[str, object]:
    """Return what debsecan says of packages.

    Args:
        packages: Those of an image.
        feed: debsecan's data for trixie, as the security tracker gives it or unpacked; None where there is none.
        shop: With debsecan.

    Raises:
        ImageError: The feed is none.

    """
    if feed is None:
        return {"feed": None, "text": "not looked for: no feed was given (--vulnerabilities)"}
    try:
        content = read_regular(feed, _FEED_BYTES)
    except OSError as refused:
        raise ImageError(f"{feed}: it cannot be read: {refused.strerror}") from refused
    if not content.startswith(_FEED_HEAD):
        packed = zlib.decompressobj()
        try:
            content = packed.decompress(content, _FEED_BYTES)
        except zlib.error:
            content = b""
        if not packed.eof:
            raise ImageError(f"{feed}: not data of debsecan, or more than {_FEED_BYTES} bytes of it")
    if not content.startswith(_FEED_HEAD):
        raise ImageError(f"{feed}: not data of debsecan")
    directory = shop.work / "feed"
    directory.mkdir()
    (directory / SUITE).write_bytes(zlib.compress(content))
    status = "".join(
        f"Package: {each.name}\nStatus: install ok installed\nArchitecture: {each.architecture}\n"
        f"Source: {each.source} ({each.source_version})\nVersion: {each.version}\n\n"
        for each in sorted(packages)
    )
    (shop.work / "status").write_text(status)
    said = shop.run("debsecan", f"--suite={SUITE}", "--source=file:///work/feed", "--status=/work/status",
                    "--history=/work/history", "--format=simple").decode()  # fmt: skip
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        name, _, package = line.partition(" ")
        found.setdefault(name, []).append(package)
    return {"feed": feed.name, "found": {name: sorted(found[name]) for name in sorted(found)}}
