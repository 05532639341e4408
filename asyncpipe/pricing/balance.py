"""The account's money: the least there must be before a submit, and how much is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, runtime_checkable

import anyio

from asyncpipe._tasks import once_more, provider_code
from asyncpipe.errors import (
    BalanceExhausted,
    BalanceTooLow,
    CannotConnect,
    ProviderError,
    UsageError,
)
from asyncpipe.pricing.budget import Budget, Fit
from asyncpipe.pricing.money import MOST_USD, from_micro, to_micro, usd_text
from asyncpipe.pricing.price import Price

logger = logging.getLogger("asyncpipe.funds")

BALANCE_S = 30.0
"""Longest wait for the balance."""

ENOUGH_S = 180.0
"""How long it counts as enough once it was: others may spend the same money …"""

SHARE = 0.5
"""… or until so much of what may be spent was committed."""

ASKED_S = 5.0
"""How long a balance is not asked for again at all, while anything is in flight."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What is left at the moment of an answer, in micro-dollars, and what was committed by then.

    ``settled``: nothing was in flight, so that the answer is exact.
    """

    left: int
    committed: int
    settled: bool


class Balance:
    """Keep ``least`` USD in the account, where a provider tells its balance; None: do not ask.

    What the account has is what it had when asked, less what was committed since. A balance that
    cannot be read stops nothing: it says nothing of the money, and a submit without money is
    refused at no cost. ``tell`` hears of it once.
    """

    def __init__(
        self,
        provider: object,
        budget: Budget,
        *,
        least: Decimal | None,
        tell: Callable[[str], None] = logger.warning,
    ) -> None:
        self._provider = provider
        self._budget = budget
        self._least = least
        self._tell = tell
        self._said = False
        self._turn = anyio.Lock()
        self._asked = -ENOUGH_S
        self._told: _Told | None = None
        self._doubtful = 0  # reserved for what may never be charged
        self._due = asyncio.Event()
        self._reason: BalanceTooLow | None = None

    async def too_little(self) -> BalanceTooLow | None:
        """Why nothing is to be submitted, or None."""
        if self._least is None:
            return None
        async with self._turn:
            if self._age_s >= (ENOUGH_S if self._reason is None else ASKED_S):
                await self._ask(self._least)
            return self._reason

    async def keep(self, news: Callable[[], None]) -> None:
        """Ask again whenever it is due, for ever; ``news`` is called after each answer."""
        while True:
            await self._due.wait()
            self._due.clear()
            async with self._turn:
                if self._least is not None:
                    await self._ask(self._least)
            news()

    def fit(self, price: Price) -> Fit:
        """Whether a job of this price leaves the least there must be: now, later or never."""
        if self._least is None or self._told is None:
            return Fit.NOW
        spare, age_s = self._spare(self._least, self._told), self._age_s
        if price.to_reserve <= spare:
            spent = self._budget.committed - self._told.committed
            if age_s >= ENOUGH_S or (age_s >= ASKED_S and spent > SHARE * (spare + spent)):
                self._due.set()
            return Fit.NOW
        if self._budget.held:
            return Fit.LATER
        if self._budget.releasable:
            if age_s >= ASKED_S:
                self._due.set()
            return Fit.LATER
        if self._told.settled and self._told.committed == self._budget.committed:
            return Fit.NEVER
        self._due.set()
        return Fit.LATER

    @property
    def covers_holds(self) -> bool:
        """Whether all that was held still leaves the least there must be."""
        if self._least is None or self._told is None:
            return True
        return self._spare(self._least, self._told) >= 0

    def refusal(self, price: Price) -> BalanceTooLow:
        """Say why a job of this price is not submitted."""
        assert self._least is not None, "without it everything fits"
        assert self._told is not None, "nothing is refused that nobody knows"
        has = self._spare(self._least, self._told) + to_micro(self._least)
        return BalanceTooLow(
            f"the account has {usd_text(from_micro(has))} USD, and the next job, for "
            f"{usd_text(price.to_reserve)} USD, would leave less than min_balance "
            f"({usd_text(self._least)} USD). It was not submitted. {_REMEDY}"
        )

    @property
    def _age_s(self) -> float:
        return asyncio.get_running_loop().time() - self._asked

    def _spare(self, least: Decimal, told: _Told) -> int:
        """Micro-dollars that may still be spent."""
        spent = self._budget.committed - told.committed + self._budget.held
        return told.left - spent - to_micro(least)

    async def _ask(self, least: Decimal) -> None:
        budget, before = self._budget, self._told
        committed, open_, unanswered = budget.committed, budget.releasable, budget.unanswered
        if before is None:
            self._doubtful = budget.reserved - open_
        balance = await self._read()
        self._asked = asyncio.get_running_loop().time()
        settled = not (open_ or budget.releasable or budget.held)
        if isinstance(balance, ProviderError):
            self._reason = None
            if before is not None:  # what was told is all there is to go by
                left = before.left - (budget.committed - before.committed)
                self._told = _Told(left, budget.committed, settled)
            if not self._said:
                self._tell(f"min_balance is not checked: {balance}")
                self._said = True
            return
        left = to_micro(balance)
        if before is not None:
            owed = max(budget.reserved - self._doubtful, 0)
            reckoned = before.left - (committed - before.committed)
            # Charged when it is submitted, or later: the account may have less than it says.
            left = max(min(left - unanswered, reckoned), left - owed)
        self._told = _Told(left, min(committed, budget.committed), settled)
        self._reason = None if balance >= least else _too_low(balance, least)

    async def missing(
        self, reason: BalanceExhausted, *, jobs: int, cost: Decimal, more: bool
    ) -> BalanceExhausted:
        """The same reason, saying how much the ``jobs`` that are left cost and lack.

        ``cost`` is in USD; ``more``: there are more jobs than were priced.
        """
        balance = await self._read()
        at_least = "at least " if more else ""
        text = f"{reason}. The {jobs} jobs left cost {at_least}{usd_text(cost)} USD"
        if isinstance(balance, ProviderError):
            text += f"; how much is missing is not known: {balance}"
        elif balance < cost:
            missing = f"{at_least}{usd_text(cost - balance)} USD are missing"
            text += f", the account has {usd_text(balance)} USD: {missing}"
        else:
            text += f", the account has {usd_text(balance)} USD, which should do"
        text += ". Add money, then run again"
        return BalanceExhausted(text, status=reason.status, request_id=reason.request_id)

    async def _read(self) -> Decimal | ProviderError:
        if not isinstance(self._provider, HasBalance):
            return ProviderError("the provider does not tell its balance")
        try:
            with anyio.fail_after(BALANCE_S):
                with provider_code("a balance", logger=logger, action="balance.failed"):
                    told = await once_more(self._provider.balance)
                return _sane(told)
        except CannotConnect:
            raise
        except ProviderError as exc:
            return exc
        except TimeoutError:
            return ProviderError(f"the balance did not come within {BALANCE_S:g} s")


_REMEDY = "Add money, or lower --min-balance (min_balance in the job file), then run again"


def _too_low(balance: Decimal, least: Decimal) -> BalanceTooLow:
    return BalanceTooLow(
        f"the account has {usd_text(balance)} USD, {usd_text(least - balance)} USD less than "
        f"min_balance ({usd_text(least)} USD): nothing was submitted. {_REMEDY}"
    )


def _sane(balance: Decimal) -> Decimal | ProviderError:
    told: object = balance
    if isinstance(told, Decimal) and told.is_finite():
        return told
    return ProviderError(f"a balance of {told!r} USD is none")


def checked_least(amount: Decimal | None) -> Decimal | None:
    """Check ``min_balance``; raises UsageError."""
    exact: object = amount
    if exact is None:
        return None
    if not isinstance(exact, Decimal) or not exact.is_finite() or not 0 <= exact <= MOST_USD:
        raise UsageError(
            f"min_balance: {amount!r} must be an amount of USD as Decimal, from 0 to {MOST_USD}"
        )
    return exact


@runtime_checkable
class HasBalance(Protocol):
    """What a provider may have besides: it says how much money the account has."""

    async def balance(self) -> Decimal:
        """USD that submits can still spend; raises ProviderError when it cannot be told."""
