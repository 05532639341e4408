"""The catalogue: reading it, finding models, reading schemas, judging request bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from asyncpipe import AtlasCloud, Job
from asyncpipe._text import width
from asyncpipe.cli.models import choose, table
from asyncpipe.cli.precheck import RowCheck
from asyncpipe.errors import DownloadError, ProviderError
from asyncpipe.jobfile.validate import JobRow
from asyncpipe.providers.catalog.body import BodyCheck
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
from asyncpipe.providers.catalog.models import BUILT_IN, CatalogModel, Lookup, look_up, read_models
from asyncpipe.providers.catalog.schema import MOST_PARTS, read_schema

VEO = "google/veo3.1/text-to-video"
IMAGEN = "google/imagen4-ultra"
ROW = {
    "model": VEO,
    "type": "Video",
    "displayName": "Veo 3.1 Text-to-Video",
    "display_console": True,
    "schema": "https://static.example/veo.json",
    "price": {"discount": "80", "actual": {"base_price": "0.16"}, "origin": {"base_price": "0.2"}},
}
FIELDS: dict[str, Any] = {
    "model": {"type": "string"},
    "prompt": {"type": "string", "maxLength": 20},
    "duration": {"type": "integer", "enum": [4, 6, 8]},
    "seed": {"type": "integer", "minimum": -1, "maximum": 99},
    "aspect_ratio": {"type": "string", "enum": ["16:9", "9:16"]},
    "scale": {"type": "number", "exclusiveMinimum": 0},
    "images": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
}


def api(body: Any) -> dict[str, Any]:
    return {"openapi": "3.0.0", "components": {"schemas": {"Input": body}}}


def check(**changes: Any) -> BodyCheck:
    schema = read_schema(api({"type": "object", "properties": FIELDS, **changes}))
    assert schema is not None
    return BodyCheck(schema)


def faults(body: dict[str, Any], **changes: Any) -> tuple[str, ...]:
    return check(**changes).faults({"model": VEO, "prompt": "mug", **body})


# -- rows of the catalogue ----------------------------------------------------------------------


def test_a_row_is_read_as_the_api_writes_it() -> None:
    """The price after the discount, as the decimal it is; the type in lower case."""
    assert read_models([ROW]) == (
        CatalogModel(
            id=VEO,
            type="video",
            name="Veo 3.1 Text-to-Video",
            base_price=Decimal("0.16"),
            schema_url="https://static.example/veo.json",
        ),
    )


@pytest.mark.parametrize(
    ("price", "usd"),
    [
        ({"actual": {"base_price": ""}, "origin": {"base_price": "0.2"}}, "0.2"),
        ({"basePrice": 0.07}, "0.07"),
        ({"actual": "free"}, None),
        ({"actual": {"base_price": "NaN"}}, None),
        ({"actual": {"base_price": "-1"}}, None),
        ({"actual": {"base_price": True}}, None),
        ({"actual": {"base_price": "9" * 999}}, None),
        (None, None),
    ],
)
def test_prices_are_exact_or_unknown(price: Any, usd: str | None) -> None:
    (model,) = read_models([{**ROW, "price": price}])
    assert model.base_price == (Decimal(usd) if usd else None)


def test_rows_that_are_none_are_left_out() -> None:
    """No id, no row; an id twice is one model; hidden ones are marked."""
    rows: list[Any] = [None, [], {}, {"model": 7}, {"model": "x" * 9999}, ROW, ROW]
    hidden = {"model": "a/b", "display_console": False, "type": None, "schema": 5}
    assert [model.id for model in read_models([*rows, hidden])] == [VEO, "a/b"]
    assert read_models([hidden])[0] == CatalogModel(id="a/b", type="", name="a/b", shown=False)
    assert read_models({"model": VEO}) == ()


# -- looking ids up -----------------------------------------------------------------------------


def listed(*ids: str, kind: str = "", shown: bool = True) -> list[CatalogModel]:
    return [CatalogModel(id=each, type=kind, name=each, shown=shown) for each in ids]


MODELS = [
    *listed(IMAGEN, "google/imagen4", "z-image/turbo", kind="image"),
    *listed(VEO, "google/veo3.1-fast/text-to-video", "openai/sora-2/text-to-video", kind="video"),
    *listed("google/imagen4-secret", kind="image", shown=False),
]


def one(wrong: str, models: list[CatalogModel] = MODELS) -> Lookup:
    return look_up([wrong], models)[wrong]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("google/imagen4-ultra/text-to-image", IMAGEN),
        ("openai/sora-v2/text-to-video", "openai/sora-2/text-to-video"),
        ("Google/Veo3.1/text-to-video", VEO),
        ("z-image/turbo/text-to-image", "z-image/turbo"),
    ],
)
def test_the_articles_ids_lead_to_the_real_ones(wrong: str, right: str) -> None:
    """Spelled differently, and surely one model."""
    lookup = one(wrong)
    assert (lookup.model, lookup.near) == (None, (right,))
    assert lookup.sure is not None
    assert lookup.sure.id == right


def test_slips_of_the_keyboard_are_near_and_not_sure() -> None:
    assert one("google/imagen4-ultar").near[0] == IMAGEN
    assert one("google/imagen4-ultar").sure is None
    assert one("gogle/veo3.1/text-to-video").near[0] == VEO


def test_what_is_unlike_suggests_nothing() -> None:
    """That two ids end in the same task makes them no more alike; nor are pictures clips."""
    gone = [model for model in MODELS if "sora" not in model.id]
    assert one("openai/sora-v2/text-to-video", gone).near == ()
    assert one("google/imagen4-ultra/text-to-video").near == ()


def test_hidden_models_are_known_and_never_suggested() -> None:
    assert one("google/imagen4-secret").model is not None
    assert "google/imagen4-secret" not in one("google/imagen4-secrets").near


# -- reading schemas ----------------------------------------------------------------------------


def test_a_body_is_found_behind_its_references() -> None:
    """Through the POST of a path, escapes in the pointer included."""
    part = {"type": "string", "enum": ["a"]}
    document = {
        "paths": {
            "/x": {
                "get": {},
                "post": {
                    "requestBody": {
                        "content": {"application/json": {"schema": {"$ref": "#/bodies/of~1x%20y"}}}
                    }
                },
            }
        },
        "bodies": {"of/x y": {"properties": {"size": {"$ref": "#/part"}}, "required": ["size"]}},
        "part": part,
    }
    assert read_schema(document) == {"properties": {"size": part}, "required": ["size"]}


def test_a_reference_back_or_out_checks_nothing() -> None:
    """Nothing with a reference is left, so nothing can be fetched for one."""
    schema = read_schema(
        api(
            {
                "properties": {
                    "again": {"$ref": "#/components/schemas/Input"},
                    "and_again": {"$ref": "#/components/schemas/Input"},
                    "out": {"$ref": "http://127.0.0.1:9/x.json"},
                    "nowhere": {"$ref": "#/no/where"},
                }
            }
        )
    )
    assert schema is not None
    assert "$ref" not in json.dumps(schema)
    assert schema["properties"]["out"] == schema["properties"]["nowhere"] == {}
    assert BodyCheck(schema).faults({"prompt": "", "out": 1, "again": {"out": 2}}) == ()


def test_a_schema_that_unfolds_without_end_is_none() -> None:
    """Thirty references, each to two of the next: a billion parts."""
    doubled = {
        f"L{n}": {"allOf": [{"$ref": f"#/L{n + 1}"}, {"$ref": f"#/L{n + 1}"}]} for n in range(30)
    }
    assert read_schema({**doubled, **api({"properties": {"a": {"$ref": "#/L0"}}})}) is None
    wide: dict[str, Any] = {str(n): {} for n in range(MOST_PARTS)}
    assert read_schema(api({"properties": wide})) is None


@pytest.mark.parametrize("document", [None, [], {}, "x", {"paths": 3}, api(None), api({})])
def test_no_usable_schema_is_none(document: Any) -> None:
    assert read_schema(document) is None


def test_a_nested_input_is_the_flat_body() -> None:
    """Some documents describe an ``input`` object; the wire has none."""
    inner = {"type": "object", "properties": {"size": {"type": "string"}}}
    body = {"properties": {"model": {}, "input": inner}, "required": ["model", "input"]}
    assert read_schema(api(body)) == inner


def test_null_is_allowed_in_each_dialect() -> None:
    """``nullable``, and anyOf with null; 3.0's exclusive limits as well."""
    fields = {
        "a": {"type": "integer", "nullable": True, "enum": [1]},
        "b": {"anyOf": [{"type": "integer", "maximum": 3}, {"type": "null"}]},
        "c": {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
    }
    judge = BodyCheck(read_schema(api({"properties": fields})) or {})
    assert judge.faults({"prompt": "", "a": None, "b": None, "c": 2}) == ()
    assert len(judge.faults({"prompt": "", "a": 2, "b": 4, "c": 1})) == 3


def test_what_we_do_not_understand_forbids_nothing() -> None:
    """Malformed keywords, patterns of another dialect, oneOf with overlapping branches."""
    fields = {
        "a": {"type": "file"},
        "A": {"type": [[]]},
        "b": {"minimum": "4", "maxLength": -1, "enum": [], "multipleOf": 0},
        "c": {"type": "string", "pattern": r"^(\p{L}+)+$", "format": "uri"},
        "d": {"oneOf": [{"type": "integer"}, {"type": "number"}]},
    }
    schema = read_schema(api({"properties": fields, "required": True, "not": {}}))
    assert schema is not None
    assert BodyCheck(schema).faults({"prompt": "", "a": 1, "b": 0, "c": "a" * 40, "d": 1}) == ()


KEYWORDS = [
    *("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "nullable"),
    *("minLength", "maxItems", "items", "properties", "required", "additionalProperties", "$ref"),
    *("allOf", "anyOf", "oneOf", "a"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS) | st.text(max_size=2),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
SCHEMAS = JSON | st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "object", ["string", "null"], "array"])},
    optional={"minimum": JSON, "enum": JSON, "items": JSON, "required": JSON, "anyOf": JSON},
)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=4,
)


