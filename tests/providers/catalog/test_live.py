"""The catalogue over the network and on this disk: asked without a key, kept for a day."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from asyncpipe import AtlasCloud
from asyncpipe.errors import CannotConnect, DownloadError, KeyRefused, ProviderError
from asyncpipe.providers.catalog.live import (
    LARGEST_SCHEMA,
    Catalogue,
    cache_path,
    check_address,
    fetch_schemas,
    find_models,
    get_catalogue,
    read_cache,
    write_cache,
)
from asyncpipe.providers.catalog.models import BUILT_IN, CatalogModel, read_models
from asyncpipe.testing import run_virtual
from tests.support.catalog import MODELS, ROW, VEO, listed
from tests.support.servers import serving


def served(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    steps: Callable[[str], Awaitable[Any]],
    run: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
) -> Any:
    """Run ``steps`` with the origin of a server that answers everything by ``handler``."""

    async def main() -> Any:
        async with serving(handler) as origin:
            return await steps(origin)

    return run(main())


def test_a_catalogue_is_asked_for_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the one in the environment goes with it; code is text there."""
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-not-to-be-sent")
    seen: list[Any] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        return web.json_response({"code": "200", "data": [ROW]})

    async def steps(origin: str) -> Any:
        async with AtlasCloud(base_url=origin, keyless=True) as provider:
            return await provider.catalog()

    assert [model.id for model in served(handler, steps)] == [VEO]
    assert seen == [("/api/v1/models", None)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 503, "text": "<title>busy</title>"}, "it answered 503, busy"),
        ({"text": '{"code":"500","msg":"broken"}'}, "it answered 500, broken"),
        ({"text": '{"code":500,"msg":"broken","data":[{"model":"a/b"}]}'}, "it answered 500"),
        ({"text": '{"code":"200","data":[]}'}, "it lists no models"),
        ({"text": '{"code":"200","data":{"x":1}}'}, "it lists no models"),
        ({"text": "not JSON"}, "it lists no models"),
    ],
)
def test_a_catalogue_that_is_none_is_an_error(answer: dict[str, Any], said: str) -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        return web.Response(**answer)

    async def steps(origin: str) -> None:
        async with AtlasCloud(base_url=origin, keyless=True) as provider:
            with pytest.raises(ProviderError, match=said):
                await provider.catalog()

    served(handler, steps)


