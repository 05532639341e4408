"""``asyncpipe export``: one row per job, into a file or on stdout."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from asyncpipe.cli.exits import Exit
from asyncpipe.report.export import export_file, export_stream
from asyncpipe.report.text import printable


def export_folder(folder: Path, *, form: str, output: Path | None) -> int:
    """Export a folder; return the exit code: 3 when the reader of stdout left before the end."""
    if output is not None and str(output) != "-":
        count = export_file(folder, output, form)
        click.echo(f"{printable(str(output))}: {count} jobs", err=True)
        return Exit.OK
    try:
        stream = sys.stdout.buffer
        export_stream(folder, stream, form)
        stream.flush()
    except BrokenPipeError:
        # Whoever read had enough (`| head`); Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.STOPPED
    return Exit.OK
