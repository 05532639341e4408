"""``asyncpipe resolve``: decide about unknown jobs and lost answers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from asyncpipe._text import printable
from asyncpipe.engine.resolve import Decision, Resolved, resolve
from asyncpipe.jobs.states import JobState
from asyncpipe.pricing.money import usd


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


def resolve_jobs(folder: Path, names: tuple[str, ...], decision: Decision) -> None:
    """Decide, and say what follows."""
    resolved = asyncio.run(resolve(folder, names, decision))
    for one in resolved:
        click.echo(f"  {printable(one.before.name)}: {_outcome(one)}")
    again = decision.submits_anew and any(one.after.state is JobState.PENDING for one in resolved)
    hint = "; run the same job file again to submit them" if again else ""
    click.echo(f"{len(resolved)} jobs resolved{hint}")


def _outcome(one: Resolved) -> str:
    parts = []
    if one.after.state is not one.before.state:
        parts.append({JobState.PENDING: "to be submitted"}.get(one.after.state, "failed"))
    if one.settled:
        parts.append(f"{usd(one.charged)} charged")
    if one.released:
        parts.append(f"{usd(one.released)} released")
    if one.after.held:
        answers = f"{one.after.lost} lost answer" + ("s" if one.after.lost > 1 else "")
        parts.append(f"{usd(one.after.held)} stay reserved for {answers}")
    return ", ".join(parts)
