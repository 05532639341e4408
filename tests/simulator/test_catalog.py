"""The simulator with today's catalogue: its ids, fields and prices, and what it refuses."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from asyncpipe import AtlasCloud, Job, JobType
from asyncpipe.errors import UsageError
from asyncpipe.providers.catalog import read_models
from asyncpipe.simulator.models import LIVE
from asyncpipe.simulator.settings import SimulatorSettings
from tests.support.pipelines import a_pipeline
from tests.support.simulator_client import FLUX, KEY, SEEDANCE, Client, run

IMAGEN = "google/imagen4-ultra"
VEO = "google/veo3.1/text-to-video"
SEEDANCE2 = "bytedance/seedance-2.0/text-to-video"
TURBO = "z-image/turbo"


async def send(client: Client, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    reply = await client.ask("POST", path, json={"prompt": "mug", **body}, headers=KEY)
    return reply.status, reply.json


def endpoint(body: dict[str, Any]) -> str:
    return f"/model/generate{'Video' if 'video' in str(body['model']) else 'Image'}"


@pytest.mark.parametrize(
    ("body", "usd"),
    [
        ({"model": FLUX, "size": "1024*1024"}, "0.04"),
        ({"model": IMAGEN, "aspect_ratio": "4:3"}, "0.06"),
        ({"model": TURBO}, "0.01"),
        ({"model": SEEDANCE, "duration": 12}, "0.222"),
        ({"model": SEEDANCE2, "resolution": "720p", "duration": 5}, "0.976"),
        ({"model": VEO, "duration": 8}, "3.20"),
        ({"model": VEO, "duration": 8, "generate_audio": True}, "3.20"),
        ({"model": VEO, "duration": 8, "generate_audio": False}, "1.60"),
        ({"model": VEO, "duration": 8, "resolution": "4k"}, "4.80"),
        ({"model": VEO, "duration": 8, "resolution": "4k", "generate_audio": False}, "3.20"),
    ],
)
def test_a_quote_is_todays_price_and_is_charged(body: dict[str, Any], usd: str) -> None:
    """Veo makes sound unless it is told not to, at twice the price."""

    async def steps(client: Client) -> None:
        status, quote = await send(client, "/model/calculate", body)
        assert (status, Decimal(str(quote["data"]["price"]))) == (200, Decimal(usd))
        assert client.books.submits() == 0
        status, _ = await send(client, endpoint(body), body)
        assert (status, client.books.charged()) == (200, Decimal(usd))

    run(steps, catalog="live")


def test_the_quote_of_a_token_billed_model_is_the_documented_one() -> None:
    """To the letter as it was recorded for Seedance 2.0, 720p, 5 s; and it needs no key."""

    async def steps(client: Client) -> None:
        body = {"model": SEEDANCE2, "prompt": "mug", "resolution": "720p", "duration": 5}
        reply = await client.ask("POST", "/model/calculate", json=body)
        assert reply.json == {
            "code": 200,
            "data": {
                "price": 0.976,
                "origin_price": 1.22,
                "discount": "80",
                "currency": "usd",
                "estimated": True,
                "estimated_tokens": 108900,
            },
        }
        assert (client.books.counter("quotes"), client.books.submits()) == (1, 0)
        wrong = await client.ask(
            "POST", "/model/calculate", json=body, headers={"Authorization": "Basic x"}
        )
        assert wrong.status == 401

    run(steps, catalog="live")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "google/imagen4-ultra/text-to-image"}, 404),
        ({"model": "openai/sora-v2/text-to-video"}, 404),
        ({"model": VEO, "duration": 5}, 400),
        ({"model": VEO, "duration": "8"}, 400),
        ({"model": VEO, "generate_audio": 1}, 400),
        ({"model": SEEDANCE, "duration": 13}, 400),
        ({"model": SEEDANCE, "resolution": "1080p"}, 400),
        ({"model": IMAGEN, "width": 2048}, 400),
        ({"model": TURBO, "seed": True}, 400),
    ],
)
def test_what_today_refuses_is_not_sold_and_not_explained(
    body: dict[str, Any], status: int
) -> None:
    """The API's envelope; a bad field is not named, as it is not at Atlas Cloud."""

    async def steps(client: Client) -> None:
        for path in (endpoint(body), "/model/calculate"):
            answered, refused = await send(client, path, body)
            assert (answered, refused["code"], refused["data"]) == (status, status, None)
            text = "model not found" if status == 404 else "Invalid request parameters"
            assert refused["msg"] == text
        assert client.books.predictions() == []

    run(steps, catalog="live")


