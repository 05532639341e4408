"""Arguments and options that several commands share."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncpipe._text import printable
from asyncpipe.jobs import BucketUrl, OutputPlace, is_bucket_url

if TYPE_CHECKING:
    from asyncpipe.jobfile import FolderTemplate

MOST_USD = 1_000_000_000
"""Amounts beyond are slips."""

JOB_FILE = click.argument("jobfile", type=click.Path(path_type=Path))


class _Place(click.Path):
    """A folder, or the URL of a bucket, which may be a template."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        if isinstance(value, str) and is_bucket_url(value):
            from asyncpipe.jobfile import FolderTemplate

            template = FolderTemplate.of(value)
            return template if template.varies else BucketUrl.parse(value)
        return super().convert(value, param, context)


def _folder(
    context: click.Context, argument: click.Parameter, value: OutputPlace | FolderTemplate
) -> OutputPlace:
    """The place that is meant, also where a template of folders or a job file is given."""
    from asyncpipe.cli.schedule import named_folder

    def tell(line: str) -> None:
        if not context.params.get("quiet"):
            click.echo(printable(line), err=True)

    return named_folder(value, tell)


FOLDER = click.argument("folder", type=_Place(path_type=Path), callback=_folder)


def _env_file(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    """Set the variables of an env file before anything reads them."""
    if value is None:
        return
    from dotenv import dotenv_values

    if not value.is_file():
        raise click.BadParameter(f"there is no file {str(value)!r}", context, option)
    try:
        said = dotenv_values(value, encoding="utf-8-sig")
        os.environ.update({name: text for name, text in said.items() if text is not None})
        open_to_others = os.name == "posix" and value.stat().st_mode & _OTHERS_READ
    except (OSError, ValueError):
        # Not chained: a UnicodeDecodeError holds the whole file, and with it the key.
        why = f"{str(value)!r} cannot be used: it must be UTF-8 lines of NAME=value"
        raise click.BadParameter(why, context, option) from None
    if open_to_others and any(_is_secret(name, text or "") for name, text in said.items()):
        file = shlex.quote(str(value))
        click.echo(
            printable(
                f"Others on this machine can read {file}, and a key is in it: chmod 600 {file}"
            ),
            err=True,
        )


_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")


def _is_secret(name: str, text: str) -> bool:
    """Whether a variable holds what nobody else may know: a key, or a password in a URL."""
    return bool(text and _SECRET.search(name)) or bool(re.search(r"://[^/@]*:[^/@]+@", text))


def to_usd(context: click.Context, option: click.Parameter, value: str | None) -> Decimal | None:
    """Read an amount of money."""
    try:
        amount = None if value is None else Decimal(value)
    except InvalidOperation:
        raise click.BadParameter(
            f"{value!r} is not an amount: write only the number of USD", context, option
        ) from None
    if amount is not None and not (amount.is_finite() and 0 <= amount <= MOST_USD):
        raise click.BadParameter(
            f"{value!r} is not an amount from 0 to {MOST_USD}", context, option
        )
    return amount


def shared(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Make one decorator of several."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


PROVIDER = click.option(
    "--provider",
    metavar="NAME",
    help="Whose API it is.  [default: the job file's or the folder's, or ASYNCPIPE_PROVIDER]",
)

BASE_URL = click.option("--base-url", help="The API's base URL, if not the provider's own.")

PRICE_FILE = click.option(
    "--price-file",
    type=click.Path(path_type=Path),
    help="Your own prices, YAML or JSON, where there is no quote.",
)

CATALOGS = click.Choice(["article", "live"])

GRACE = click.option(
    "--grace",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="After Ctrl-C or SIGTERM, seconds for what is quick.",
)

SEARCH = click.option(
    "--search-s",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="How long submits that lost their answer are looked for at the provider, in seconds.",
)

SAME_ACCOUNT = click.option(
    "--same-account",
    is_flag=True,
    help="Go on with a key of another account than the one this folder was bought with.",
)


def _choose(context: click.Context, option: click.Parameter, value: str | None) -> None:
    """Note which ledger and which place in it are meant, before any is opened."""
    from asyncpipe.ledger import choose

    said = context.meta.setdefault("asyncpipe.place", {})
    said[option.name] = value
    choose(said.get("ledger"), said.get("place"))


LEDGER = shared(
    click.option(
        "--ledger",
        metavar="URL",
        callback=_choose,
        expose_value=False,
        is_eager=True,
        help="A ledger that many workers share: postgresql://…  [default: ASYNCPIPE_LEDGER]",
    ),
    click.option(
        "--place",
        metavar="NAME",
        callback=_choose,
        expose_value=False,
        is_eager=True,
        help="The output place's name in that ledger.  [default: the folder as it is written]",
    ),
)

LEASE = click.option(
    "--lease-s",
    type=click.FloatRange(1),
    default=30.0,
    show_default=True,
    help="In a shared ledger: how long others leave this worker's jobs alone once it is silent.",
)

WAIT = click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Wait so long for a folder that another command works in.  [default: 0]",
)

ENV_FILE = click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    callback=_env_file,
    expose_value=False,
    is_eager=True,
    help="Read the API key and the like from this file.",
)

OUTPUT = shared(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    # Eager: what is said of an argument asks for it.
    click.option("-q", "--quiet", is_flag=True, is_eager=True, help="Print nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print every event, and tracebacks."),
    click.option("--no-progress", is_flag=True, help="Print only the summary."),
)


def with_output(options: dict[str, Any]) -> dict[str, Any]:
    """Gather what OUTPUT took into one ``output``."""
    from asyncpipe.cli.session import Output

    names = ("as_json", "quiet", "verbose", "no_progress")
    output = Output(**{name: options.pop(name) for name in names})
    return {**options, "output": output}


