"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

MOST_USD = 1_000_000_000
"""Amounts beyond are slips."""

JOB_FILE = click.argument("jobfile", type=click.Path(path_type=Path))

FOLDER = click.argument("folder", type=click.Path(path_type=Path))


def _env_file(context: click.Context, option: click.Parameter, value: Path | None) -> None:
    """Set the variables of an env file before anything reads them."""
    if value is None:
        return
    from dotenv import dotenv_values

    if not value.is_file():
        raise click.BadParameter(f"there is no file {str(value)!r}", context, option)
    try:
        for name, text in dotenv_values(value, encoding="utf-8-sig").items():
            if text is not None:
                os.environ[name] = text
    except (OSError, ValueError):
        # Not chained: a UnicodeDecodeError holds the whole file, and with it the key.
        why = f"{str(value)!r} cannot be used: it must be UTF-8 lines of NAME=value"
        raise click.BadParameter(why, context, option) from None


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


BASE_URL = click.option("--base-url", help="The API's base URL, if not Atlas Cloud's own.")

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

ENV_FILE = click.option(
    "--env-file",
    type=click.Path(path_type=Path),
    callback=_env_file,
    expose_value=False,
    is_eager=True,
    help="Read ATLASCLOUD_API_KEY and the like from this file.",
)

OUTPUT = shared(
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout."),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Print every event, and tracebacks."),
    click.option("--no-progress", is_flag=True, help="Print only the summary."),
)


def with_output(options: dict[str, Any]) -> dict[str, Any]:
    """Gather what OUTPUT took into one ``output``."""
    from asyncpipe.cli.session import Output

    names = ("as_json", "quiet", "verbose", "no_progress")
    output = Output(**{name: options.pop(name) for name in names})
    return {**options, "output": output}
