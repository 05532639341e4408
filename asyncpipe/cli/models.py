"""``asyncpipe models``: which models the provider has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import click
import orjson

from asyncpipe._text import fit, printable, width
from asyncpipe.pricing import usd
from asyncpipe.providers import Provider, connect, provider_named
from asyncpipe.providers.catalog import CatalogModel, Catalogue, get_catalogue

_WIDEST = 60


def list_models(
    *,
    kind: str | None,
    search: str,
    provider: str | None,
    base_url: str | None,
    as_json: bool,
    refresh: bool,
) -> None:
    """Print the catalogue; never needs a key, and without network prints what is known."""
    there = connect(provider_named(provider), base_url=base_url, keyless=True)
    catalogue = asyncio.run(_ask(there, refresh=refresh))
    chosen = choose(catalogue.models, kind=kind, search=search)
    if catalogue.trouble:
        why = f"the catalogue at {there.origin} cannot be had now: {catalogue.trouble}"
        click.echo(printable(why), err=True)
    if as_json:
        click.echo(_document(catalogue, chosen))
        return
    click.echo(_head(catalogue, len(chosen), there.origin))
    for line in table(chosen):
        click.echo(line)
    click.echo("from: what one image, second or generation costs at least, in USD")


async def _ask(provider: Provider, *, refresh: bool) -> Catalogue:
    async with provider:
        return await get_catalogue(provider, refresh=refresh)


def choose(
    models: Sequence[CatalogModel], *, kind: str | None = None, search: str = ""
) -> list[CatalogModel]:
    """The models of a type whose id and name hold every word of ``search``; hidden ones never."""
    words = search.casefold().split()
    return [
        model
        for model in sorted(models, key=lambda each: (each.type, each.id))
        if model.shown
        and kind in (None, model.type)
        and all(word in f"{model.id} {model.name}".casefold() for word in words)
    ]


def table(models: Sequence[CatalogModel]) -> list[str]:
    """Lay out type, id, price and name in columns as wide as the text looks."""
    wide = min(max((width(printable(m.id)) for m in models), default=0), _WIDEST)
    prices = [_price(model) for model in models]
    paid = max(12, *map(len, prices)) if prices else 0
    lines = []
    for model, price in zip(models, prices, strict=True):
        # An id is what people copy: one that is too wide shifts its line and is not cut.
        name = printable(model.id)
        name = name if width(name) > wide else fit(name, wide)
        kind = fit(model.type or "?", 5)
        lines.append(f"  {kind}  {name}  {price:>{paid}}  {printable(model.name)}".rstrip())
    return lines


def _price(model: CatalogModel) -> str:
    if model.base_price is None:
        return "?"
    each = f" a {model.unit}" if model.unit else ""
    least = f", {model.least_s:f} s at least" if model.unit and model.least_s else ""
    return f"{usd(model.base_price)}{each}{least}"


def _head(catalogue: Catalogue, count: int, origin: str) -> str:
    at = f"{catalogue.as_of:%Y-%m-%d %H:%M} UTC"
    places = {
        "live": f"at {origin}, {at}",
        "cache": f"at {origin}, as of {at} (--refresh asks anew)",
        "built-in": f"of the built-in list of {catalogue.as_of:%Y-%m-%d}",
    }
    return printable(f"{count} models {places[catalogue.source]}; id, from, name:")


def _document(catalogue: Catalogue, models: Sequence[CatalogModel]) -> str:
    document = {
        "source": catalogue.source,
        "as_of": catalogue.as_of.isoformat(),
        "models": [
            {
                "id": model.id,
                "type": model.type,
                "name": model.name,
                "base_price": _number(model.base_price),
                "unit": model.unit,
                "least_s": _number(model.least_s),
                "schema_url": model.schema_url,
            }
            for model in models
        ],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _number(value: Decimal | None) -> orjson.Fragment | None:
    return None if value is None else orjson.Fragment(format(value, "f"))
