"""Names that mean nothing, and entries that nothing names."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from netpolicy.topology import schema
from netpolicy.topology.draft import SINGULAR, Draft, Entry
from netpolicy.topology.fields import nearest_name
from netpolicy.topology.findings import Findings
from netpolicy.topology.validate import Location

_EXPECTED_USE = {
    "tiers": "a site, segment or role of that tier",
    "sites": "a segment, firewall, flow or site that names it",
    "segments": "a firewall that stands on it",
    "roles": "a node of that role",
    "managers": "a firewall that is managed by it",
    "services": "a flow that uses it",
}


def named(spec: BaseModel, location: Location = ()) -> Iterator[tuple[Location, str, str]]:
    """Yield every reference in a spec: where it stands, the section it means, and the name."""
    for name, info in type(spec).model_fields.items():
        value = getattr(spec, name)
        here = (*location, info.alias or name)
        section = schema.references(info)
        if isinstance(value, BaseModel):
            yield from named(value, here)
        elif isinstance(value, dict):
            for key, inner in value.items():
                yield from named(inner, (*here, key))
        elif section is None or value is None:
            continue
        elif isinstance(value, str):
            yield here, section, value
        else:
            yield from (((*here, number), section, each) for number, each in enumerate(value))


def check_names(draft: Draft, section: str, entry: Entry[schema.Spec], findings: Findings) -> None:
    """Report each name in an entry that means nothing."""
    for location, target, name in _meant(entry.spec):
        if draft.dangling(target, name):
            valid = draft.names(target)
            expected = f"one of {', '.join(valid)}" if 0 < len(valid) <= 8 else f"a name of section '{target}'"
            message = f"{SINGULAR[section]} '{entry.id}' names {SINGULAR[target]} '{name}', which does not exist"
            findings.error(entry.at(*location), message, expected, nearest_name(name, valid))


def check_use(draft: Draft, findings: Findings) -> None:
    """Warn of entries that nothing names."""
    used: dict[str, set[str]] = {section: set() for section in _EXPECTED_USE}
    for section, entry in draft.entries():
        for _, target, name in _meant(entry.spec):
            # A segment that only nodes stand on joins nothing; neither does one that is only named by a flow.
            if target in used and not (target == "segments" and section != "firewalls"):
                used[target].add(name)
    for section, expected in _EXPECTED_USE.items():
        for entry in draft.sections[section].values():
            if entry.id not in used[section]:
                findings.warning(entry.at(), f"{SINGULAR[section]} '{entry.id}' is not used", expected)


def _meant(spec: schema.Spec) -> Iterator[tuple[Location, str, str]]:
    """Yield the references of an entry; relations of sites are none, and managed ends are firewalls."""
    managed = isinstance(spec, schema.FlowSpec) and spec.to.managed_by is not None
    for location, section, name in named(spec):
        if location[:2] == ("to", "site") and name in schema.SITE_RELATIONS:
            continue
        if managed and location[:2] == ("to", "node"):
            yield location, "firewalls", name
        else:
            yield location, section, name
