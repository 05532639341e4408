"""Fetch the schemas of models: from foreign hosts, without credentials, and never at any price."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from urllib.parse import urlsplit

import aiohttp
import anyio
import orjson

from asyncpipe._fs import cache_folder, safe_stem, whole_file
from asyncpipe._tasks import Retries, once_more, retrying
from asyncpipe.errors import DownloadError, ProviderError, SubmitStopped, UsageError
from asyncpipe.http import (
    USER_AGENT,
    check_host,
    connector_options,
    follow,
    is_loopback,
    on_loopback,
    proxy_for,
)
from asyncpipe.providers import DEFAULT_PROVIDER
from asyncpipe.providers.catalog.models import (
    BUILT_IN,
    BUILT_IN_AS_OF,
    CatalogModel,
    Lookup,
    look_up,
)

logger = logging.getLogger("asyncpipe.schemas")

LARGEST_SCHEMA = 2 * 1024 * 1024
"""Bytes of a schema that are read at most."""

PATIENCE_S = 30.0
"""How long all of them together may take, in seconds."""

_ONE_S = 15.0

_AT_ONCE = 8

_HOPS = 2

RETRIES = Retries(attempts=2, initial_s=0.5)
"""A connection that breaks off is tried once more."""


async def fetch_schemas(
    urls: Iterable[str], *, loopback: bool, patience_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Return the JSON document behind each URL; those that cannot be had are missing.

    Only https is asked, and only public hosts; with ``loopback`` (the API is on this machine) this
    machine too. Nothing is raised: a schema is a help, and no run waits long for it.
    """
    found: dict[str, Any] = {}
    limiter = anyio.Semaphore(_AT_ONCE)
    async with _session(loopback=loopback) as session:

        async def fetch(url: str) -> None:
            async with limiter:
                document = await _fetch(session, url, loopback=loopback)
            if document is not None:
                found[url] = document

        with anyio.move_on_after(patience_s):
            async with anyio.create_task_group() as tasks:
                for url in dict.fromkeys(urls):
                    tasks.start_soon(fetch, url, name="asyncpipe schema")
    return found


def _session(*, loopback: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_AT_ONCE, **connector_options(guarded=not loopback)),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        timeout=aiohttp.ClientTimeout(total=_ONE_S),
        auto_decompress=False,
        trust_env=False,
    )


async def _fetch(session: aiohttp.ClientSession, url: str, *, loopback: bool) -> Any:
    """The document, or None."""

    def way(hop: str) -> str | None:
        check_address(hop, loopback=loopback)
        return proxy_for(hop)

    async def once() -> Any:
        async with await follow(session, url, way=way, hops=_HOPS, what="a schema") as answer:
            return json.loads(await _bounded(answer)) if answer.status == 200 else None

    try:
        return await retrying(once, RETRIES, on=aiohttp.ClientError, again=_may_come)
    except (aiohttp.ClientError, OSError, ValueError, DownloadError, UsageError) as exc:
        logger.info("a schema is not to be had: %s", exc, extra={"action": "schema.failed"})
    except RecursionError:  # deeper than the interpreter goes
        pass
    return None


def _may_come(error: aiohttp.ClientError) -> bool:
    """Not what hung for as long as may be waited, nor what is no address."""
    return not isinstance(error, TimeoutError | ValueError)


def check_address(url: str, *, loopback: bool) -> None:
    """Raise DownloadError for an address no schema is fetched from, ValueError for none at all."""
    parts = urlsplit(url)
    if loopback and parts.scheme in ("http", "https") and is_loopback(parts.hostname or ""):
        return
    if parts.scheme != "https" or parts.username or parts.password:
        raise DownloadError("a schema must be at a plain https address")
    check_host(parts.hostname)


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = answer.content_length or 0
    read = 0
    while size <= LARGEST_SCHEMA and read <= LARGEST_SCHEMA:
        piece = await answer.content.readany()
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        read += len(piece)
    answer.close()
    raise DownloadError(f"a schema is larger than {LARGEST_SCHEMA} bytes")


FRESH = timedelta(hours=24)
"""How long a kept catalogue is taken for today's."""

_FORMAT = 2

_AMOUNTS = ("base_price", "least_s")
"""Fields of a model that are Decimal: kept as text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalogue:
    """Models, when they were asked for, and from where: ``live``, ``cache`` or ``built-in``.

    ``trouble`` is why they are not live or fresh, or None.
    """

    models: tuple[CatalogModel, ...]
    as_of: datetime
    source: str
    trouble: str | None = None


@runtime_checkable
class HasCatalogue(Protocol):
    """What a provider may have besides: it lists its models."""

    @property
    def origin(self) -> str:
        """Where it is."""

    async def catalog(self) -> tuple[CatalogModel, ...]:
        """Every model; raises ProviderError."""


async def get_catalogue(provider: object, *, refresh: bool = False) -> Catalogue:
    """Return a kept catalogue of at most a day, or ask; when that fails, the best there is.

    Nothing is kept of an API on this machine: a simulator is another one tomorrow. A provider that
    lists no models has an empty catalogue, which says so. Raises KeyRefused and CannotConnect:
    what is to come would meet the same.
    """
    now = datetime.now(UTC)
    if not isinstance(provider, HasCatalogue):
        trouble = "the provider lists no models"
        return Catalogue(models=(), as_of=now, source="live", trouble=trouble)
    path = cache_path(provider.origin)
    if on_loopback(provider.origin):
        path = None
    kept = read_cache(path) if path else None
    if kept and not refresh and timedelta() <= now - kept.as_of <= FRESH:
        return kept
    try:
        models = await once_more(provider.catalog, pause_s=1.0)
    except SubmitStopped:
        raise
    except ProviderError as exc:
        listed = BUILT_IN if getattr(provider, "name", DEFAULT_PROVIDER) == DEFAULT_PROVIDER else ()
        known = kept or Catalogue(models=listed, as_of=_built_in_at(), source="built-in")
        return replace(known, trouble=str(exc))
    found = Catalogue(models=models, as_of=now, source="live")
    if path:
        write_cache(path, found)
    return found


async def find_models(
    provider: object, ids: Sequence[str], catalogue: Catalogue | None = None
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
    amounts = {name: row[name] and Decimal(row[name]) for name in _AMOUNTS}
    return CatalogModel(**{**row, **amounts})


def write_cache(path: Path, catalogue: Catalogue) -> None:
    """Keep a catalogue, whole or not at all; where it cannot be, it is asked for again."""
    rows = [
        {**asdict(m), **{name: _text(getattr(m, name)) for name in _AMOUNTS}}
        for m in catalogue.models
    ]
    kept = {"format": _FORMAT, "as_of": catalogue.as_of.isoformat(), "models": rows}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(orjson.dumps(kept))


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")
