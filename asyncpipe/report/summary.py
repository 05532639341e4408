"""The summary a run ends with: pure, from totals to lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from asyncpipe._text import columns, printable, seconds, wrapped
from asyncpipe.errors import AsyncpipeError
from asyncpipe.flow import Window
from asyncpipe.jobs import JobState
from asyncpipe.pricing import usd
from asyncpipe.report.manifest import remarks
from asyncpipe.report.totals import Totals, delays_of

COLUMNS = 78

CAUSES = 5
"""Causes of failure that are listed; the others are in the manifest."""


def summary(
    totals: Totals,
    *,
    elapsed_s: float,
    manifest: str,
    simulated: bool,
    stopped: AsyncpipeError | None = None,
    interrupted: bool = False,
    command: str | None = None,
    windows: Mapping[str, Window] | None = None,
) -> list[str]:
    """Say what became of the jobs, what it cost, and what to do about the rest.

    ``windows`` are those whose limit was met, by model.
    """
    lines = ["", "Summary" + (" (simulated: no real money)" if simulated else "")]
    lines += columns(_counts(totals, elapsed_s, manifest))
    if totals.cost_by_model_micro:
        lines.append("  cost by model")
        costs = sorted(totals.cost_by_model_micro.items())
        lines += columns([(model, usd(cost)) for model, cost in costs], indent=4)
    if windows:
        lines.append("  limits met")
        lines += columns([(model, _limit(met)) for model, met in sorted(windows.items())], indent=4)
    lines += _causes(totals)
    if stopped is not None:
        lines += ["", *wrapped(f"Stopped before the end: {printable(str(stopped))}", COLUMNS)]
    if interrupted:
        lines += ["", "Interrupted. What the provider has taken cannot be cancelled; it is kept."]
    folder = str(Path(manifest).parent)
    for remark in remarks(totals, printable(folder)):
        lines += ["", *wrapped(f"Note: {remark}.", COLUMNS)]
    lines += _next_steps(totals, command or "the same command", folder)
    return lines


def _limit(window: Window) -> str:
    return f"up to {window.most} in flight, limit found at {window.found}"


def _counts(totals: Totals, elapsed_s: float, manifest: str) -> list[tuple[str, str]]:
    rows = [
        ("jobs", str(totals.total)),
        ("succeeded", str(totals.successful)),
        ("failed", str(totals.failed)),
    ]
    if totals.missing:
        rows.append(("missing", f"{totals.missing} that were here and are not any more"))
    if totals.unknown:
        rows.append(("unknown", str(totals.unknown)))
    if totals.pending:
        rows.append(("not finished", str(totals.pending)))
    if totals.removed:
        rows.append(("removed", f"{totals.removed} no longer in the job file, never submitted"))
    rows.append(("total cost", _cost(totals)))
    if totals.reserved:
        rows.append(("reserved", f"{usd(totals.reserved)} for jobs that may still be charged"))
    return [*rows, ("time", seconds(elapsed_s)), ("manifest", printable(manifest))]


def _cost(totals: Totals) -> str:
    if not totals.estimated:
        return usd(totals.charged)
    return f"{usd(totals.charged)}, {usd(totals.estimated)} of it estimated"


def _causes(totals: Totals) -> list[str]:
    lost = "  paid for, and the media are gone, because"
    late = "  paid and not downloaded, because"
    return (
        _listed("  failed because", totals.failures)
        + _listed(lost, totals.losses)
        + _listed(late, delays_of(totals))
    )


def _listed(title: str, counted: Counter[str]) -> list[str]:
    causes = [(cause, n) for cause, n in counted.most_common() if n > 0]
    if not causes:
        return []
    lines = [title]
    lines += [f"    {n} x {printable(cause)[:300]}" for cause, n in causes[:CAUSES]]
    if len(causes) > CAUSES:
        lines.append(f"    and {len(causes) - CAUSES} other causes: see the manifest")
    return lines


def not_found(count: int, folder: str) -> str:
    """Say what to do about unknown jobs whose prediction surely is not in the provider's list."""
    return (
        f"{count} unknown, and not found at the provider: its list of predictions shows later ones "
        f"of yours and not {'this one' if count == 1 else 'these'}. asyncpipe resolve {folder} "
        "NAME --lost-free takes one for not bought, --find looks once more; with --ambiguous "
        "find-resubmit a run submits them again, once."
    )


def _next_steps(totals: Totals, command: str, folder: str) -> list[str]:
    lines = []
    if totals.not_found:
        lines.append(not_found(totals.not_found, printable(folder)))
    if doubtful := totals.unknown - totals.not_found:
        lines.append(
            f"{doubtful} unknown: submitted, and the answer was lost. They may have been "
            f"bought, so they are not sent again; {usd(totals.reserved)} stay reserved. "
            f"Compare with your bill, then decide: asyncpipe resolve {printable(folder)} "
            "--lost-charged or --lost-free; where nobody knows, --resubmit or --give-up."
        )
    if totals.missing:
        lines.append(
            f"{totals.missing} missing: their files stood here, and the provider has them no more. "
            f"Put the files back, or asyncpipe verify {printable(folder)} asks once more."
        )
    unfinished = totals.pending
    if unfinished:
        paid = unfinished - totals.jobs[JobState.PENDING]
        kept = f" ({paid} submitted already, their ids are kept)" if paid else ""
        lines.append(f"{unfinished} not finished{kept}: run {command} again to go on.")
    return ["", *(part for line in lines for part in wrapped(line, COLUMNS))] if lines else []