LINKS = shared(
    click.option(
        "--public-url",
        metavar="URL",
        help="Links in manifest and export: https://cdn.example.com/{path}.",
    ),
    click.option(
        "--presign",
        metavar="TIME",
        help="Links signed by the bucket's store instead, and for how long: 12h, 7d.",
    ),
)

NOTIFY = shared(
    click.option(
        "--notify",
        metavar="URL",
        multiple=True,
        help="Tell this URL when the run ends, stops or needs a decision; $NAME: it is in that "
        "environment variable; slack:, feishu: or standard: before it where its host does not say.",
    ),
    click.option(
        "--notify-private", is_flag=True, help="URLs to tell may be in your own network, too."
    ),
    click.option(
        "--exec",
        "command",
        metavar="CMD",
        help="Run this at the same moments, without a shell: facts as JSON on stdin, and in "
        "ASYNCPIPE_… variables.",
    ),
)

QUEUE = shared(
    click.option(
        "--queue", type=click.Choice(["celery", "rq"]), required=True, help="Whose worker or queue."
    ),
    click.option(
        "--broker",
        envvar="ASYNCPIPE_BROKER",
        required=True,
        help="The queue's broker, e.g. redis://HOST:6379/0; or ASYNCPIPE_BROKER, which no list of "
        "processes shows.",
    ),
    click.option(
        "--queue-name", envvar="ASYNCPIPE_QUEUE_NAME", default="asyncpipe", show_default=True
    ),
)

_LIMITS = shared(
    click.option(
        "-o",
        "--output-dir",
        type=_Place(path_type=Path),
        help="Folder for the results; {date}, {week} or {time} in it make another one each time. "
        "Or a bucket, s3://BUCKET/PREFIX.  [default: the job file's, or pipeline_output]",
    ),
    click.option(
        "--new", is_flag=True, help="Open another folder though the newest one is not finished."
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
        help="Submit nothing that would leave less in the account.",
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
        "--no-fetch-missing",
        is_flag=True,
        help="Leave files of earlier runs alone that are not in the folder any more.",
    ),
    click.option(
        "--ambiguous",
        type=click.Choice(["hold", "find", "find-resubmit", "resubmit"]),
        help="Submits that lost their answer: leave them; find them at the provider; submit again, "
        "once, what surely was not bought; submit all again and maybe pay twice.  "
        "[default: the job file's, or find]",
    ),
    SEARCH,
    SAME_ACCOUNT,
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
        help="End when no submit, or at the end no download, went well for so many seconds.",
    ),
)


@click.command()
@JOB_FILE
@_LIMITS
@LINKS
@PROVIDER
@BASE_URL
@_SIMULATE
@_CHOICES
@NOTIFY
@LEDGER
@LEASE
@WAIT
@GRACE
@ENV_FILE
@OUTPUT
def run(jobfile: Path, wait_s: float, **options: Any) -> int:
    """Run the jobs of JOBFILE; the same command again goes on where it stopped.

    Exit codes: 0 all succeeded; 1 some failed; 2 the input, an option or the key is missing or
    wrong; 3 stopped early: key, balance, budget, disk, folder in use, patience; 75 unknown or
    unfinished jobs remain, run again; 129, 130 or 143 interrupted by a hang-up, Ctrl-C or
    SIGTERM, run again.
    """
    from asyncpipe.cli.run import RunOptions, run_jobs
    from asyncpipe.cli.session import patiently

    told = RunOptions(jobfile=jobfile, **with_output(options))
    return patiently(wait_s, partial(run_jobs, told), told.output)


@click.command()
@JOB_FILE
@QUEUE
@LEDGER
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Jobs in a shard, which is one message and what one worker takes at a time.",
)
@_LIMITS
@LINKS
@PROVIDER
@BASE_URL
@_CHOICES
@ENV_FILE
@OUTPUT
def enqueue(jobfile: Path, **options: Any) -> int:
    """Send the jobs of JOBFILE to workers of a queue, in shards; the same command again is safe.

    Everything is checked and priced first, as by `run`. The jobs and how they are to be worked are
    written to the ledger; through the queue go the numbers of shards. Sent again are those that
    have work to do.
    """
    from asyncpipe.cli.enqueue import EnqueueOptions, enqueue_jobs

    given = with_output(options)
    given |= {"simulate": False, "simulate_speed": 1.0, "simulate_faults": ""}
    given |= {"simulate_catalog": "live", "grace": 0.0, "lease_s": 30.0}
    given |= {"notify": (), "command": None, "notify_private": False}
    return enqueue_jobs(EnqueueOptions(jobfile=jobfile, **given))


@click.command()
@QUEUE
@click.option(
    "--ledger",
    metavar="URL",
    envvar="ASYNCPIPE_LEDGER",
    required=True,
    help="The ledger that all workers share: postgresql://…; or ASYNCPIPE_LEDGER, which no list of "
    "processes shows.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Shards at once, each with its own max_workers; RQ: 1, start several.",
)
@LEASE
@PROVIDER
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(0),
    default=10.0,
    show_default=True,
    help="After SIGTERM, seconds for what is quick.",
)
@ENV_FILE
def work(**options: Any) -> int:
    """Start a worker: Celery's or RQ's own command, with the settings that lose no work.

    It takes shards that `enqueue` sent, and the key from its own environment. It runs until it is
    told to end.
    """
    from asyncpipe.cli.work import start_worker

    return start_worker(**options)


@click.command()
@JOB_FILE
@click.option("--offline", is_flag=True, help="Ask nobody: your prices and the built-in table.")
@PROVIDER
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
