"""The language reference (``docs/language.md``), from the same models that check topologies."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, WithJsonSchema
from pydantic.fields import FieldInfo

from netpolicy.topology import schema
from netpolicy.topology.fields import LISTED

_ORDER: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", schema.TopologySpec),
    ("network", schema.NetworkSpec),
    ("title", schema.TitleSpec),
    ("tiers", schema.TierSpec),
    ("sites", schema.SiteSpec),
    ("segments", schema.SegmentSpec),
    ("roles", schema.RoleSpec),
    ("nodes", schema.NodeSpec),
    ("managers", schema.ManagerSpec),
    ("firewalls", schema.FirewallSpec),
    ("interfaces", schema.InterfaceSpec),
    ("services", schema.ServiceSpec),
    ("forbidden", schema.ForbiddenSpec),
    ("flows", schema.FlowSpec),
    ("from", schema.FromSpec),
    ("to", schema.ToSpec),
    ("basis", schema.BasisSpec),
    ("limits", schema.LimitsSpec),
    ("invariants", schema.InvariantSpec),
    ("templates", schema.TemplateSpec),
)
_HEADINGS = {model: heading for heading, model in _ORDER}

_INTRODUCTION = """\
# The language

This page is generated from the models that check topologies (`netpolicy/topology/schema.py`, by `make docs`). The
same models give the JSON Schema that `netpolicy schema` prints; an editor with a YAML language server completes and
checks topologies that begin with

```yaml
# yaml-language-server: $schema=docs/topology.schema.json
```

A topology is one YAML file, and the tables (CSV) that its templates name. Of YAML it uses mappings, lists and scalars
only: no anchors, aliases, merge keys or tags. `true` and `false` are truth values, `2026-11-01` is a date, `17000` is
a number; all else is text, `yes` and `074829` too. Unknown keys, duplicate keys and keys without a value are errors.
A file has at most 1 MiB, a table 16 MiB.

Names are lower-case letters, digits and single hyphens, a letter first, at most 48 long. Each is a name of its own
section; only nodes and firewalls share one.

`netpolicy check` reports everything that is wrong at once, as `file:line:column: error: what is wrong; expected what;
did you mean what?`, and exits with 2. What can be wrong is shown case by case in
[`tests/cases/check`](../tests/cases/check).
"""

_CONCLUSION = """\
## What else must hold

Beside the form of each entry, a topology must make sense as a whole:

- prefixes of segments do not overlap; addresses lie inside their segment's prefixes, are unique there, and are
  neither the network's, nor broadcast, nor subnet-router anycast;
- a firewall has an address of each family of each of its segments, which are different ones; there are at least two;
- only firewalls stand on dedicated lines; a node stands on a segment of its role's tier: anything else is a tier
  boundary without a firewall;
- codes of local governments have the right check digit, and belong to one site each; no site is above itself;
- a service has no port, no name (ALPN) and no first bytes (`prologue`) that a forbidden protocol is known by; two
  forbidden protocols share no port. A service may have port 443, where any protocol over TLS may stand: what is
  spoken there is told by its name and its first bytes. Those of HTTP are refused, inside mutual TLS too;
- a flow has ends, and a path joins them in each family that both speak; the cheapest path between two segments is the
  only one of its cost;
- no packet is permitted by two flows: it would have two legal bases;
- management flows (`managed_by`) come from their manager's segment;
- service hours need a time zone without daylight saving time: the kernel compares in UTC;
- no flow permits what an invariant says must never be.

Warnings do not keep a topology from compiling: a review that is due, a flow that has ended, a disconnection whose day
is past, an entry that nothing uses, a flow that permits nothing because its sites are not connected.
"""


def language_reference() -> str:
    """Return the page, in Markdown."""
    parts = [_INTRODUCTION]
    for heading, model in _ORDER:
        parts.append("\n".join([f"## {heading}", "", _prose(model), "", *_table(model)]) + "\n")
    return "\n".join([*parts, _CONCLUSION])


def _prose(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[BaseModel]) -> Iterator[str]:
    yield "| key | value | |"
    yield "|---|---|---|"
    for name, info in model.model_fields.items():
        need = "" if info.is_required() else "optional"
        default = _default(info)
        if default:
            need = f"default {default}"
        key = f"**`{info.alias or name}`**" if info.is_required() else f"`{info.alias or name}`"
        yield f"| {key} | {_value(info)} | {'; '.join(filter(None, (info.description, need)))} |"


def _default(info: FieldInfo) -> str:
    value = info.default
    if info.is_required() or info.default_factory is not None or value is None or value in ((), {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, enum.Enum) else value}`"


def _value(info: FieldInfo) -> str:
    listed = LISTED in info.metadata
    section = schema.references(info)
    if section is not None:
        kind = f"a name of [{section}](#{section})"
    elif (inner := _model(info.annotation)) is not None:
        heading = _HEADINGS[inner]
        anchor = f"[{heading}](#{heading})"
        kind = f"names, each with {anchor}" if _is_mapping(info.annotation) else anchor
    else:
        kind = _described(info) or " or ".join(f"`{each}`" for each in _choices(info.annotation))
    return f"{kind}, or a list" if listed else kind


def _model(annotation: Any) -> type[BaseModel] | None:
    candidates = (annotation, *get_args(annotation))
    return next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)


def _is_mapping(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is dict


def _choices(annotation: Any) -> list[str]:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [str(member.value) for member in annotation]
    return []


def _described(field: Any) -> str | None:
    """Return what a value is, in words, from the type that checks it."""
    for found in (*getattr(field, "metadata", ()), *getattr(field, "__metadata__", ())):
        if isinstance(found, WithJsonSchema) and found.json_schema is not None:
            return str(found.json_schema["description"])
    for argument in get_args(getattr(field, "annotation", field)):
        described = _described(argument)
        if described is not None:
            return described
    return None
