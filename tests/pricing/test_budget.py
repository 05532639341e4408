"""Caps that are none."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import Pipeline
from asyncpipe.errors import UsageError
from asyncpipe.pricing.spending import SpendingLimits
from asyncpipe.testing import FakeProvider


@pytest.mark.parametrize("amount", [Decimal("-1"), Decimal("nan"), 1.5, "2"])
def test_an_impossible_cap_is_refused(tmp_path: Path, amount: Any) -> None:
    """A float is not money."""
    with pytest.raises(UsageError, match="max_cost"):
        Pipeline(FakeProvider(), tmp_path, spending=SpendingLimits(max_cost=amount))
