"""``asyncpipe reconcile``: a folder's ledger against the provider's bill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from textwrap import wrap
from typing import Any

import click
import orjson

from asyncpipe._tasks import loop_factory
from asyncpipe._text import json_text, printable
from asyncpipe.cli.session import Exit, Simulated, connect, echo, provider_of
from asyncpipe.commands import reconcile_with
from asyncpipe.jobs import OutputPlace
from asyncpipe.ledger import Origin, origin_of
from asyncpipe.pricing import usd
from asyncpipe.providers import Provider
from asyncpipe.report import Compared, ModelCompared, Reconciled, Verdict

COLUMNS = 78

SHOWN = 5
"""Foreign models that are named; the others are counted."""


def reconcile_folder(
    folder: OutputPlace,
    *,
    provider: str | None,
    base_url: str | None,
    same_account: bool,
    as_json: bool,
) -> int:
    """Compare and print; return 0 when nothing is left to explain, else 1.

    Raises LedgerError without a ledger, UsageError for another provider or account than the
    folder's, and ProviderError when the bill cannot be had.
    """
    provider_of(folder, provider)
    origin = origin_of(folder)

    @asynccontextmanager
    async def connected() -> AsyncIterator[Provider]:
        simulated = Simulated() if origin.simulated else None
        async with AsyncExitStack() as stack:
            there = await connect(
                stack, folder, provider=origin.provider, base_url=base_url, simulated=simulated
            )
            yield await stack.enter_async_context(there)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        asking = reconcile_with(
            folder,
            connected,
            same_account=same_account,
            tell=lambda line: echo(printable(line)),
        )
        reconciled = runner.run(asking)
    if as_json:
        text = orjson.dumps(_document(reconciled, origin), option=orjson.OPT_INDENT_2)
        click.echo(json_text(text))
    else:
        click.echo("\n".join(_lines(reconciled, origin)))
    return Exit.OK if reconciled.agrees else Exit.FAILED


def _lines(reconciled: Reconciled, origin: Origin) -> list[str]:
    if not reconciled.models:
        return ["nothing was submitted from this folder: there is nothing to compare"]
    kind = " (simulated: no real money)" if origin.simulated else ""
    lines = [f"Ledger against bill of {printable(str(origin))}{kind}, by day in UTC"]
    for check in reconciled.models:
        lines += ["", *_model_lines(check)]
    lines += ["", *_remarks(reconciled)]
    return lines


def _model_lines(check: ModelCompared) -> list[str]:
    lines = [printable(check.model)]
    lines.append(
        f"  {'':<10}  {'charged':>14}  {'reserved':>14}  {'billed':>14}  {'difference':>14}"
    )
    lines += [_row(str(day), compared) for day, compared in check.days.items()]
    if len(check.days) > 1:
        lines.append(_row("total", check.total))
    lines.append(f"  {check.verdict.value}")
    for cause in check.causes:
        lines += wrap(
            printable(cause.text), COLUMNS - 4, initial_indent="  - ", subsequent_indent="    "
        )
    return lines


def _row(label: str, compared: Compared) -> str:
    billed = "not told" if compared.billed is None else _amount(compared.billed)
    amounts = (_amount(compared.charged), _amount(compared.reserved), billed)
    cells = [*amounts, _amount(compared.difference, signed=True)]
    return f"  {label:<10}  " + "  ".join(f"{text:>14}" for text in cells)


def _amount(value: Decimal, *, signed: bool = False) -> str:
    sign = "+" if signed and value > 0 else ""
    return sign + usd(value)


def _remarks(reconciled: Reconciled) -> list[str]:
    remarks = []
    if reconciled.not_covered:
        days = ", ".join(map(str, reconciled.not_covered))
        remarks.append(f"The bill may still grow for {days}.")
    if reconciled.others:
        shown = [f"{printable(m)} {usd(a)}" for m, a in [*reconciled.others.items()][:SHOWN]]
        left = len(reconciled.others) - len(shown)
        more = f" and {left} more" if left > 0 else ""
        remarks.append(f"On the same days, not from this folder: {', '.join(shown)}{more}.")
    if reconciled.agrees:
        within = any(check.verdict is Verdict.RESERVED for check in reconciled.models)
        remarks.append(f"Ledger and bill agree{', within what is reserved' if within else ''}.")
    else:
        remarks.append("Ledger and bill differ: the bill is what is paid.")
    return [line for remark in remarks for line in wrap(remark, COLUMNS)]


def _document(reconciled: Reconciled, origin: Origin) -> dict[str, Any]:
    return {
        "agrees": reconciled.agrees,
        "origin": origin.origin,
        "simulated": origin.simulated,
        "currency": "USD",
        "not_covered": [day.isoformat() for day in reconciled.not_covered],
        "other_models": {model: _number(amount) for model, amount in reconciled.others.items()},
        "models": [
            {
                "model": check.model,
                "verdict": check.verdict.name.lower(),
                **_sums(check.total),
                "requests": check.requests,
                "predictions": check.predictions,
                "causes": [{"kind": c.kind.value, "text": c.text} for c in check.causes],
                "days": [{"day": d.isoformat(), **_sums(c)} for d, c in check.days.items()],
            }
            for check in reconciled.models
        ],
    }


def _sums(compared: Compared) -> dict[str, Any]:
    billed = compared.billed
    return {
        "charged": _number(compared.charged),
        "reserved": _number(compared.reserved),
        "billed": None if billed is None else _number(billed),
        "difference": _number(compared.difference),
    }


def _number(usd: Decimal) -> orjson.Fragment:
    """Write an amount as a JSON number, exactly, without an exponent."""
    return orjson.Fragment(f"{usd.normalize() if usd else Decimal(0):f}")