@given(JSON, st.dictionaries(st.sampled_from("abcd"), SCHEMAS, min_size=1), BODIES)
def test_no_schema_breaks_the_check(more: Any, fields: dict[str, Any], value: Any) -> None:
    """Whatever a server calls a schema: it is none, or it judges; it never raises."""
    base = more if isinstance(more, dict) else {"required": more, "additionalProperties": more}
    schema = read_schema(api({**base, "properties": fields}))
    if schema is not None:
        told = BodyCheck(schema).faults({"model": "m", "prompt": "p", "a": value, "b": value})
        assert all(": " in line and "\n" not in line for line in told)


@given(JSON, st.dictionaries(st.sampled_from("abcd"), SCHEMAS, min_size=1), BODIES, st.data())
def test_the_quick_check_never_passes_what_the_full_one_refuses(
    more: Any, fields: dict[str, Any], value: Any, data: st.DataObject
) -> None:
    """Its yes is the full check's yes; where it is not sure it says no."""
    base = more if isinstance(more, dict) else {"required": more, "additionalProperties": more}
    schema = read_schema(api({**base, "properties": fields}))
    if schema is not None:
        inner = schema["properties"].get("a", {})
        values = [value, *inner.get("enum", []), inner.get("minimum", 0), 0, 1.0, True, ""]
        body = {"model": "m", "prompt": "p", "a": data.draw(st.sampled_from(values))}
        check = BodyCheck(schema)
        if check._quick.fits(body):
            check._quick.usable = False
            assert check.faults(body) == ()


