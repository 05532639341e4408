"""``asyncpipe run``: a job file worked into an output folder."""

from __future__ import annotations

import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncpipe._text import printable
from asyncpipe.cli.estimate import estimate_lines
from asyncpipe.cli.folder import CollectOptions, collect_folder
from asyncpipe.cli.notify import EndNotices
from asyncpipe.cli.schedule import RunFolder, opened_folder
from asyncpipe.cli.session import (
    End,
    Output,
    Simulated,
    connect,
    connect_others,
    run_session,
    work_in,
)
from asyncpipe.cli.validate import made_of
from asyncpipe.commands import (
    CatalogueCheck,
    Costs,
    Estimate,
    Survey,
    Wanted,
    prices_of,
    survey_rows,
    told,
    with_balance,
)
from asyncpipe.engine import Pipeline, learned_before
from asyncpipe.errors import LedgerError
from asyncpipe.jobfile import FolderTemplate, JobFile, load_price_file, open_jobs
from asyncpipe.jobs import (
    Ambiguous,
    Job,
    JobState,
    LedgerAt,
    OutputPlace,
    Recovery,
    Storage,
    checked_ambiguous,
    providers_in,
)
from asyncpipe.ledger import SharedPlace, Taken, reading, where_of
from asyncpipe.media import GIB
from asyncpipe.pricing import PriceBook, Prices, Quotes, SpendingLimits, to_micro
from asyncpipe.providers import Provider, provider_named
from asyncpipe.report import Progress
from asyncpipe.webhooks import Notify


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of ``asyncpipe run``; None means not given."""

    jobfile: Path
    output_dir: OutputPlace | FolderTemplate | None
    new: bool
    max_workers: int | None
    max_cost: Decimal | None
    min_balance: Decimal | None
    price_file: Path | None
    yes: bool
    provider: str | None
    base_url: str | None
    simulate: bool
    simulate_speed: float
    simulate_faults: str
    simulate_catalog: str
    allow_unknown_models: bool
    retry_failed: bool
    no_fetch_missing: bool
    ambiguous: str | None
    search_s: float
    same_account: bool
    lease_s: float
    min_free: float
    public_url: str | None
    presign: str | None
    patience: float
    grace: float
    notify: tuple[str, ...]
    command: str | None
    notify_private: bool
    output: Output


def run_jobs(options: RunOptions) -> int:
    """Run a job file to its end and return the exit code."""
    if options.simulate and options.base_url:
        raise click.UsageError("--simulate and --base-url exclude each other")
    notices = EndNotices(
        job_file=str(options.jobfile),
        urls=options.notify,
        command=options.command,
        private=options.notify_private,
        simulated=options.simulate,
        output=options.output,
    )
    with notices.errors():
        file = open_jobs(options.jobfile)
        notices.add(file.settings.notify, file.settings.notify_secret)
        return _in_folder(options, file, notices)


def _in_folder(options: RunOptions, file: JobFile, notices: EndNotices) -> int:
    """Run the jobs in the folder that is meant, and tell how it ended."""
    book = load_price_file(options.price_file) if options.price_file else None
    with opened_folder(
        options.output_dir,
        file,
        new=options.new,
        again=again(options),
        simulated=options.simulate,
        output=options.output,
        collect=partial(_collect, options),
    ) as folder:
        if options.simulate and isinstance(where_of(folder.path), SharedPlace):
            raise click.UsageError(
                "--simulate is a simulator of this process alone, and others may share the ledger: "
                "start one with asyncpipe simulate, and say --base-url"
            )
        notices.folder = str(folder.path)
        work = partial(_run, options, file, book, folder, notices.notify)
        code = run_session(
            folder.path,
            work,
            output=options.output,
            simulated=options.simulate,
            ended=notices.ended,
        )
        code = folder.exit_code(code)
    notices.tell(code)
    return code


def again(options: RunOptions) -> list[JobState]:
    """The states of jobs that a run buys once more."""
    resubmit = options.ambiguous == "resubmit"
    return [JobState.FAILED] * options.retry_failed + [JobState.UNKNOWN] * resubmit


def _collect(options: RunOptions, folder: OutputPlace) -> int:
    """Bring home what another folder of the template has paid for; return the exit code."""
    return collect_folder(
        CollectOptions(
            folder=folder,
            provider=None,
            base_url=options.base_url,
            grace=options.grace,
            search_s=options.search_s,
            same_account=options.same_account,
            output=Output(quiet=True),
        )
    )


async def _run(
    options: RunOptions,
    file: JobFile,
    book: PriceBook | None,
    into: RunFolder,
    notify: Notify | None,
) -> End:
    echo, folder = options.output.echo, into.path
    name = provider_named(options.provider, file.settings.provider)
    prices = prices_of(
        file, book, provider=name, base_url=options.base_url, simulated=options.simulate
    )
    # The article's simulator takes any model; a file that is checked without asking anybody is
    # checked before the folder is touched.
    asking = not options.simulate or options.simulate_catalog == "live"
    digest = file.digest(prices.books, options.allow_unknown_models, asking)
    before, found = _known(options, folder, digest), None
    if before is None and not asking:
        found, _ = await look(options, file, prices, folder)
    simulated = _simulated(options)
    progress = Progress(options.output.echo, verbose=options.output.verbose)
    async with AsyncExitStack() as stack:
        provider = await connect(
            stack, folder, provider=name, base_url=options.base_url, simulated=simulated
        )
        await stack.enter_async_context(provider)
        if before is None and asking:
            found, checked = await look(options, file, prices, folder, provider)
            digest = digest if checked else ""  # the next run looks again
        elif found is None and _is_to_ask(options, file):
            found, _ = await look(options, file, prices, folder)
        quoting = Quotes(provider, tell=partial(_remark, options.output))
        if found is not None:
            await price_all(options, file, found, quoting, provider)
            found = None  # nobody asks for it any more, and it may be large
        others = await connect_others(
            stack, folder, fallback_providers(file), main=name, simulated=simulated
        )
        pipeline = Pipeline(
            provider,
            folder,
            fallback_to=others,
            spending=_spending(options, file, book, quoting),
            on_event=progress,
            notify=notify,
            **_told(options, file, simulated),
        )
        for line in _begun(file, folder, before):
            echo(line)
        batch = partial(
            pipeline.batch_generate,
            told(file.jobs, "written down", echo),
            digest=digest,
            job_file=into.job_file,
            retry_failed=options.retry_failed,
        )
        work = partial(_work, into, batch)
        return await work_in(pipeline, work, progress=progress, grace_s=options.grace)


async def _work(into: RunFolder, batch: Callable[[], Awaitable[object]]) -> None:
    """The pipeline holds the folder now."""
    into.begun()
    await batch()


def _begun(file: JobFile, folder: OutputPlace, before: Taken | None) -> Iterator[str]:
    """Lines that say which jobs are run where."""
    count = before.jobs if before else len(file.rows)
    unchanged = ", unchanged since the last run" if before else ""
    yield printable(f"{count} jobs from {file.path}, into {folder}{unchanged}")
    for line in made_of(file):
        yield f"  {line}"


def _told(options: RunOptions, file: JobFile, simulated: Simulated | None) -> dict[str, Any]:
    """What options and job file say to the pipeline."""
    settings = file.settings
    polling, deadlines, search_s = settings.polling, settings.deadlines, options.search_s
    if simulated is not None:
        polling, deadlines = simulated.polling(polling), simulated.deadlines(deadlines)
        search_s = simulated.search_s(search_s)
    # What the options say of links replaces all that the file says.
    links = options if options.public_url or options.presign else settings
    return {
        "max_workers": options.max_workers or settings.max_workers,
        "limits": replace(settings.limits, window=settings.window),
        "deadlines": deadlines,
        "polling": polling,
        "recovery": Recovery(
            retries=settings.retries,
            patience_s=options.patience,
            ambiguous=_ambiguous(options, file),
            search_s=search_s,
            fetch_missing=not options.no_fetch_missing,
            take_up=False,
        ),
        "storage": Storage(
            min_free_bytes=round(options.min_free * GIB),
            public_url=links.public_url,
            presign=links.presign,
            same_account=options.same_account,
        ),
        "ledger": LedgerAt(lease_s=options.lease_s),
        "on_remark": partial(_remark, options.output),
    }


def fallback_providers(file: JobFile) -> set[str]:
    """The providers that jobs of a file may fall back to."""
    if file.path.is_file() and b"fallback" not in file.path.read_bytes():
        return set()  # most files: a million rows need not be read once more
    return {name for job in file.jobs for name in providers_in(job)}


def _ambiguous(options: RunOptions, file: JobFile) -> Ambiguous:
    """What becomes of submits that lose their answer."""
    return checked_ambiguous(options.ambiguous or file.settings.ambiguous)


def _simulated(options: RunOptions) -> Simulated | None:
    if not options.simulate:
        return None
    return Simulated(
        speed=options.simulate_speed,
        faults=options.simulate_faults,
        catalog=options.simulate_catalog,
    )


def _spending(
    options: RunOptions, file: JobFile, book: PriceBook | None, quotes: Quotes
) -> SpendingLimits:
    settings = file.settings
    return SpendingLimits(
        max_cost=_cap(options, file),
        budgets=settings.budgets,
        wait_for_day=settings.wait_for_day,
        min_balance=_either(options.min_balance, settings.min_balance),
        prices=settings.prices,
        price_book=book,
        quotes=quotes,
        estimate_factor=settings.estimate_factor,
    )


def _cap(options: RunOptions, file: JobFile) -> Decimal | None:
    return _either(options.max_cost, file.settings.max_cost)


def _either(option: Decimal | None, setting: Decimal | None) -> Decimal | None:
    return setting if option is None else option


def _remark(output: Output, line: str) -> None:
    output.echo(printable(line))


def _known(options: RunOptions, folder: OutputPlace, digest: str) -> Taken | None:
    """Whether a folder's last run took the very same jobs: then they need no second look."""
    if options.retry_failed or options.ambiguous == "resubmit":
        return None  # what is submitted again is checked again: the catalogue may have changed
    try:
        with reading(folder) as ledger:
            return ledger.taken(digest)
    except LedgerError:  # said by the run that opens it; or of a version without digests
        return None


