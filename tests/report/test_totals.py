"""Totals: in what words the causes of a delay are counted."""

from __future__ import annotations

from collections import Counter

import pytest

from asyncpipe.report.totals import Totals, cause_of, delays_of


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("https://h/a.png answers 500", "media host answers 500"),
        (
            "http://127.0.0.1:9/杯.png is cut off: the end of a png is missing",
            "what the media host sends is cut off: the end of a png is missing",
        ),
        (
            "https://h/a is a page of text, not media: b'busy'",
            "what the media host sends is a page of text, not media: b'busy'",
        ),
    ],
)
def test_a_delay_says_whose_fault_it_is(error: str, said: str) -> None:
    """The host's, or that of what it sends; the many URLs count as one."""
    totals = Totals()
    totals.delays[cause_of(error)] += 3
    assert delays_of(totals) == Counter({said: 3})