def test_the_quick_check_knows_what_catalogues_say() -> None:
    """It is of use: ordinary bodies of ordinary schemas pass it; wrong ones do not."""
    whole = {"additionalProperties": False, "required": ["prompt", "duration"]}
    quick = check(**whole)._quick
    body = {"model": "m", "prompt": "p", "duration": 8, "seed": 5, "aspect_ratio": "9:16"}
    assert quick.fits({**body, "scale": 0.5})
    for wrong in ({"duration": 5}, {"seed": True}, {"seed": 100}, {"width": 1}, {"images": [3]}):
        assert not quick.fits({**body, **wrong})
    assert not quick.fits({"model": "m", "prompt": "p"})


# -- judging bodies -----------------------------------------------------------------------------


def test_a_legal_body_has_no_faults() -> None:
    body = {"duration": 8, "seed": -1, "aspect_ratio": "9:16", "scale": 0.5, "images": ["x"]}
    assert faults(body, additionalProperties=False, required=["prompt", "duration"]) == ()
    assert faults({"webhook_url": "https://x.example"}, additionalProperties=False) == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"duration": 5}, "duration: 5 is not what the model takes: 4, 6, 8"),
        ({"duration": "8"}, "duration: '8' is not what the model takes: 4, 6, 8"),
        ({"seed": 100}, "params.seed: 100 is not what the model takes: a whole number from -1 to"),
        ({"seed": 1.5}, "params.seed: 1.5 is not what the model takes: a whole number from -1"),
        ({"seed": True}, "params.seed: true is not what"),
        ({"aspect_ratio": "4:3"}, "params.aspect_ratio: '4:3' is not what the model takes: '16:9'"),
        ({"scale": 0}, "params.scale: 0 is not what the model takes: a number above 0"),
        ({"images": ["a", 3]}, "params.images.1: 3 is not what the model takes: text"),
        ({"images": ["a"] * 3}, "params.images: a list is not what the model takes: a list with"),
        ({"prompt": "x" * 21}, "prompt: 'xxxxxxxxxxxxxxxxxxxxx' is not what"),
        ({"aspect_ratios": "16:9"}, "params.aspect_ratios: the model has no such field: did you"),
        ({"width": 2048}, "width: the model has no such field; its own are duration, seed,"),
    ],
)
def test_a_fault_names_field_value_and_what_is_allowed(body: dict[str, Any], said: str) -> None:
    (told,) = faults(body, additionalProperties=False)
    assert told.startswith(said)