def _is_to_ask(options: RunOptions, file: JobFile) -> bool:
    """Whether the user is asked before anything is bought."""
    unasked = options.yes or options.simulate or _cap(options, file) is not None
    return not unasked and on_terminal()


async def look(
    options: RunOptions,
    file: JobFile,
    prices: Prices,
    folder: OutputPlace,
    provider: Provider | None = None,
) -> tuple[Survey, bool]:
    """Survey the file, where a provider is given by its catalogue, too.

    Returns as well whether there was a catalogue to check against.
    """
    echo, models = options.output.echo, None
    with still_to_buy(
        folder,
        provider_named(options.provider, file.settings.provider),
        retry_failed=options.retry_failed,
        resubmit=_ambiguous(options, file) == "resubmit",
    ) as wanted:
        found = Survey(file, prices, wanted=wanted, only_wanted=_is_to_ask(options, file))
        if provider is not None:
            allow_unknown = options.allow_unknown_models
            models = CatalogueCheck(file, provider, wanted, allow_unknown=allow_unknown, echo=echo)
        await survey_rows(found, file.rows, echo, models)
    return found, models is not None and models.checked


async def price_all(
    options: RunOptions, file: JobFile, found: Survey, quoting: Quotes, provider: Provider
) -> None:
    """See that everything still to be bought has a price; ask the user, where one has to be."""
    if _is_to_ask(options, file):
        workers = options.max_workers or file.settings.max_workers
        await ask_first(found, quoting, provider, workers=workers)
    elif unpriced := found.unpriced:
        await found.ask(quoting, unpriced)
        found.priced(quoting)


