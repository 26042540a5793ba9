"""How words are written in HAProxy's configuration (Configuration Manual, 2.2: Quoting and escaping)."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9./_:-]+\Z")
_MEANT = re.compile(r'[\\"$]')


def quoted(text: str) -> str:
    """Return `text` as one word: as it is if nothing in it means anything, else in weak quotes.

    Raises:
        ValueError: There is no way to write it: it ends a line, or is nothing.

    """
    if _PLAIN.match(text):
        return text
    if not text or not text.isprintable():
        raise ValueError(f"not representable in HAProxy's configuration: {text!r}")
    return f'"{_MEANT.sub(lambda found: chr(92) + found[0], text)}"'
