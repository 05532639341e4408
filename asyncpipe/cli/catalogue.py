"""The catalogue as the command line has it: live, or kept for a day, or what is built in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import orjson

from asyncpipe._fs import cache_folder, safe_stem, whole_file
from asyncpipe.catalog.builtin import BUILT_IN, BUILT_IN_AS_OF
from asyncpipe.catalog.lookup import Lookup, look_up
from asyncpipe.catalog.models import CatalogModel
from asyncpipe.errors import ProviderError
from asyncpipe.http.hosts import on_loopback

FRESH = timedelta(hours=24)
"""How long a kept catalogue is taken for today's."""

_FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Models, when they were asked for, and from where: ``live``, ``cache`` or ``built-in``.

    ``trouble`` is why they are not live or fresh, or None.
    """

    models: tuple[CatalogModel, ...]
    as_of: datetime
    source: str
    trouble: str | None = None


class Lister(Protocol):
    """A provider that lists its models."""

    @property
    def origin(self) -> str:
        """Where it is."""

    async def catalog(self) -> tuple[CatalogModel, ...]:
        """Every model; raises ProviderError."""


async def get_catalogue(provider: Lister, *, refresh: bool = False) -> Catalogue:
    """Return a kept catalogue of at most a day, or ask; when that fails, the best there is.

    Nothing is kept of an API on this machine: a simulator is another one tomorrow.
    """
    now, path = datetime.now(UTC), cache_path(provider.origin)
    if on_loopback(provider.origin):
        path = None
    kept = read_cache(path) if path else None
    if kept and not refresh and timedelta() <= now - kept.as_of <= FRESH:
        return kept
    try:
        models = await provider.catalog()
    except ProviderError as exc:
        known = kept or Catalogue(models=BUILT_IN, as_of=_built_in_at(), source="built-in")
        return replace(known, trouble=str(exc))
    found = Catalogue(models=models, as_of=now, source="live")
    if path:
        write_cache(path, found)
    return found


async def find_models(
    provider: Lister, ids: Sequence[str], catalogue: Catalogue | None = None
) -> tuple[Catalogue, dict[str, Lookup]]:
    """Look ids up; what a kept catalogue lacks is asked for anew, as it may be younger."""
    catalogue = catalogue or await get_catalogue(provider)
    found = look_up(ids, catalogue.models)
    if catalogue.source == "cache" and any(each.model is None for each in found.values()):
        catalogue = await get_catalogue(provider, refresh=True)
        found = look_up(ids, catalogue.models)
    return catalogue, found


def _built_in_at() -> datetime:
    day = BUILT_IN_AS_OF
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def cache_path(origin: str) -> Path | None:
    """The file an API's catalogue is kept in; None where no folder for it is known."""
    folder = cache_folder()
    return folder / "asyncpipe" / f"catalog-{safe_stem(origin)}.json" if folder else None


def read_cache(path: Path) -> Catalogue | None:
    """Read a kept catalogue; None for a file that is missing, damaged or of another version."""
    try:
        kept = orjson.loads(path.read_bytes())
        if kept["format"] != _FORMAT:
            return None
        as_of = datetime.fromisoformat(kept["as_of"]).astimezone(UTC)
        models = tuple(_model(row) for row in kept["models"])
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError):
        return None
    return Catalogue(models=models, as_of=as_of, source="cache") if models else None


def _model(row: dict[str, Any]) -> CatalogModel:
    price = row["base_price"]
    return CatalogModel(**{**row, "base_price": Decimal(price) if price is not None else None})


def write_cache(path: Path, catalogue: Catalogue) -> None:
    """Keep a catalogue, whole or not at all; where it cannot be, it is asked for again."""
    rows = [{**asdict(m), "base_price": _text(m.base_price)} for m in catalogue.models]
    kept = {"format": _FORMAT, "as_of": catalogue.as_of.isoformat(), "models": rows}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(orjson.dumps(kept))


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")
