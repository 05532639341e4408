"""Which account a folder buys with: asked of the provider before anything is polled or bought."""

from __future__ import annotations

import logging

import anyio

from asyncpipe._tasks import Retries, provider_code, retrying
from asyncpipe.errors import KeyRefused, ProviderError, SubmitStopped, storable
from asyncpipe.ledger import Ledger, Origin, Where, check_account
from asyncpipe.pricing import Tell
from asyncpipe.providers import HasAccountId, Provider

logger = logging.getLogger("asyncpipe.engine")

LONGEST_S = 10.0
"""Longest wait for the account's id: what comes later is not checked."""

RETRIES = Retries(attempts=2, initial_s=1.0)
"""One refusal may be a slip of a gateway."""


async def ask_account(provider: Provider, tell: Tell) -> str | None:
    """The id of the account that the provider's key belongs to.

    None where it is not to be had, which ``tell`` hears of unless the provider has none at all.
    Raises CannotConnect and KeyRefused.
    """
    if not isinstance(provider, HasAccountId):
        return None
    try:
        with (
            anyio.fail_after(LONGEST_S),
            provider_code("account_id", logger=logger, action="account.failed"),
        ):
            told: object = await retrying(
                provider.account_id, RETRIES, on=ProviderError, again=_may_pass
            )
        if isinstance(told, str) and told and storable(told) == told:
            return told
        why = f"{told!r:.100} is no id"
    except SubmitStopped:  # nor will anything else be answered
        raise
    except ProviderError as exc:
        why = str(exc)
    except TimeoutError:
        why = f"no answer within {LONGEST_S:g} s"
    tell(f"whether the key is one of the account that this folder belongs to is not checked: {why}")
    return None


async def settle_account(
    ledger: Ledger, origin: Origin, account: str | None, where: Where, *, accept: bool
) -> None:
    """Note whose a folder is; raises UsageError for another account than before, unless ``accept``.

    None is an account that is not known: nothing is refused.
    """
    if account is not None:
        theirs = await ledger.note_account(account, accept=accept)
        check_account(theirs, account, origin, where)


def _may_pass(error: ProviderError) -> bool:
    if isinstance(error, KeyRefused):
        return True  # that is certain of this moment; a gateway's slip may last for one
    return error.status is None or error.status >= 500 or error.status in (403, 408, 429)
