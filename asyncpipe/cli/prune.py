"""``asyncpipe prune``: forget what old jobs were; no money is forgotten."""

from __future__ import annotations

import asyncio
import re
import sys
from datetime import timedelta

import click
import orjson

from asyncpipe._text import json_text, printable
from asyncpipe.cli.session import Exit, echo
from asyncpipe.commands import prune
from asyncpipe.engine import Pruned
from asyncpipe.jobs import OutputPlace
from asyncpipe.pricing import usd

_SPAN = re.compile(r"(\d{1,5})\s*([hdw])")

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}

KEPT = "name, key, model, labels, outcome, money, times, errors, ids of predictions"

GONE = "prompts, parameters, URLs of inputs and outputs"

DECLINED = 130
"""The exit code of a no, as before a run."""


def span_of(text: str) -> timedelta:
    """Read a time such as 30d, 12h or 8w; raises click.UsageError."""
    found = _SPAN.fullmatch(text.strip().lower())
    if found is None:
        raise click.UsageError(f"--older-than {text[:40]!r}: write hours, days or weeks, as 30d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def prune_folder(
    folder: OutputPlace,
    *,
    older_than: str,
    files: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Say what would be forgotten, ask, forget it; return the exit code.

    Raises click.UsageError where there is nobody to ask.
    """
    span = span_of(older_than)
    looked = asyncio.run(prune(folder, span, files=files, dry_run=True))
    found = looked
    if looked.jobs and not dry_run:
        if not yes and not _asked(looked):
            echo("nothing was forgotten")
            return DECLINED
        found = asyncio.run(prune(folder, span, files=files))
    if as_json:
        click.echo(json_text(orjson.dumps(found.to_dict(), option=orjson.OPT_INDENT_2)))
    else:
        click.echo("\n".join(pruned_lines(found)))
    return Exit.OK


def _asked(looked: Pruned) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is nobody to ask: say --yes, or --dry-run to look only")
    for line in pruned_lines(looked):
        echo(line)
    return click.confirm("Forget it? (--yes skips this question)", err=True)


def pruned_lines(found: Pruned) -> list[str]:
    """What people read of it: what goes, what stays, and why."""
    would = "would be " if found.dry_run else ""
    lines = [f"{found.jobs} jobs {would}pruned, {usd(found.charged)} of them in all sums as before"]
    if found.jobs:
        lines += [f"  gone: {GONE}", f"  kept: {KEPT}; none is bought again"]
    if found.files:
        lines.append(f"  files {would}removed: {found.files}, {found.bytes / 1e6:.1f} MB")
    lines += [
        printable(f"kept whole: {count} older jobs, {why}") for why, count in found.left.items()
    ]
    return lines
