"""Write the documents that are generated, and fail if one of them was not up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from netpolicy.topology.json_schema import schema_text
from netpolicy.topology.language import language_reference

ROOT = Path(__file__).parents[1]
GENERATED = {"docs/language.md": language_reference, "docs/topology.schema.json": schema_text}


def main() -> int:
    """Return 1 if anything changed."""
    stale = []
    for name, generate in GENERATED.items():
        path, text = ROOT / name, generate()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            stale.append(name)
    if stale:
        print(f"written anew: {', '.join(stale)}; commit them", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
