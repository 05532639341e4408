"""The suite that other people's stores are tried with, tried itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncpipe.ledger import Ledger, open_ledger, reading
from asyncpipe.ledger.folder import STATE_FOLDER
from asyncpipe.testing.ledgers import LedgerContract, LedgerStore, check_ledger
from tests.support.tables import ORIGIN


@asynccontextmanager
async def forgetful(folder: Path) -> AsyncIterator[Ledger]:
    """A store that says durable before it is."""
    (folder / STATE_FOLDER).mkdir(exist_ok=True)
    async with open_ledger(folder, ORIGIN) as ledger:
        broken: Any = ledger

        def forget(*_: object, **__: object) -> None: ...

        broken.append = forget
        yield ledger


def test_a_rule_that_a_store_breaks_is_named() -> None:
    with pytest.raises(AssertionError, match="broken: "):
        check_ledger(LedgerStore(open=forgetful, read=reading))


def test_every_rule_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a store and a folder, and nothing else."""
    rules = [name for name in vars(LedgerContract) if name.startswith("test_")]
    tried: list[str] = []
    for name in rules:
        monkeypatch.setattr(
            LedgerContract, name, lambda _, store, folder, name=name: tried.append(name)
        )
    check_ledger(LedgerStore(open=forgetful, read=reading))
    assert sorted(tried) == sorted(rules)
    assert len(rules) > 10