def test_a_schema_is_fetched_without_credentials_and_within_bounds() -> None:
    """A large one, a page, a redirect away and a broken one are as good as none."""
    seen: list[Any] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        seen.append((request.headers.get("Authorization"), request.headers.get("Cookie")))
        if request.path == "/large":
            response = web.StreamResponse()
            response.enable_chunked_encoding()
            await response.prepare(request)
            try:
                for _ in range(3 * LARGEST_SCHEMA // 65536):
                    await response.write(b" " * 65536)
                await response.write(b"{}")
            except ConnectionError:
                pass
            return response
        if request.path == "/away":
            raise web.HTTPFound("http://192.0.2.1/x.json")
        if request.path == "/moved":
            raise web.HTTPFound("/good", headers={"Set-Cookie": "a=b"})
        if request.path == "/deep":
            return web.Response(text="[" * 100_000)
        return web.Response(
            status=404 if request.path == "/missing" else 200,
            text="<html>" if request.path == "/page" else '{"a": 1}',
        )

    async def steps(origin: str) -> Any:
        names = ("good", "moved", "large", "away", "missing", "page", "deep")
        urls = [f"{origin}/{name}" for name in names]
        assert await fetch_schemas(urls, loopback=False) == {}
        assert seen == []
        found = await fetch_schemas(urls, loopback=True)
        return {url.rpartition("/")[2]: document for url, document in found.items()}

    assert served(handler, steps) == {"good": {"a": 1}, "moved": {"a": 1}}
    assert set(seen) == {(None, None)}


def test_a_schema_whose_connection_breaks_off_is_asked_for_once_more() -> None:
    """A network's hiccup costs a moment; what is broken for good costs two tries."""
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        if request.path == "/bad" or seen.count("/once") == 1:
            assert request.transport is not None
            request.transport.close()
        return web.Response(text="{}")

    async def steps(origin: str) -> Any:
        return await fetch_schemas([f"{origin}/once", f"{origin}/bad"], loopback=True)

    assert [url.rpartition("/")[2] for url in served(handler, steps)] == ["once"]
    assert 2 <= seen.count("/bad") <= 4  # aiohttp may repeat a GET of its own


def test_slow_schemas_hold_nobody_up() -> None:
    """What came in time is there; what did not is given up."""

    async def handler(request: web.BaseRequest) -> web.Response:
        if request.path == "/slow":
            await asyncio.Event().wait()
        return web.Response(text="{}")

    async def steps(origin: str) -> Any:
        urls = [f"{origin}/slow", f"{origin}/fast"]
        return await fetch_schemas(urls, loopback=True, patience_s=50.0)

    found = served(handler, steps, run=run_virtual)
    assert [url.rpartition("/")[2] for url in found] == ["fast"]


@pytest.mark.parametrize(
    ("url", "loopback", "allowed"),
    [
        ("https://static.atlascloud.ai/model/x.json", False, True),
        ("http://static.atlascloud.ai/model/x.json", False, False),
        ("http://static.atlascloud.ai/model/x.json", True, False),
        ("https://u:p@static.atlascloud.ai/x.json", False, False),
        ("http://127.0.0.1:8765/x.json", True, True),
        ("http://127.0.0.1:8765/x.json", False, False),
        ("https://127.0.0.1/x.json", False, False),
        ("https://10.0.0.7/x.json", True, False),
        ("https://169.254.169.254/x.json", False, False),
        ("file:///etc/hosts", True, False),
    ],
)
def test_schemas_come_from_public_places_only(url: str, loopback: bool, allowed: bool) -> None:
    if allowed:
        check_address(url, loopback=loopback)
        return
    with pytest.raises(DownloadError):
        check_address(url, loopback=loopback)


class Lists:
    """A provider that lists ``models``, or fails; it counts how often it was asked."""

    def __init__(self, *models: CatalogModel, origin: str = "https://api.example.com") -> None:
        self.models, self.origin, self.asked = models, origin, 0

    async def catalog(self) -> tuple[CatalogModel, ...]:
        self.asked += 1
        if not self.models:
            raise ProviderError("it answered 503")
        return self.models


def get(provider: Lists, *, refresh: bool = False) -> Catalogue:
    return asyncio.run(get_catalogue(provider, refresh=refresh))


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_path("https://api.example.com")
    assert path is not None
    assert path.parent == tmp_path / "asyncpipe"
    return path


NEW = read_models([ROW])


def keep(path: Path, *, age: timedelta) -> Catalogue:
    kept = Catalogue(models=tuple(MODELS), as_of=datetime.now(UTC) - age, source="live")
    write_cache(path, kept)
    return kept


def test_a_catalogue_is_kept_for_a_day(cached: Path) -> None:
    """Asked once, then read, prices and all; ``refresh`` asks again."""
    provider = Lists(*NEW)
    first, second = get(provider), get(provider)
    assert (first.source, second.source, provider.asked) == ("live", "cache", 1)
    assert (second.models, second.as_of) == (NEW, first.as_of)
    assert get(provider, refresh=True).source == "live"
    assert provider.asked == 2
    assert [path.name for path in cached.parent.iterdir()] == [cached.name]


class Slips(Lists):
    """One whose first answers are errors."""

    def __init__(self, *errors: ProviderError) -> None:
        super().__init__(*NEW)
        self.errors = [*errors]

    async def catalog(self) -> tuple[CatalogModel, ...]:
        found = await super().catalog()
        if self.errors:
            raise self.errors.pop(0)
        return found


@pytest.mark.parametrize(
    "slip", [KeyRefused("no", status=401), ProviderError("a page", status=403)]
)
def test_one_refusal_of_the_catalogue_is_asked_once_more(cached: Path, slip: ProviderError) -> None:
    """Twice, it is true: a wrong key is raised, anything else leaves what is known."""
    found = run_virtual(get_catalogue(Slips(slip)))
    assert (found.source, found.trouble) == ("live", None)
    again = get_catalogue(Slips(slip, slip), refresh=True)
    if isinstance(slip, KeyRefused):
        with pytest.raises(KeyRefused):
            run_virtual(again)
    else:
        assert run_virtual(again).trouble == "a page"


def test_a_way_that_is_set_up_wrongly_is_not_hidden_by_what_is_known(cached: Path) -> None:
    keep(cached, age=timedelta(days=30))
    with pytest.raises(CannotConnect):
        run_virtual(get_catalogue(Slips(CannotConnect("no"))))


@pytest.mark.parametrize("path_401", ["/models", "/model/prediction"])
def test_a_401_to_the_catalogue_alone_speaks_of_its_path(path_401: str) -> None:
    """The API answers it to paths that it does not have: only where all do is it of the key."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if "/models" in request.path or path_401 in request.path:
            return web.json_response({"code": 401, "msg": "unauthorized"}, status=401)
        return web.json_response({"code": 404, "msg": "not found"}, status=404)

    async def steps(origin: str) -> None:
        async with AtlasCloud("apikey-x", base_url=origin) as provider:
            with pytest.raises(ProviderError, match="401") as caught:
                await provider.catalog()
        assert isinstance(caught.value, KeyRefused) is (path_401 != "/models")

    served(answer, steps)


@pytest.mark.parametrize("age", [timedelta(hours=25), -timedelta(hours=1)])
def test_an_old_or_future_catalogue_is_asked_for_anew(cached: Path, age: timedelta) -> None:
    keep(cached, age=age)
    assert get(Lists(*NEW)).models == NEW


def test_without_network_the_newest_known_is_shown(cached: Path) -> None:
    """First the built-in list, later what was kept, however old; both say why."""
    found = get(Lists())
    assert (found.source, found.models, found.trouble) == ("built-in", BUILT_IN, "it answered 503")
    kept = keep(cached, age=timedelta(days=30))
    found = get(Lists())
    assert (found.source, found.as_of) == ("cache", kept.as_of)
    assert found.trouble == "it answered 503"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 9, "models": []}'])
def test_a_damaged_file_is_no_catalogue(cached: Path, text: str) -> None:
    cached.parent.mkdir()
    cached.write_text(text)
    assert read_cache(cached) is None
    assert get(Lists(*NEW)).source == "live"


def test_nothing_is_kept_of_an_api_on_this_machine(cached: Path) -> None:
    for origin in ("http://127.0.0.1:8765", "simulator"):
        provider = Lists(*NEW, origin=origin)
        assert [get(provider).source, get(provider).source] == ["live", "live"]
    assert not cached.parent.exists()


def test_a_model_younger_than_the_kept_catalogue_is_found(cached: Path) -> None:
    """Asked for anew only where an id is missing; if that fails, the kept one is not believed."""
    keep(cached, age=timedelta(hours=1))
    provider = Lists(*listed("new/model"))
    catalogue, _ = asyncio.run(find_models(provider, [VEO]))
    assert (catalogue.source, provider.asked) == ("cache", 0)
    catalogue, found = asyncio.run(find_models(Lists(), [VEO, "new/model"]))
    assert catalogue.trouble == "it answered 503"
    catalogue, found = asyncio.run(find_models(provider, ["new/model"]))
    assert (catalogue.source, provider.asked) == ("live", 1)
    assert found["new/model"].model is not None


def test_a_folder_that_cannot_be_written_costs_nothing(cached: Path) -> None:
    cached.parent.write_text("a file where the folder would be")
    assert get(Lists(*NEW)).source == "live"
