"""Identifiers."""

from __future__ import annotations

import pytest

from netpolicy.nftables.names import PairNames
from netpolicy.nftables.text import quoted, remark


def test_different_interfaces_never_share_a_name() -> None:
    """Names that become equal once nft's alphabet is applied are told apart, and stay the same when asked again."""
    names = PairNames()
    given = [("a-b", "c"), ("a", "b-c"), ("a_b", "c"), ("a.b", "c")]
    first = [names.get("cross", *pair) for pair in given]
    assert len(set(first)) == len(given)
    assert [names.get("cross", *pair) for pair in given] == first


def test_a_title_of_several_lines_stays_a_comment() -> None:
    """White space of any kind in a title cannot end the comment that it stands in."""
    assert remark("one\n\tcounter accept\r\u2028two") == "# one counter accept two"


@pytest.mark.parametrize("text", ['a"b', "a\nb", "a\\b"])
def test_what_nft_cannot_quote_is_refused(text: str) -> None:
    """A string that would need an escape raises instead of changing the ruleset."""
    with pytest.raises(ValueError, match="not representable"):
        quoted(text)