UNASKED_USD = Decimal(1)
"""What a run may spend without a question."""

DECLINED = 128 + signal.SIGINT
"""The exit code of a no: as Ctrl-C at the question, nothing is done and all can be done later."""


def on_terminal() -> bool:
    """Whether somebody can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask_first(found: Survey, quoting: Quotes, provider: Provider, *, workers: int) -> None:
    """Price what is still to be bought; above 1 USD show it and ask whether to go on.

    Raises JobFileError for jobs without a price, and ends the command with exit code 130 when the
    answer is no: nothing was submitted.
    """
    costs = Costs(learned_before(provider))
    await found.ask(quoting, found.kinds)
    costs.add_all(found.priced(quoting))
    if costs.reserved <= to_micro(UNASKED_USD):
        return
    estimate = await with_balance(Estimate(costs=costs, remarks=[]), provider)
    click.echo("Still to be bought:", err=True)
    for line in estimate_lines(estimate, workers):
        click.echo(line, err=True)
    if not _confirmed():
        click.echo("nothing was submitted", err=True)
        raise click.exceptions.Exit(DECLINED)


def _confirmed() -> bool:
    """Ask; Ctrl-C is an answer too, which the event loop would otherwise keep to itself."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        # There is no --max-cost: whatever is agreed to is all of it.
        return click.confirm("Submit them? (--yes skips this question, --max-cost caps)", err=True)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def still_to_buy(
    folder: OutputPlace, provider: str, *, retry_failed: bool, resubmit: bool
) -> Iterator[Wanted]:
    """Give a test for jobs that a run into ``folder`` would submit.

    A ledger that cannot be read counts every job: the run that opens it says what is wrong.
    """
    with ExitStack() as stack:
        try:
            ledger = stack.enter_context(reading(folder))
            ledger.left_alone([""], retry_failed=retry_failed, resubmit=resubmit)
        except LedgerError:
            yield lambda job: True
            return

        def test(job: Job) -> bool:
            key = job.key(provider)
            return not ledger.left_alone([key], retry_failed=retry_failed, resubmit=resubmit)

        yield test
