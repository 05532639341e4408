"""``asyncpipe export``: one row per job or attempt, into a file or on stdout."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from asyncpipe._text import printable
from asyncpipe.cli.exits import Exit
from asyncpipe.report.export import export_file, export_stream


def export_folder(folder: Path, *, form: str, rows: str, output: Path | None) -> int:
    """Export a folder; return the exit code: 3 when the reader of stdout left before the end."""
    if output is not None and str(output) != "-":
        count = export_file(folder, output, form, rows=rows)
        click.echo(f"{printable(str(output))}: {count} {rows}", err=True)
        return Exit.OK
    try:
        stream = sys.stdout.buffer
        export_stream(folder, stream, form, rows=rows)
        stream.flush()
    except BrokenPipeError:
        return Exit.STOPPED  # whoever read had enough: `| head`
    return Exit.OK
