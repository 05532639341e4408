"""The account's money: the least there must be before a submit, and how much is missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol, runtime_checkable

import anyio

from asyncpipe.errors import BalanceExhausted, BalanceTooLow, ProviderError, UsageError
from asyncpipe.pricing.money import MOST_USD, usd_text

logger = logging.getLogger("asyncpipe.funds")

BALANCE_S = 30.0
"""Longest wait for the balance."""

ENOUGH_S = 600.0
"""How long it counts as enough once it was."""

ASKED_S = 5.0
"""How long a balance that was too low is not asked for again."""


class Balance:
    """Ask for the balance where a provider tells it; ``least`` in USD, None: do not ask first.

    A balance that cannot be read stops nothing: it says nothing of the money, and a submit
    without money is refused at no cost. ``tell`` hears of it once.
    """

    def __init__(
        self,
        provider: object,
        *,
        least: Decimal | None,
        tell: Callable[[str], None] = logger.warning,
    ) -> None:
        self._provider = provider
        self._least = least
        self._tell = tell
        self._told = False
        self._turn = anyio.Lock()
        self._asked = -ENOUGH_S
        self._reason: BalanceTooLow | None = None

    async def too_little(self) -> BalanceTooLow | None:
        """Why nothing is to be submitted, or None."""
        if self._least is None:
            return None
        async with self._turn:
            clock = asyncio.get_running_loop().time
            if clock() - self._asked < (ENOUGH_S if self._reason is None else ASKED_S):
                return self._reason
            self._reason = await self._compare(self._least)
            self._asked = clock()
            return self._reason

    async def _compare(self, least: Decimal) -> BalanceTooLow | None:
        balance = await self._read()
        if isinstance(balance, ProviderError):
            if not self._told:
                self._tell(f"min_balance is not checked: {balance}")
                self._told = True
            return None
        if balance >= least:
            return None
        return BalanceTooLow(
            f"the account has {usd_text(balance)} USD, {usd_text(least - balance)} USD less than "
            f"min_balance ({usd_text(least)} USD): nothing was submitted. Add money, or lower "
            "--min-balance "
            "(min_balance in the job file), then run again"
        )

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
                return _sane(await self._provider.balance())
        except ProviderError as exc:
            return exc
        except TimeoutError:
            return ProviderError(f"the balance did not come within {BALANCE_S:g} s")
        except Exception as exc:
            # A bug in a provider costs a warning, not the run.
            logger.exception("balance failed", extra={"action": "balance.failed"})
            return ProviderError(f"the provider's code failed at the balance: {exc!r}"[:300])


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
