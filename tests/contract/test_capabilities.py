"""What a provider may be besides, over every world that has one who is."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

import pytest

from asyncpipe.errors import PollFailed, PredictionGone, ProviderError, SubmitUnknown
from asyncpipe.providers import (
    Cancelled,
    HasBills,
    HasCancel,
    HasKeys,
    Provider,
    lists_ended_only,
    media_s_of,
    retention_of,
)
from asyncpipe.testing import NOBODYS
from tests.contract.provider import WORLDS, Place, Trouble, World, job, keyed
from tests.contract.toy import Toy
from tests.support.keyed_api import KeyedApi


@pytest.fixture(params=WORLDS, ids=lambda world: world.__name__)
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.param
    return found


def within(
    world: World, folder: Path, act: Callable[[Place], Awaitable[Any]], trouble: Any = Trouble.NONE
) -> Any:
    async def main() -> Any:
        async with world(trouble, folder) as place, place.provider:
            return await act(place)

    return asyncio.run(main())


def lacks(provider: Provider, capability: str) -> NoReturn:
    pytest.skip(f"{provider.name} has no {capability}")


def test_a_key_buys_once(world: World, tmp_path: Path) -> None:
    """The same one is answered with the same prediction, another one with another."""

    async def act(place: Place) -> tuple[list[str], int]:
        provider = place.provider
        if not isinstance(provider, HasKeys):
            lacks(provider, "keys")
        one, other = uuid.uuid4().hex, uuid.uuid4().hex
        ids = [(await provider.submit(job(), key=key)).id for key in (one, one, other, one)]
        return ids, place.submits()

    (a, b, c, d), submits = within(world, tmp_path, act)
    assert a == b == d != c
    assert submits == 2


def test_a_lost_answer_is_had_again_by_its_key(tmp_path: Path) -> None:
    async def act(place: Place) -> tuple[str, int]:
        provider, key = place.provider, uuid.uuid4().hex
        assert isinstance(provider, HasKeys)
        with pytest.raises(SubmitUnknown):
            await provider.submit(job(), key=key)
        return (await provider.submit(job(), key=key)).id, place.submits()

    name, submits = within(keyed, tmp_path, act, Trouble.LOST)
    assert name
    assert submits == 1


def test_what_is_cancelled_is_told_in_our_words(world: World, tmp_path: Path) -> None:
    """Twice much the same; of nobody's prediction an error."""

    async def act(place: Place) -> list[object]:
        provider = place.provider
        if not isinstance(provider, HasCancel):
            lacks(provider, "cancel")
        bought = await provider.submit(job())
        with pytest.raises((PredictionGone, PollFailed)):
            await provider.cancel(NOBODYS)
        return [await provider.cancel(bought.id, route=bought.route) for _ in range(2)]

    assert all(isinstance(each, Cancelled) for each in within(world, tmp_path, act))


def test_bills_are_amounts_by_prediction(world: World, tmp_path: Path) -> None:
    async def act(place: Place) -> dict[str, Decimal]:
        provider = place.provider
        if not isinstance(provider, HasBills):
            lacks(provider, "bills")
        bought = await provider.submit(job())
        try:
            return {**await provider.bills([bought.id, NOBODYS])}
        except ProviderError:
            return {}

    for amount in within(world, tmp_path, act).values():
        assert isinstance(amount, Decimal)
        assert amount.is_finite()


def test_how_long_things_are_kept_is_told_in_seconds(world: World, tmp_path: Path) -> None:
    """Media no longer than what is known of them."""

    async def act(place: Place) -> tuple[float, float, bool]:
        provider = place.provider
        return media_s_of(provider), retention_of(provider), lists_ended_only(provider)

    media_s, retention_s, ended_only = within(world, tmp_path, act)
    assert media_s > 0
    assert retention_s > 0
    assert isinstance(ended_only, bool)


def test_the_docs_example_stays_short() -> None:
    """Under 100 lines, and it is the toy that the whole suite is run over."""
    path = Path(__file__).parent / "toy" / "__init__.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) < 100
    assert Toy.__module__ == "tests.contract.toy"


def test_what_is_not_there_is_not_assumed() -> None:
    """The toy can submit and poll, and that is all."""
    toy, whole = Toy("t"), KeyedApi("k", "http://127.0.0.1:1")
    for capability in (HasKeys, HasCancel, HasBills):
        assert not isinstance(toy, capability)
        assert isinstance(whole, capability)
