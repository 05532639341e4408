"""What a program does with an output folder besides running jobs into it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

from asyncpipe.engine import Decision, Pipeline, Pruned, Resolved, Verified, ask_account
from asyncpipe.engine import find_lost as find_in
from asyncpipe.engine import prune as prune_in
from asyncpipe.engine import resolve as resolve_in
from asyncpipe.engine import take_prediction as take_in
from asyncpipe.engine import verify as verify_in
from asyncpipe.errors import FolderInUse, ProviderError, UsageError
from asyncpipe.jobs import Hook, LedgerAt, Links, OutputPlace, Recovery, Storage, place_of
from asyncpipe.ledger import Origin, SharedPlace, Where, check_account, origin_of, where_of
from asyncpipe.pricing import Bill, HasBill
from asyncpipe.providers import HasBills, Provider, connect
from asyncpipe.report import (
    Ledgered,
    Manifest,
    Reconciled,
    Status,
    bill_of,
    compare,
    export_file,
    export_rows,
    read_entries,
    read_predictions,
    read_status,
)

logger = logging.getLogger("asyncpipe.commands")

Folder: TypeAlias = str | OutputPlace
"""An output folder, or a bucket."""

Rows: TypeAlias = Literal["jobs", "attempts"]

FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""The format of an export by the ending of its file."""


def _at(folder: Folder, ledger: str | None, place: str | None) -> Path | SharedPlace:
    return where_of(place_of(folder), ledger, place)


def provider_of(where: Where) -> Provider:
    """The provider that a folder was bought with, its key from the environment.

    Raises UsageError for a simulated one, whose simulator only its user knows.
    """
    origin = origin_of(where)
    if origin.simulated:
        raise UsageError(
            f"{where} holds simulated predictions: give the provider of the simulator, "
            "connected to it"
        )
    return connect(origin.provider)


async def _given(provider: Provider | None, where: Where) -> Provider:
    """The provider that was given, or the folder's own."""
    return await asyncio.to_thread(provider_of, where) if provider is None else provider


async def status(folder: Folder, *, ledger: str | None = None, place: str | None = None) -> Status:
    """Say where an output folder stands, also beside a run; ``to_dict()`` of it is for JSON.

    ``ledger`` and ``place`` say where the record is, as for ``Pipeline``. Raises LedgerError where
    there is none.
    """
    return await asyncio.to_thread(read_status, _at(folder, ledger, place))


async def verify(
    folder: Folder, *, ledger: str | None = None, place: str | None = None
) -> Verified:
    """Compare every asset with what was bought, by size and sha256; asks no provider.

    What is missing or changed is fetched again, unpaid, by ``collect`` or the next run. Raises
    FolderInUse, LedgerError, DiskError.
    """
    return await verify_in(_at(folder, ledger, place))


async def collect(
    folder: Folder,
    provider: Provider | None = None,
    *,
    lost: bool = False,
    search_s: float = 120.0,
    same_account: bool = False,
    ledger: str | None = None,
    place: str | None = None,
    on_event: Hook | Iterable[Hook] | None = None,
) -> Manifest:
    """Poll and download what was submitted; buy nothing; return the manifest.

    The ``provider`` is by default the folder's, its key from the environment. The other arguments
    are those of ``Pipeline`` and of ``Pipeline.collect``, and so are the errors.
    """
    async with Pipeline(
        await _given(provider, _at(folder, ledger, place)),
        folder,
        ledger=LedgerAt(url=ledger, place=place),
        on_event=on_event,
        recovery=Recovery(search_s=search_s, take_up=False),
        storage=Storage(same_account=same_account),
    ) as pipeline:
        return await pipeline.collect(lost=lost)