def test_the_catalogue_has_schemas_that_it_serves_itself() -> None:
    """No key for either; the article's has none, and its server no such documents."""

    async def live(client: Client) -> None:
        rows = (await client.ask("GET", "/models")).json["data"]
        assert [row["model"] for row in rows] == list(LIVE)
        prices = {row["model"]: row["price"]["actual"]["base_price"] for row in rows}
        assert (prices[VEO], prices[TURBO]) == ("0.2", "0.01")
        for row in rows:
            document = (await client.ask("GET", row["schema"])).json
            body = document["components"]["schemas"]["Input"]
            live = LIVE[row["model"]]
            assert set(body["properties"]) == {"model", live.asks, *live.fields}
            ways = {method: path for path, told in document["paths"].items() for method in told}
            assert ways["get"] == "/api/v1/model/prediction/{request_id}"
            assert "/model/generate" in ways["post"]
        root = client.simulator.base_url.removesuffix("/api/v1")
        assert (await client.ask("GET", f"{root}/schemas/no/such.json")).status == 404

    async def article(client: Client) -> None:
        rows = (await client.ask("GET", "/models")).json["data"]
        assert {row["schema"] for row in rows} == {""}
        root = client.simulator.base_url.removesuffix("/api/v1")
        assert (await client.ask("GET", f"{root}/schemas/{VEO}.json")).status == 404

    run(live, catalog="live")
    run(article)


def test_the_articles_catalogue_still_takes_anything() -> None:
    """Models nobody knows and durations no model has, at the article's prices."""

    async def steps(client: Client) -> None:
        for body in ({"model": "any/thing"}, {"model": VEO, "duration": 5, "width": 3}):
            assert (await send(client, endpoint(body), body))[0] == 200
        assert client.books.charged() == Decimal("0.20")

    run(steps)


SPEECH, MUSIC = "minimax/speech-2.6-hd/text-to-speech", "minimax/music-2.0/text-to-music"
SOUND = JobType.AUDIO
WHISPER, SOLID = "openai/whisper-v3/speech-to-text", "tencent/hunyuan3d-v3/text-to-3d"


def test_the_catalogue_says_what_a_price_is_for() -> None:
    """The unit, the least duration and the ways in and out, as today's API does; our reader."""

    async def steps(client: Client) -> None:
        rows = (await client.ask("GET", "/models")).json["data"]
        by_id = {row["model"]: row for row in rows}
        assert by_id[SOLID]["type"] == "Image"
        assert by_id[WHISPER]["output_modalities"] == ["text"]
        found = {model.id: (model.type, model.unit, model.least_s) for model in read_models(rows)}
        assert found[SPEECH] == ("audio", "1k_chars", None)
        assert found[MUSIC] == ("audio", "second", Decimal(30))
        assert found[VEO] == ("video", "second", None)
        assert found[IMAGEN] == ("image", "image", None)

    run(steps, catalog="live")


@pytest.mark.parametrize(
    ("job", "usd", "ending", "body_bytes"),
    [
        (Job(type=SOUND, model=SPEECH, prompt="字" * 1001), "0.12", "wav", None),
        (Job(type=SOUND, model=MUSIC, prompt="la", params={"duration": 5}), "0.06", "wav", None),
        (Job(type=SOUND, model=WHISPER, params={"audio": "https://h/a.mp3"}), "0.006", "txt", None),
        (Job(type=JobType.IMAGE, model=SOLID, prompt="a mug"), "0.25", "glb", None),
        (Job(type=JobType.IMAGE, model=SOLID, prompt="a mug"), "0.25", "glb", 4096),
    ],
)  # fmt: skip
def test_sound_texts_and_solids_are_made(
    tmp_path: Path, job: Job, usd: str, ending: str, body_bytes: int | None
) -> None:
    """Quoted, sold, fetched and stored like everything else."""

    async def steps(client: Client) -> None:
        provider = AtlasCloud("any", base_url=client.simulator.base_url, simulated=True)
        async with a_pipeline(provider, tmp_path, min_free_bytes=0) as pipeline:
            (result,) = await pipeline.batch_generate([job])
        assert (result.status, result.cost) == ("success", Decimal(usd))
        assert result.assets[0].name.endswith(f".{ending}")
        assert client.books.charged() == Decimal(usd)

    run(steps, catalog="live", body_bytes=body_bytes, speed=500.0)


def test_there_are_two_catalogues() -> None:
    with pytest.raises(UsageError, match="catalog 'old': there are article, live"):
        SimulatorSettings(catalog="old")
