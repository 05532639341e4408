"""Before a run spends more than a little without a limit: show what it will cost, and ask."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from decimal import Decimal

import click

from asyncpipe.cli.costs import Costs
from asyncpipe.cli.estimate import Estimate, estimate_lines, with_balance
from asyncpipe.cli.look import Kinds
from asyncpipe.cli.session import echo
from asyncpipe.engine.engine import learned_before
from asyncpipe.jobfile.load import JobFile
from asyncpipe.jobs.job import Job
from asyncpipe.pricing.money import to_micro
from asyncpipe.pricing.price import Prices
from asyncpipe.pricing.quotes import Quoting
from asyncpipe.providers.atlas.client import AtlasCloud

UNASKED_USD = Decimal(1)
"""What a run may spend without a question."""

DECLINED = 128 + signal.SIGINT
"""The exit code of a no: as Ctrl-C at the question, nothing is done and all can be done later."""


def on_terminal() -> bool:
    """Whether somebody can read a question and answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask_first(
    file: JobFile,
    prices: Prices,
    quoting: Quoting,
    provider: AtlasCloud,
    *,
    wanted: Callable[[Job], bool],
    workers: int,
) -> None:
    """Price what is still to be bought; above 1 USD show it and ask whether to go on.

    Raises JobFileError for jobs without a price, and ends the command with exit code 130 when the
    answer is no: nothing was submitted.
    """
    costs = Costs(learned_before(provider))
    kinds = Kinds(file, wanted=wanted, echo=echo)
    await kinds.ask(quoting)
    kinds.price(prices, costs.add)
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