def test_what_is_missing_is_named_with_what_it_takes() -> None:
    told = faults({}, required=["model", "prompt", "duration", "seed"])
    assert told == (
        "duration: missing, and the model requires it: 4, 6, 8",
        "params.seed: missing, and the model requires it: a whole number from -1 to 99",
    )


def test_unlisted_fields_are_told_where_nothing_forbids_them() -> None:
    """An open schema may ignore or take them: no fault, a note."""
    body = {"model": VEO, "prompt": "", "width": 5, "loras": [], "seed": 3}
    assert check().unlisted(body) == ("width", "params.loras")
    assert check().faults(body) == ()
    assert check(additionalProperties=False).unlisted(body) == ()


def test_equal_bodies_keep_their_own_prompts_faults() -> None:
    """What is remembered of a body leaves the prompt out, both ways."""
    judge = check()
    body = {"model": VEO, "seed": 500}
    assert len(judge.faults({**body, "prompt": "short"})) == 1
    assert len(judge.faults({**body, "prompt": "long " * 10})) == 2
    assert len(judge.faults({**body, "prompt": "short"})) == 1


def test_what_is_remembered_of_bodies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million seeds must not be a million entries."""
    monkeypatch.setattr("asyncpipe.providers.catalog.body._MOST_SEEN", 3)
    judge = check()
    for n in range(10):
        assert judge.faults({"model": VEO, "prompt": "", "seed": n}) == ()
        assert len(judge._seen) <= 3


def test_problems_come_once_and_with_their_lines() -> None:
    """A model once, at its first job; a fault once for a row's copies; none of what is paid."""

    def row(line: int, name: str, model: str = VEO, **params: Any) -> JobRow:
        job = Job(model=model, prompt="mug", name=name, params=params)
        return JobRow(job=job, line=line)

    rows = [
        row(3, "a-1", duration=5),
        row(3, "a-2", duration=5),
        row(7, "b", duration=9, loras=1),
        row(9, "c", model="x/y/text-to-image"),
        row(11, "d", model="x/y/text-to-image"),
    ]
    found = look_up([each.job.model for each in rows], MODELS)
    check_rows = RowCheck("jobs.yaml", lambda row: row.job.name == "b")
    check_rows.learn(found, {VEO: check()})
    for each in rows:
        check_rows.look(each)
    fault, unknown = check_rows.problems()
    assert str(unknown).startswith("jobs.yaml:9: job 'c': model: 'x/y/text-to-image' is not in")
    assert str(fault) == (
        "jobs.yaml:3: job 'a-1': duration: 5 is not what the model takes: 4, 6, 8"
    )
    assert [*check_rows.unlisted[VEO]] == ["params.loras"]


