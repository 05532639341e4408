"""Commands, options and what happens to errors."""

from __future__ import annotations

import logging
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import click

from asyncpipe.cli.options import (
    BASE_URL,
    CATALOGS,
    ENV_FILE,
    FOLDER,
    GRACE,
    JOB_FILE,
    LEDGER,
    LINKS,
    OUTPUT,
    PRICE_FILE,
    PROVIDER,
    SAME_ACCOUNT,
    SEARCH,
    WAIT,
    enqueue,
    estimate,
    run,
    to_usd,
    with_output,
    work,
)
from asyncpipe.errors import AsyncpipeError, JobFileError
from asyncpipe.jobs import Links, OutputPlace

START = """\
asyncpipe runs AI image, video and audio jobs in bulk. Where to start:
  asyncpipe init jobs.yaml              write a job file to begin with (--lang zh: in Chinese)
  asyncpipe run jobs.yaml --simulate    try it: no key, no network, no money
  asyncpipe estimate jobs.yaml          what it will cost
  asyncpipe run jobs.yaml               for real; the same command again goes on where it stopped"""


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="asyncpipe", prog_name="asyncpipe")
@click.pass_context
def app(context: click.Context) -> None:
    """Run AI image, video and audio jobs in bulk: paid once, nothing lost, all accounted for."""
    if context.invoked_subcommand is None:
        click.echo(START)


app.add_command(run)


@app.command()
@FOLDER
@LEDGER
@WAIT
@click.option("--lost", is_flag=True, help="Try media once more that were given up.")
@PROVIDER
@BASE_URL
@GRACE
@SEARCH
@SAME_ACCOUNT
@ENV_FILE
@OUTPUT
def collect(folder: OutputPlace, wait_s: float, **options: Any) -> int:
    """Finish what was submitted into FOLDER: poll and download; submit and pay nothing.

    Needs no job file. Jobs that were not submitted yet stay for the next run.
    """
    from asyncpipe.cli.folder import CollectOptions, collect_folder
    from asyncpipe.cli.session import patiently

    told = CollectOptions(folder=folder, **with_output(options))
    return patiently(wait_s, partial(collect_folder, told), told.output)


@app.command()
@FOLDER
@LEDGER
@PROVIDER
@BASE_URL
@GRACE
@SEARCH
@SAME_ACCOUNT
@ENV_FILE
@OUTPUT
def verify(folder: OutputPlace, **options: Any) -> int:
    """Check every file in FOLDER by size and sha256; fetch again what is missing or damaged.

    Costs nothing. A file that was changed is kept beside, as NAME.changed. Exit code 0: every file
    stands, whatever else became of the jobs; 75: some are still to be fetched; 1: media are gone,
    and as long as they are.
    """
    from asyncpipe.cli.folder import CollectOptions, verify_folder

    return verify_folder(CollectOptions(folder=folder, **with_output(options)))


@app.command()
@JOB_FILE
@PROVIDER
@PRICE_FILE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def validate(jobfile: Path, **options: Any) -> None:
    """Check JOBFILE and show its first jobs; nothing is sent and nothing is spent."""
    from asyncpipe.cli.validate import validate_jobs

    validate_jobs(jobfile, **options)


app.add_command(estimate)
app.add_command(enqueue)


@app.group()
def demo() -> None:
    """Show something without servers, key or money."""


@demo.command()
@click.option("--jobs", type=click.IntRange(20, 10_000), default=100, show_default=True)
def cluster(jobs: int) -> int:
    """Two workers of one ledger, one of them killed; every job is paid for once.

    Starts PostgreSQL, Valkey and a simulator on this machine, and ends them all.
    """
    from asyncpipe.cli.demo import demo_cluster

    return demo_cluster(jobs)


app.add_command(work)


@app.command()
@click.option("--type", "kind", type=click.Choice(["image", "video", "audio", "text"]))
@click.option("--search", default="", metavar="WORDS", help="Only ids or names with these words.")
@PROVIDER
@BASE_URL
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
@click.option("--refresh", is_flag=True, help="Ask, though an answer of the last 24 h is kept.")
def models(**options: Any) -> None:
    """List the models there are, with what they cost at least; needs no key."""
    from asyncpipe.cli.models import list_models

    list_models(**options)


