"""``asyncpipe collect`` and ``asyncpipe verify``: finish and check what was bought; buy nothing."""

from __future__ import annotations

import asyncio
import shlex
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import orjson

from asyncpipe._text import json_text, printable
from asyncpipe.cli.session import (
    End,
    Exit,
    Output,
    Simulated,
    bought_from,
    connect,
    connect_others,
    echo,
    of_verify,
    provider_of,
    run_session,
    work_in,
)
from asyncpipe.commands import find_lost, resolve, take_prediction, verify
from asyncpipe.engine import (
    Decision,
    Pipeline,
    Resolved,
    Verified,
)
from asyncpipe.jobs import Deadlines, JobState, Links, OutputPlace, Polling, Recovery, Storage, now
from asyncpipe.ledger import STATE_FOLDER, make_folders, origin_of
from asyncpipe.pricing import usd
from asyncpipe.report import (
    Progress,
    export_file,
    export_stream,
    read_manifest,
    read_status,
    status_document,
    status_lines,
    write_manifest,
)

SHOWN = 20
"""Bad assets that are named; the others are counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectOptions:
    """The options of both commands."""

    folder: OutputPlace
    provider: str | None
    base_url: str | None
    grace: float
    search_s: float
    same_account: bool
    output: Output
    lost: bool = False


def collect_folder(options: CollectOptions) -> int:
    """Poll and download what was submitted; return the exit code."""
    simulated = origin_of(options.folder).simulated
    work = partial(_collect, options, Simulated() if simulated else None)
    return run_session(options.folder, work, output=options.output, simulated=simulated)


def verify_folder(options: CollectOptions) -> int:
    """Compare every asset; fetch again what is missing or damaged; return the exit code.

    It speaks of files only, whatever jobs came to: 0 when every one stands that was bought.
    """
    provider_of(options.folder, options.provider)
    found = asyncio.run(verify(options.folder))
    _say(found, options.output)
    if not options.output.quiet:
        for store, count in found.elsewhere.items():
            where = store or "a folder of its own"
            echo(printable(f"{count} assets lie elsewhere, in {where}: not looked at"))
    totals = read_manifest(options.folder).totals
    if found.bad_count or totals.jobs[JobState.GENERATED]:  # of an earlier repair, too
        code = collect_folder(options)
        return of_verify(code, read_manifest(options.folder).totals)
    if not options.output.quiet:
        click.echo(f"{found.checked} assets checked, all as they were bought")
        if lost := totals.jobs[JobState.LOST]:
            echo(
                f"the media of {lost} paid jobs are gone: asyncpipe collect "
                f"{printable(shlex.quote(str(options.folder)))} --lost asks once more"
            )
    return of_verify(Exit.OK, totals)


def _say(found: Verified, output: Output) -> None:
    if output.quiet or not found.bad_count:
        return
    for bad in found.bad[:SHOWN]:
        echo(f"  {printable(bad.asset.path)} {printable(bad.problem)}")
    if found.bad_count > SHOWN:
        echo(f"  … and {found.bad_count - SHOWN} more")
    echo(f"{found.bad_count} of {found.checked} assets to be fetched again, at no cost")


async def _collect(options: CollectOptions, simulated: Simulated | None) -> End:
    polling, deadlines, search_s = Polling(), Deadlines(), options.search_s
    if simulated is not None:
        search_s = simulated.search_s(search_s)
        polling, deadlines = simulated.polling(polling), simulated.deadlines(deadlines)
    progress = Progress(options.output.echo, verbose=options.output.verbose)
    async with AsyncExitStack() as stack:
        name = provider_of(options.folder, options.provider)
        names = bought_from(options.folder)
        pipeline = Pipeline(
            await connect(
                stack,
                options.folder,
                provider=name,
                base_url=options.base_url,
                simulated=simulated,
            ),
            options.folder,
            fallback_to=await connect_others(
                stack, options.folder, names, main=name, simulated=simulated
            ),
            polling=polling,
            deadlines=deadlines,
            on_event=progress,
            on_remark=lambda line: options.output.echo(printable(line)),
            recovery=Recovery(search_s=search_s, take_up=False),
            storage=Storage(same_account=options.same_account),
        )
        work = partial(pipeline.collect, lost=options.lost)
        return await work_in(pipeline, work, progress=progress, grace_s=options.grace)


def export_folder(
    folder: OutputPlace, *, form: str, rows: str, output: Path | None, links: Links | None = None
) -> int:
    """Export a folder; return the exit code: 3 when the reader of stdout left before the end."""
    if links is not None and links.presign is not None:
        until = (now() + links.presign).isoformat(sep=" ", timespec="minutes")
        echo(f"the links end at {until}, or with the keys that sign them")
    if output is not None and str(output) != "-":
        count = export_file(folder, output, form, rows=rows, links=links)
        click.echo(f"{printable(str(output))}: {count} {rows}", err=True)
        return Exit.OK
    try:
        stream = sys.stdout.buffer
        export_stream(folder, stream, form, rows=rows, links=links)
        stream.flush()
    except BrokenPipeError:
        return Exit.STOPPED  # whoever read had enough: `| head`
    return Exit.OK


def decision_of(*, resubmit: bool, give_up: bool, lost_charged: bool, lost_free: bool) -> Decision:
    """Read the options; raises click.UsageError for none, and for those that exclude each other."""
    if (resubmit and give_up) or (lost_charged and lost_free):
        both = (
            "--resubmit and --give-up" if resubmit and give_up else "--lost-charged and --lost-free"
        )
        raise click.UsageError(f"{both} exclude each other: say either")
    if not (resubmit or give_up or lost_charged or lost_free):
        raise click.UsageError(
            "say what the bill says of lost answers, --lost-charged or --lost-free; or, where "
            "nobody knows, what is to become of unknown jobs, --resubmit (may pay twice) or "
            "--give-up (counts as charged)"
        )
    return Decision(
        resubmit=resubmit if resubmit or give_up else None,
        lost_charged=lost_charged if lost_charged or lost_free else None,
    )


def resolve_jobs(
    folder: OutputPlace, names: tuple[str, ...], decision: Decision, *, provider: str | None = None
) -> None:
    """Decide, and say what follows."""
    provider_of(folder, provider)
    deciding = resolve(
        folder, names, resubmit=decision.resubmit, lost_charged=decision.lost_charged
    )
    resolved = asyncio.run(deciding)
    for one in resolved:
        click.echo(f"  {printable(one.before.name)}: {_outcome(one)}")
    again = decision.submits_anew and any(one.after.state is JobState.PENDING for one in resolved)
    hint = "; run the same job file again to submit them" if again else ""
    click.echo(f"{len(resolved)} jobs resolved{hint}")


_TO_DO = {
    JobState.PENDING: "to be submitted",
    JobState.SUBMITTED: "found; run again or collect to bring it home",
}


def resolve_by_hand(
    folder: OutputPlace, names: tuple[str, ...], prediction_id: str, *, provider: str | None = None
) -> None:
    """Note which prediction a job has, and say what follows; raises click.UsageError."""
    provider_of(folder, provider)
    if len(names) != 1:
        raise click.UsageError("--prediction is that of one job: name it")
    one = asyncio.run(take_prediction(folder, names[0], prediction_id))
    click.echo(f"  {printable(one.before.name)}: {_outcome(one)}")


def resolve_by_search(
    folder: OutputPlace, *, provider: str | None, base_url: str | None, same_account: bool
) -> None:
    """Look for lost submits at the provider, and say what was found."""
    name = provider_of(folder, provider)
    simulated = Simulated() if origin_of(folder).simulated else None

    async def look() -> list[Resolved]:
        async with AsyncExitStack() as stack:
            there = await connect(
                stack, folder, provider=name, base_url=base_url, simulated=simulated
            )
            return await find_lost(
                folder,
                there,
                same_account=same_account,
                on_remark=lambda line: echo(printable(line)),
            )

    found = asyncio.run(look())
    for one in found:
        click.echo(f"  {printable(one.before.name)}: {_outcome(one)}")
    left = read_status(folder).jobs[JobState.UNKNOWN]
    click.echo(f"{len(found)} lost submits found, {left} jobs are still unknown")


def _outcome(one: Resolved) -> str:
    parts = []
    if one.after.state is not one.before.state:
        parts.append(_TO_DO.get(one.after.state, "failed"))
    if one.settled:
        parts.append(f"{usd(one.charged)} charged")
    if one.released:
        parts.append(f"{usd(one.released)} released")
    if one.after.held:
        answers = f"{one.after.lost} lost answer" + ("s" if one.after.lost > 1 else "")
        parts.append(f"{usd(one.after.held)} stay reserved for {answers}")
    return ", ".join(parts)


def show_status(
    folder: OutputPlace, *, as_json: bool, writes: bool = False, provider: str | None = None
) -> None:
    """Print the status, with ``writes`` write the manifest.

    Raises LedgerError without a ledger, UsageError for the folder of another ``provider``.
    """
    if provider is not None:
        provider_of(folder, provider)
    status = read_status(folder)
    if writes:
        if isinstance(folder, Path):
            make_folders(folder, [STATE_FOLDER])
        write_manifest(folder)
    if as_json:
        document = orjson.dumps(status_document(status), option=orjson.OPT_INDENT_2)
        click.echo(json_text(document))
    else:
        click.echo("\n".join(status_lines(status)))