# -- over the network ---------------------------------------------------------------------------


def served(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    steps: Callable[[str], Awaitable[Any]],
) -> Any:
    """Run ``steps`` with the origin of a server that answers everything by ``handler``."""

    async def main() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            return await steps(f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_a_catalogue_is_asked_for_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the one in the environment goes with it; code is text there."""
    monkeypatch.setenv("ATLASCLOUD_API_KEY", "apikey-not-to-be-sent")
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.Response:
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
    async def handler(request: web.Request) -> web.Response:
        return web.Response(**answer)

    async def steps(origin: str) -> None:
        async with AtlasCloud(base_url=origin, keyless=True) as provider:
            with pytest.raises(ProviderError, match=said):
                await provider.catalog()

    served(handler, steps)


def test_a_schema_is_fetched_without_credentials_and_within_bounds() -> None:
    """A large one, a page, a redirect away and a broken one are as good as none."""
    seen: list[Any] = []

    async def handler(request: web.Request) -> web.StreamResponse:
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


def test_slow_schemas_hold_nobody_up() -> None:
    """What came in time is there; what did not is given up."""

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(5)
        return web.Response(text="{}")

    async def steps(origin: str) -> Any:
        urls = [f"{origin}/slow", f"{origin}/fast"]
        return await fetch_schemas(urls, loopback=True, patience_s=0.5)

    assert [url.rpartition("/")[2] for url in served(handler, steps)] == ["fast"]


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


# -- kept for a day -----------------------------------------------------------------------------


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


# -- shown to people ----------------------------------------------------------------------------


def test_models_are_chosen_by_type_and_words() -> None:
    """Every word, in id or name, in any case; hidden ones never."""
    named = CatalogModel(id="a/b", type="audio", name="通用 Voice")
    assert [m.id for m in choose([*MODELS, named], search="GOOGLE fast")] == [
        "google/veo3.1-fast/text-to-video"
    ]
    assert choose([*MODELS, named], search="通用") == [named]
    assert len(choose(MODELS, kind="image")) == 3


def test_columns_line_up_with_chinese_and_hostile_names() -> None:
    """By terminal cells; no escape of a name reaches the terminal."""
    models = [
        CatalogModel(id="模型/图像", type="image", name="\x1b[31mred", base_price=Decimal("0.04")),
        CatalogModel(id="some/longer-id", type="video", name="plain"),
    ]
    first, second = table(models)
    assert "\x1b" not in first
    assert width(first[: first.index("0.04")]) == width("  image  some/longer-id  ") + 4
    assert width(second[: second.index("plain")]) == width(first[: first.index("�")])


def test_an_id_is_never_cut_and_never_obeyed() -> None:
    """People copy it; a terminal must not read it."""
    (line,) = table([CatalogModel(id="\x1b[2J" + "x" * 99, type="\x1b[2J", name="wide")])
    assert "\x1b" not in line
    assert "x" * 99 in line