@app.command()
@click.argument("jobfile", type=click.Path(path_type=Path), default=Path("jobs.yaml"))
@click.option("--lang", type=click.Choice(["en", "zh"]), default="en", show_default=True)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def init(jobfile: Path, lang: str, force: bool) -> None:
    """Write a commented job file to start from (default: jobs.yaml)."""
    from asyncpipe.cli.init import write_job_file

    write_job_file(jobfile, lang=lang, force=force)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job file, by which editors check and complete one."""
    from asyncpipe.cli.init import schema_text

    click.echo(schema_text(), nl=False)


@app.command()
@FOLDER
@LEDGER
@click.argument("jobs", nargs=-1)
@click.option("--resubmit", is_flag=True, help="Unknown jobs: let the next run submit them.")
@click.option("--give-up", is_flag=True, help="Unknown jobs: failed, counted as charged.")
@click.option("--lost-charged", is_flag=True, help="The bill has the lost answers: charge them.")
@click.option("--lost-free", is_flag=True, help="The bill has not: release their money.")
@click.option("--find", is_flag=True, help="Look now for lost submits in the provider's list.")
@click.option("--prediction", metavar="ID", help="The prediction of the one job that is named.")
@PROVIDER
@BASE_URL
@SAME_ACCOUNT
@ENV_FILE
def resolve(folder: OutputPlace, jobs: tuple[str, ...], **options: Any) -> None:
    """Decide about the unknown jobs and lost answers of FOLDER: all, or those of JOBS.

    First let --find look for them in the provider's list, as every run does; an id that you know
    otherwise is taken with --prediction. What is found is brought home by the next run or collect.

    Unknown means: submitted, and the answer was lost. They may have been bought; submitting them
    anew may pay twice, which is why only this command and `run --ambiguous resubmit` do it.

    Where the bill tells (`reconcile`), say so: what it has is charged (--lost-charged) and given
    up, unless --resubmit buys it again; what it has not is released (--lost-free) and submitted
    anew, unless --give-up. Where nobody knows, --resubmit keeps the money of the lost answer
    reserved, until you say what the bill says, and --give-up charges it.
    """
    from asyncpipe.cli.folder import (
        decision_of,
        resolve_by_hand,
        resolve_by_search,
        resolve_jobs,
    )

    find, prediction = options.pop("find"), options.pop("prediction")
    asking = {name: options.pop(name) for name in ("provider", "base_url", "same_account")}
    if find or prediction is not None:
        if any(options.values()) or (find and (prediction is not None or jobs)):
            raise click.UsageError("--find and --prediction stand alone; --find looks for all jobs")
        if prediction is not None:
            return resolve_by_hand(folder, jobs, prediction, provider=asking["provider"])
        return resolve_by_search(folder, **asking)
    resolve_jobs(folder, jobs, decision_of(**options), provider=asking["provider"])


@app.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@click.option("--profile", metavar="PROVIDER", help="The provider whose API it looks like.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--wire", type=click.Choice(["canonical", "article"]), default="canonical")
@click.option(
    "--faults",
    default="",
    help="E.g. rate_limited=0.1,dropped=0.05; all=0.1 sets every recoverable fault.",
)
@click.option("--list-faults", is_flag=True, help="Print the faults there are, and leave.")
@click.option("--books", type=click.Path(path_type=Path), help="Keep the books in this file.")
@click.option(
    "--hang",
    type=click.FloatRange(0),
    help="Seconds a hung poll and a slow download last.  [default: 60 divided by --speed]",
)
@click.option("--catalog", type=CATALOGS, default="article", show_default=True)
@click.option("--balance", callback=to_usd, help="The account's money in USD.  [default: no end]")
@click.option(
    "--in-flight", type=click.IntRange(1), help="Most predictions of a model; beyond, a 429."
)
@click.option(
    "--requests-per-second",
    type=click.FloatRange(0, min_open=True),
    help="Most submits and polls in a second; beyond, a 429.",
)
def simulate(list_faults: bool, **options: object) -> None:
    """Run the simulator as a server of its own, until interrupted."""
    from asyncpipe.cli.simulate import print_faults, serve

    if list_faults:
        print_faults()
        return
    serve(**options)  # type: ignore[arg-type]


_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@app.command()
@FOLDER
@LEDGER
@PROVIDER
@ENV_FILE
@click.option("--write-manifest", is_flag=True, help="Write FOLDER/manifest.json anew as well.")
@_JSON
def status(
    folder: OutputPlace, *, provider: str | None, as_json: bool, write_manifest: bool
) -> None:
    """Say where FOLDER stands: jobs, money, who works in it; also while a run does.

    Here and elsewhere FOLDER may be a template, as weekly/{date}, or a job file: its newest folder.
    """
    from asyncpipe.cli.folder import show_status

    show_status(folder, provider=provider, as_json=as_json, writes=write_manifest)


@app.command()
@FOLDER
@LEDGER
@ENV_FILE
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), required=True)
@click.option(
    "--rows",
    type=click.Choice(["jobs", "attempts"]),
    default="jobs",
    show_default=True,
    help="One row per job, or per submit, as an invoice has them.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: stdout]")
@LINKS
def export(
    folder: OutputPlace, *, public_url: str | None, presign: str | None, **options: Any
) -> int:
    """Write the jobs of FOLDER, in job-file order, for spreadsheets and programs."""
    from asyncpipe.cli.folder import export_folder

    links = Links.of(public_url, presign)
    return export_folder(folder, links=links, **options)


@app.command()
@FOLDER
@LEDGER
@PROVIDER
@BASE_URL
@SAME_ACCOUNT
@ENV_FILE
@_JSON
def reconcile(folder: OutputPlace, **options: Any) -> int:
    """Compare the money in FOLDER's ledger with the provider's bill, per model and day.

    Costs nothing. Exit code 0: they agree, or what is reserved explains the difference.
    """
    from asyncpipe.cli.reconcile import reconcile_folder

    return reconcile_folder(folder, **options)


@app.command()
@FOLDER
@click.option("--older-than", metavar="AGE", required=True, help="As 30d, 12h or 8w.")
@click.option("--files", is_flag=True, help="Remove the jobs' files, too.")
@click.option("--dry-run", is_flag=True, help="Only say what would go and what would stay.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@LEDGER
@_JSON
def prune(folder: OutputPlace, **options: Any) -> int:
    """Forget what old jobs of FOLDER were: their prompts, parameters and URLs.

    Of jobs that succeeded, with their files here, and failed ones. Money, names and outcomes stay,
    so no sum changes and nothing is bought again. Unknown jobs, and paid ones whose files are not
    here, are kept whole.
    """
    from asyncpipe.cli.prune import prune_folder

    return prune_folder(folder, **options)


def run_command(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; errors become messages."""
    for stream in (sys.stdout, sys.stderr):
        # A console that cannot show a character shows a substitute instead of a traceback.
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    _log(verbose=verbose)
    try:
        answer = app.main(arguments, prog_name="asyncpipe", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except Exception as exc:
        return _report(exc, verbose=verbose)
    return answer if isinstance(answer, int) else 0


def _log(*, verbose: bool) -> None:
    """Show what our parts log, as lines that are safe in a terminal."""

    class Safe(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            from asyncpipe._text import printable_lines

            return printable_lines(super().format(record))

    handler = logging.StreamHandler()
    handler.setFormatter(Safe(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.INFO if verbose else logging.CRITICAL, handlers=[handler])


def _report(error: Exception, *, verbose: bool) -> int:
    """Say what is wrong, where and what to do; a traceback only when it is asked for."""
    from asyncpipe._text import printable_lines
    from asyncpipe.cli.session import of_error

    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if not isinstance(error, AsyncpipeError):
        return _report_bug(error, verbose=verbose)
    for line in _lines(error):
        click.echo(line, err=True)
    if verbose and error.__cause__ is not None:
        click.echo(printable_lines(f"because: {error.__cause__!r}"), err=True)
    return int(of_error(error))


def _lines(error: AsyncpipeError) -> list[str]:
    from asyncpipe._text import printable
    from asyncpipe.cli.problems import shortened

    text = str(error) or type(error).__name__
    if isinstance(error, JobFileError):
        text = "\n".join(shortened(error.problems))
    indents = [len(line) - len(line.lstrip(" ")) for line in text.splitlines()]
    lines = [" " * n + printable(line) for n, line in zip(indents, text.splitlines(), strict=True)]
    return lines if isinstance(error, JobFileError) else [f"asyncpipe: {lines[0]}", *lines[1:]]


def _report_bug(error: Exception, *, verbose: bool) -> int:
    from asyncpipe._text import printable, printable_lines

    if verbose:
        click.echo(printable_lines("".join(traceback.format_exception(error))), err=True)
    what = "Report this." if verbose else "Run again with --verbose and report what it prints."
    click.echo(
        f"asyncpipe: a bug of ours: {type(error).__name__}: {printable(str(error))}\n"
        f"Nothing recorded is lost. {what}",
        err=True,
    )
    return 1
