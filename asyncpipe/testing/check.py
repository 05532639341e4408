"""Whether a provider does what the engine relies on: tried, with the rule that is broken named."""

from __future__ import annotations

import asyncio
import tempfile
from base64 import b64decode
from collections.abc import (
    Awaitable,
)
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from asyncpipe.errors import (
    PollFailed,
    PredictionGone,
    ProviderError,
)
from asyncpipe.jobs import Job, now
from asyncpipe.pricing import HasBalance, HasBill, HasQuotes
from asyncpipe.providers import (
    HasAccountId,
    HasHistory,
    Listed,
    Prediction,
    PredictionStatus,
    Provider,
    Uploader,
    account_of,
)
from asyncpipe.providers.catalog import CatalogModel, HasCatalogue
from asyncpipe.testing.provider import PIXEL

T = TypeVar("T")

NOBODYS = "no-prediction-of-anybody"
"""An id that ``check_provider`` asks for in vain."""


async def check_provider(
    provider: Provider, job: Job, *, poll_s: float = 1.0, within_s: float = 600.0
) -> Prediction:
    """Try whether a provider does what the engine relies on; buys one prediction of ``job``.

    ``provider`` is entered here, twice. Returns how the prediction ended, which it must within
    ``within_s`` seconds, polled every ``poll_s``. Raises AssertionError with the rule that is
    broken, and the provider's own error where it refuses the job.
    """
    _rule(isinstance(provider, Provider), "it has everything that a Provider has")
    _rule(provider.name.isidentifier(), "its name is one word, since it is part of every job's key")
    _rule(bool(provider.origin), "it says where it is")
    _rule(isinstance(provider.simulated, bool), "it says whether its money is real")
    _rule(isinstance(account_of(provider), str), "its account is a word")
    async with provider:
        async with provider:
            pass
        # Still open: of two that entered it one has left.
        bought = await provider.submit(job)
        _check_prediction(bought)
        running = bought.status is PredictionStatus.RUNNING
        _rule(bool(bought.id) or not running, "a prediction that runs has an id")
        end = await _end_of(provider, bought, poll_s, within_s) if running else bought
        await _check_nobodys(provider)
        await _check_capabilities(provider, job)
    return end


def _rule(kept: bool, rule: str) -> None:
    if not kept:
        raise AssertionError(f"broken: {rule}")


def _check_prediction(one: Prediction) -> None:
    _rule(isinstance(one, Prediction), "submit and poll return a Prediction")
    _rule(isinstance(one.status, PredictionStatus), "its status is one of three")
    schemes = ("http://", "https://", "data:")
    outputs: tuple[object, ...] = one.outputs
    _rule(
        all(isinstance(url, str) and url.startswith(schemes) for url in outputs),
        "outputs are http, https or data URLs",
    )
    _rule(one.released in (True, False, None), "released is True, False or None")
    _rule(one.charged is None or _is_amount(one.charged), "charged is an amount as Decimal")


def _is_amount(amount: object) -> bool:
    return isinstance(amount, Decimal) and amount.is_finite()


async def _end_of(
    provider: Provider, bought: Prediction, poll_s: float, within_s: float
) -> Prediction:
    """Poll to the end; a poll may fail, and may not yet know the prediction."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                said = await provider.poll(bought.id, route=bought.route)
            except (PollFailed, PredictionGone):
                await asyncio.sleep(poll_s)
                continue
            _check_prediction(said)
            _rule(said.id == bought.id, "a poll keeps the id it was asked for")
            if said.status is PredictionStatus.FAILED or said.outputs:
                break
            await asyncio.sleep(poll_s)
    again = await provider.poll(bought.id, route=bought.route)
    _rule(again.status is said.status, "an end stays the end, however often it is asked for")
    return said


async def _check_nobodys(provider: Provider) -> None:
    try:
        said: object = await provider.poll(NOBODYS)
    except (PredictionGone, PollFailed):
        return
    _rule(False, f"an id that is nobody's is no prediction, and not {said!r}")


async def _check_capabilities(provider: object, job: Job) -> None:
    """Ask for what it can do besides: an answer of the right kind, or a ProviderError."""
    if isinstance(provider, HasQuotes):
        quote = await _or_none(provider.quote(job))
        _rule(quote is None or _is_amount(quote.amount), "a quote is an amount as Decimal")
    if isinstance(provider, HasBalance):
        balance = await _or_none(provider.balance())
        _rule(balance is None or _is_amount(balance), "a balance is an amount as Decimal")
    if isinstance(provider, HasAccountId):
        account: object = await _or_none(provider.account_id())
        named = account is None or (isinstance(account, str) and account != "")
        _rule(named, "an account's id is a word")
    if isinstance(provider, HasBill):
        days = [now().date() - timedelta(days=n) for n in range(2)]
        bill = await _or_none(provider.bill(days))
        _rule(bill is None or set(bill.days) <= {*days}, "a bill is of the days it is asked for")
    if isinstance(provider, HasCatalogue):
        models = await _or_none(provider.catalog()) or ()
        _rule(all(isinstance(m, CatalogModel) for m in models), "a catalogue lists models")
    if isinstance(provider, HasHistory):
        _rule(provider.body_of(job).get("model") == job.model, "a request's body names its model")
        pages = await _or_none(_pages(provider)) or ()
        _rule(all(each.created.tzinfo for each in pages), "listed predictions have a time in UTC")
    if isinstance(provider, Uploader):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pixel.png")
            path.write_bytes(b64decode(PIXEL.partition(",")[2]))
            url = await _or_none(provider.upload(path))
        _rule(url is None or url.startswith(("http://", "https://")), "an upload answers a URL")


async def _pages(provider: HasHistory) -> list[Listed]:
    until = now()
    since = until - timedelta(hours=1)
    return [each async for page in provider.history(since, until) for each in page]


async def _or_none(asking: Awaitable[T]) -> T | None:
    try:
        return await asking
    except ProviderError:
        return None
