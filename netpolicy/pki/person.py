"""When two texts name one person; of the standard library only, for appliances as well."""

from __future__ import annotations

import re
import unicodedata

_NUMBER = re.compile(r"[a-z0-9 '()+,./:=?-]{1,64}")
"""A PrintableString (RFC 5280, appendix A.1, X520SerialNumber), folded: no letter in it looks like another one."""


def folded(text: str) -> str:
    """Return what two texts have in common that X.520's caseIgnoreMatch takes for one (RFC 5280, 7.1; RFC 4518).

    Letters of either case, of any width, and any number of spaces between words are alike.
    """
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


def person_of(text: str) -> str | None:
    """Return the person that a serial number in a subject names (X.520, 6.2.9), folded; None if it names nobody."""
    found = folded(text)
    return found if _NUMBER.fullmatch(found) else None
