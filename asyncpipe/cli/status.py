"""``asyncpipe status``: where an output folder stands."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from asyncpipe._text import json_text
from asyncpipe.report.status import read_status, status_document, status_lines


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print the status; raises LedgerError without a ledger."""
    status = read_status(folder)
    if as_json:
        document = orjson.dumps(status_document(status), option=orjson.OPT_INDENT_2)
        click.echo(json_text(document))
    else:
        click.echo("\n".join(status_lines(status)))