async def resolve(
    folder: Folder,
    names: Sequence[str] = (),
    *,
    resubmit: bool | None = None,
    lost_charged: bool | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> list[Resolved]:
    """Decide about jobs whose submit lost its answer, those called ``names`` or all.

    ``lost_charged`` is what the bill says: they are charged, or released; ``resubmit`` what is to
    become of unknown ones: submitted anew by the next run (may pay twice), or given up; at least
    one must be said. Raises UsageError for a name that no such job has, FolderInUse, LedgerError.
    """
    if resubmit is None and lost_charged is None:
        raise UsageError("resolve: say lost_charged=, or resubmit=, or both")
    if isinstance(names, str):
        names = [names]
    decision = Decision(resubmit=resubmit, lost_charged=lost_charged)
    return await resolve_in(_at(folder, ledger, place), names, decision)


async def take_prediction(
    folder: Folder,
    name: str,
    prediction_id: str,
    *,
    ledger: str | None = None,
    place: str | None = None,
) -> Resolved:
    """Note which prediction an unknown job has; the next run, or ``collect``, brings it home.

    Raises UsageError where there is no such job, or the prediction is another job's; FolderInUse
    and LedgerError.
    """
    return await take_in(_at(folder, ledger, place), name, prediction_id)


async def find_lost(
    folder: Folder,
    provider: Provider | None = None,
    *,
    same_account: bool = False,
    ledger: str | None = None,
    place: str | None = None,
    on_remark: Callable[[str], None] = logger.warning,
) -> list[Resolved]:
    """Look for lost submits in the provider's list; return the jobs that were found.

    Raises HistoryUnavailable where there is no list, UsageError for another provider or account
    than the folder's, FolderInUse, LedgerError.
    """
    where = _at(folder, ledger, place)
    async with await _given(provider, where) as opened:
        account = await ask_account(opened, on_remark)
        return await find_in(where, opened, account, same_account=same_account)


async def reconcile(
    folder: Folder,
    provider: Provider | None = None,
    *,
    same_account: bool = False,
    ledger: str | None = None,
    place: str | None = None,
) -> Reconciled:
    """Compare the ledger with the provider's bill; ``agrees`` says how it ends.

    Lost submits are looked for first. Raises LedgerError without a ledger, UsageError for another
    provider or account than the folder's, ProviderError when the bill cannot be had.
    """
    where = _at(folder, ledger, place)

    @asynccontextmanager
    async def connected() -> AsyncIterator[Provider]:
        async with await _given(provider, where) as opened:
            yield opened

    return await reconcile_with(where, connected, same_account=same_account)


async def reconcile_with(
    where: Where,
    connected: Callable[[], AbstractAsyncContextManager[Provider]],
    *,
    same_account: bool,
    tell: Callable[[str], None] = logger.warning,
) -> Reconciled:
    """Like ``reconcile``; asks nobody where nothing was submitted."""
    origin = await asyncio.to_thread(origin_of, where)
    ledgered = await asyncio.to_thread(read_entries, where)
    if not ledgered.days:
        return compare(ledgered, Bill())
    async with connected() as provider:
        _check_origin(where, origin, provider)
        if not isinstance(provider, HasBill | HasBills):
            raise ProviderError(f"{provider.name} tells no bill: there is nothing to compare with")
        account = await ask_account(provider, tell)
        if not same_account:
            check_account(origin.account, account, origin, where)
        ledgered = await _after_search(where, provider, account, ledgered, same=same_account)
        if isinstance(provider, HasBill):
            return compare(ledgered, await provider.bill(ledgered.days))
        return compare(ledgered, await _by_prediction(where, provider))


async def _by_prediction(where: Where, provider: HasBills) -> Bill:
    """The bill of a provider that tells what single predictions were charged."""
    predictions = await asyncio.to_thread(read_predictions, where)
    names, told = list(predictions), dict[str, Decimal]()
    for start in range(0, len(names), ASKED_AT_ONCE):
        told |= await provider.bills(names[start : start + ASKED_AT_ONCE])
    return bill_of(told, predictions)


ASKED_AT_ONCE = 50
"""Predictions that a provider is asked about in one go."""


async def _after_search(
    where: Where, provider: Provider, account: str | None, ledgered: Ledgered, *, same: bool
) -> Ledgered:
    """What the ledger says once lost submits were looked for."""
    # A run that holds it looks itself; without a list the bill alone speaks.
    with suppress(FolderInUse, ProviderError):
        if await find_in(where, provider, account, same_account=same):
            return await asyncio.to_thread(read_entries, where)
    return ledgered


def _check_origin(where: Where, origin: Origin, provider: Provider) -> None:
    """Another provider's bill would say nothing of this folder."""
    if provider.origin != origin.origin:
        raise UsageError(
            f"{where} holds predictions of {origin}, the bill would be that of {provider.origin}: "
            "give the same --base-url as the run had"
        )


async def prune(
    folder: Folder,
    older_than: timedelta,
    *,
    files: bool = False,
    dry_run: bool = False,
    ledger: str | None = None,
    place: str | None = None,
) -> Pruned:
    """Forget what jobs were that ended longer ago than ``older_than``; no money is forgotten.

    Their prompts, parameters and URLs go, with ``files`` their files, too. Kept whole are unknown
    jobs, those whose money is reserved, and paid work whose files are not here. A run that names a
    pruned job again buys nothing. With ``dry_run`` it is only said what would go. Raises
    FolderInUse while anybody works in the folder, LedgerError, DiskError, and UsageError for files
    in a bucket.
    """
    where = _at(folder, ledger, place)
    return await prune_in(where, older_than, files=files, dry_run=dry_run)


@overload
async def export(
    folder: Folder,
    path: None = None,
    *,
    rows: Rows = "jobs",
    links: Links | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> list[dict[str, Any]]: ...


@overload
async def export(
    folder: Folder,
    path: str | Path,
    *,
    rows: Rows = "jobs",
    links: Links | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> int: ...


async def export(
    folder: Folder,
    path: str | Path | None = None,
    *,
    rows: Rows = "jobs",
    links: Links | None = None,
    ledger: str | None = None,
    place: str | None = None,
) -> list[dict[str, Any]] | int:
    """Write a row per job, or per submit (``rows="attempts"``), to ``path``; return their number.

    The file is CSV or JSON Lines by its ending (.csv, .jsonl), whole or not at all. Without a path
    the rows themselves are returned, as JSON values. Raises LedgerError, DiskError, and UsageError
    for an ending that says neither.
    """
    where = _at(folder, ledger, place)
    if path is None:
        return await asyncio.to_thread(export_rows, where, rows=rows, links=links)
    path = Path(path)
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise UsageError(f"{path}: its name must end in {', '.join(FORMATS)}")
    return await asyncio.to_thread(export_file, where, path, form, rows=rows, links=links)
