"""``asyncpipe run`` and ``estimate`` as the command line has them: their options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asyncpipe.cli.options import (
    BASE_URL,
    CATALOGS,
    ENV_FILE,
    GRACE,
    JOB_FILE,
    OUTPUT,
    PRICE_FILE,
    shared,
    to_usd,
    with_output,
)

_LIMITS = shared(
    click.option(
        "-o",
        "--output-dir",
        type=click.Path(path_type=Path),
        help="Folder for the results.  [default: the job file's, or pipeline_output]",
    ),
    click.option(
        "-j",
        "--max-workers",
        type=click.IntRange(1),
        help="Most predictions in flight.  [default: the job file's, or 64]",
    ),
    click.option(
        "--max-cost",
        callback=to_usd,
        metavar="USD",
        help="Most that the folder's jobs may cost in all.",
    ),
    click.option(
        "--min-balance",
        callback=to_usd,
        metavar="USD",
        help="Submit nothing while the account has less.",
    ),
    PRICE_FILE,
    click.option("--yes", is_flag=True, help="Do not ask before spending more than 1 USD."),
)

_EMBEDDED = click.option(
    "--simulate", is_flag=True, help="Use the embedded simulator: no key, no money."
)

_CATALOG = click.option(
    "--simulate-catalog",
    type=CATALOGS,
    default="article",
    show_default=True,
    help="Sell the article's models, or today's at today's prices.",
)

_SIMULATE = shared(
    _EMBEDDED,
    click.option(
        "--simulate-speed",
        type=click.FloatRange(0, min_open=True),
        default=20.0,
        show_default=True,
        help="How much faster the simulator's time runs.",
    ),
    click.option(
        "--simulate-faults",
        default="",
        help="Faults, e.g. all=0.1,cut=0; `asyncpipe simulate --list-faults` lists them.",
    ),
    _CATALOG,
)

_CHOICES = shared(
    click.option(
        "--allow-unknown-models",
        is_flag=True,
        help="Submit models the catalogue does not list, too.",
    ),
    click.option(
        "--retry-failed", is_flag=True, help="Submit failed jobs again that were not charged."
    ),
    click.option(
        "--ambiguous",
        type=click.Choice(["hold", "resubmit"]),
        default="hold",
        show_default=True,
        help="Jobs whose submit lost its answer: leave them, or submit again and maybe pay twice.",
    ),
    click.option(
        "--min-free",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="Submit nothing while fewer GiB are free on the disk.",
    ),
    click.option(
        "--patience",
        type=click.FloatRange(0),
        default=600.0,
        show_default=True,
        help="Stop when no submit was accepted for so many seconds.",
    ),
)


@click.command()
@JOB_FILE
@_LIMITS
@BASE_URL
@_SIMULATE
@_CHOICES
@GRACE
@ENV_FILE
@OUTPUT
def run(jobfile: Path, **options: Any) -> int:
    """Run the jobs of JOBFILE; the same command again goes on where it stopped.

    Exit codes: 0 all succeeded; 1 some failed; 2 the input, an option or the key is missing or
    wrong; 3 stopped early: key, balance, budget, disk, folder in use, patience; 75 unknown or
    unfinished jobs remain, run again; 130 or 143 interrupted by Ctrl-C or SIGTERM, run again.
    """
    from asyncpipe.cli.run import RunOptions, run_jobs

    return run_jobs(RunOptions(jobfile=jobfile, **with_output(options)))


@click.command()
@JOB_FILE
@click.option("--offline", is_flag=True, help="Ask nobody: your prices and the built-in table.")
@BASE_URL
@_EMBEDDED
@_CATALOG
@PRICE_FILE
@click.option("-j", "--max-workers", type=click.IntRange(1), help="For the duration: most at once.")
@ENV_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def estimate(jobfile: Path, **options: Any) -> None:
    """Say what JOBFILE will cost, per model and in all; nothing is bought.

    With a key, --base-url or --simulate the provider is asked for its own quotes, which is free;
    without any of them it is done as with --offline.
    """
    from asyncpipe.cli.estimate import EstimateOptions, estimate_jobs

    estimate_jobs(EstimateOptions(jobfile=jobfile, **options))
