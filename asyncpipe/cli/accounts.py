"""The commands that give account of a folder: ``status``, ``export``, ``reconcile``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")

Decorator = Callable[[Any], Any]


def add_accounts(
    app: click.Group, *, folder: Decorator, base_url: Decorator, env_file: Decorator
) -> None:
    """Add the three commands to ``app``; the decorators are its shared arguments and options."""

    @app.command()
    @folder
    @_JSON
    def status(folder: Path, as_json: bool) -> None:
        """Say where FOLDER stands: jobs, money, who works in it; also while a run does."""
        from asyncpipe.cli.status import show_status

        show_status(folder, as_json=as_json)

    @app.command()
    @folder
    @click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), required=True)
    @click.option(
        "--rows",
        type=click.Choice(["jobs", "attempts"]),
        default="jobs",
        show_default=True,
        help="One row per job, or per submit, as an invoice has them.",
    )
    @click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: stdout]")
    def export(folder: Path, form: str, rows: str, output: Path | None) -> int:
        """Write the jobs of FOLDER, in job-file order, for spreadsheets and programs."""
        from asyncpipe.cli.export import export_folder

        return export_folder(folder, form=form, rows=rows, output=output)

    @app.command()
    @folder
    @base_url
    @env_file
    @_JSON
    def reconcile(folder: Path, base_url: str | None, as_json: bool) -> int:
        """Compare the money in FOLDER's ledger with the provider's bill, per model and day.

        Costs nothing. Exit code 0: they agree, or what is reserved explains the difference.
        """
        from asyncpipe.cli.reconcile import reconcile_folder

        return reconcile_folder(folder, base_url=base_url, as_json=as_json)
