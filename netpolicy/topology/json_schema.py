"""The language as a JSON Schema (2020-12), for editors."""

from __future__ import annotations

import json
from typing import Any

from netpolicy.topology import schema
from netpolicy.topology.fields import IDENTIFIER, IDENTIFIER_LENGTH

_NAMES = {"pattern": f"^{IDENTIFIER.pattern[:-2]}$", "maxLength": IDENTIFIER_LENGTH}


def schema_text() -> str:
    """Return the schema, indented, with a final line feed."""
    return json.dumps(json_schema(), ensure_ascii=False, indent=2) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the schema of a topology file.

    What a schema cannot say, such as that a name must exist or that prefixes must not overlap, only ``check`` tells.
    """
    found = schema.TopologySpec.model_json_schema(by_alias=True)
    definitions: dict[str, Any] = found.pop("$defs")
    for name, definition in definitions.items():
        _simplify(definition)
        if name == "TemplateSpec":
            _open(definition)
    _simplify(found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netpolicy topology",
        **found,
        "$defs": definitions | _filled(definitions),
    }


def _simplify(definition: dict[str, Any]) -> None:
    """Write a model's properties as people write them: a title may be a text, a list of one may be the one."""
    definition.pop("title", None)
    definition["description"] = " ".join(definition.get("description", "").split())
    for name, each in definition.get("properties", {}).items():
        definition["properties"][name] = _property(each)


def _property(each: dict[str, Any]) -> dict[str, Any]:
    description = each.get("description", "")
    choices = [inner for inner in each.get("anyOf", ()) if inner.get("type") != "null"]
    if len(choices) == 1 and "anyOf" in each:
        each = choices[0]
    kept = {name: value for name, value in each.items() if name not in {"title", "default", "description"}}
    if kept.get("type") == "array":
        item = kept["items"]
        kept = {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}
    elif kept.get("$ref", "").endswith("/TitleSpec"):
        kept = {"anyOf": [{"type": "string"}, kept]}
    elif kept.get("type") == "object" and "additionalProperties" in kept:
        kept["propertyNames"] = _NAMES
    return {"description": description, **kept}


_MADE = "Filled"


def _open(template: dict[str, Any]) -> None:
    """Point a template's sections at entries in which any value may be a placeholder."""
    for each in template["properties"].values():
        entry = each.get("additionalProperties", {}).get("$ref")
        if entry is not None:
            each["additionalProperties"] = {"$ref": entry + _MADE}
            del each["propertyNames"]


def _filled(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions that templates use: as the others, but with text wherever a value stands."""
    wanted = [name for name in definitions if name != "TemplateSpec"]

    def relaxed(value: Any) -> Any:
        if isinstance(value, list):
            return [relaxed(each) for each in value]
        if not isinstance(value, dict):
            return value
        reference = value.get("$ref")
        if reference is not None and reference.removeprefix("#/$defs/") in wanted:
            return {**value, "$ref": reference + _MADE}
        inner = {name: relaxed(each) for name, each in value.items()}
        if value.get("type") in {"string", "integer", "boolean"} or "enum" in value:
            loose = {"type": "string", "pattern": "\\{[a-z][a-z0-9_]*\\}"}
            described = {"description": inner.pop("description")} if "description" in inner else {}
            return {**described, "anyOf": [loose, inner]}
        return inner

    found = {}
    for name in wanted:
        definition = relaxed({key: each for key, each in definitions[name].items() if key != "required"})
        if "required" in definitions[name]:
            definition["required"] = definitions[name]["required"]
        found[name + _MADE] = definition
    used = json.dumps(found) + json.dumps(definitions)
    return {name: each for name, each in found.items() if f'"#/$defs/{name}"' in used}
