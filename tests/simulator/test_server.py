"""The simulator keeps its word: wires, faults, books, and media that are what they say."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import av
import pytest
from PIL import Image

from asyncpipe.errors import UsageError
from asyncpipe.simulator.books import Books
from asyncpipe.simulator.faults import Faults
from asyncpipe.simulator.media import (
    MISSING,
    clip_size,
    draw_clip,
    draw_picture,
    drawable,
    picture_size,
)
from asyncpipe.simulator.server import Simulator
from asyncpipe.simulator.settings import SimulatorSettings

FLUX = "black-forest-labs/flux-2-pro/text-to-image"
SEEDANCE = "bytedance/seedance-v1.5-pro/text-to-video"
BODY = {"model": FLUX, "prompt": "橡木桌上的白瓷杯", "width": 64, "height": 64}
KEY = {"Authorization": "Bearer k"}

Steps = Callable[[aiohttp.ClientSession, Simulator], Awaitable[Any]]


def run(steps: Steps, **settings: Any) -> Any:
    """Run ``steps`` against a simulator whose predictions are ready at once."""
    settings = {"generation_s": (0.0, 0.0), **settings}

    async def main() -> Any:
        async with (
            Simulator(SimulatorSettings(**settings)) as simulator,
            aiohttp.ClientSession(headers=KEY) as session,
        ):
            return await steps(session, simulator)

    return asyncio.run(main())


async def ask(
    session: aiohttp.ClientSession, method: str, url: str, **options: Any
) -> tuple[int, Any]:
    async with session.request(method, url, **options) as response:
        return response.status, await response.json()


async def buy(session: aiohttp.ClientSession, simulator: Simulator, **fields: Any) -> Any:
    kind = "generateVideo" if "video" in str(fields.get("model")) else "generateImage"
    url = f"{simulator.base_url}/model/{kind}"
    return (await ask(session, "POST", url, json={**BODY, **fields}))[1]


def test_the_canonical_wire() -> None:
    """Submit names an id under data; a poll lists outputs; the article's path is a wrong one."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        answer = await buy(session, simulator)
        assert (answer["code"], answer["data"]["status"]) == (200, "processing")
        url = f"{simulator.base_url}/model/prediction/{answer['data']['id']}"
        status, polled = await ask(session, "GET", url)
        assert (status, polled["data"]["status"], len(polled["data"]["outputs"])) == (
            200,
            "completed",
            1,
        )
        assert (await ask(session, "GET", f"{url}/get"))[0] == 401

    run(steps)


def test_the_articles_wire() -> None:
    """A bare request_id, polls at …/get, status on top; the canonical path is a wrong one."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        answer = await buy(session, simulator, model=SEEDANCE, duration=1)
        assert list(answer) == ["request_id"]
        url = f"{simulator.base_url}/model/prediction/{answer['request_id']}"
        _, polled = await ask(session, "GET", f"{url}/get")
        assert polled["status"] == "completed"
        assert polled["output"]["video_url"].endswith(".mp4")
        assert (await ask(session, "GET", url))[0] == 401

    run(steps, wire="article")


def test_it_is_processing_until_its_time() -> None:
    """A prediction is not complete before it is ready, and its media are not there."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        answer = await buy(session, simulator)
        url = f"{simulator.base_url}/model/prediction/{answer['data']['id']}"
        _, polled = await ask(session, "GET", url)
        assert (polled["data"]["status"], polled["data"]["outputs"]) == ("processing", None)

    run(steps, generation_s=(9000.0, 9000.0), speed=1.0)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {"Authorization": ""}}, 401),
        ({"headers": {"Authorization": "Bearer other"}}, 401),
        ({"headers": {"User-Agent": "Python-urllib/3.11"}}, 403),
        ({"data": b"no json"}, 400),
        ({"json": {"model": FLUX}}, 400),
        ({"json": ["a list"]}, 400),
    ],
)
def test_what_the_gateway_refuses(options: dict[str, Any], status: int) -> None:
    """Wrong key, refused client, bad bodies: nothing is sold."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        url = f"{simulator.base_url}/model/generateImage"
        request: dict[str, Any] = {"json": BODY} if "headers" in options else {}
        async with session.post(url, **request, **options) as response:
            assert response.status == status
        assert simulator.books.predictions() == []

    run(steps, api_key="k")


def test_rate_limited_sells_nothing() -> None:
    """429 without Retry-After."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        assert (await buy(session, simulator))["code"] == 429
        assert simulator.books.predictions() == []
        assert simulator.books.submits() == 1

    run(steps, faults=Faults(rate_limited=1.0))


def test_dropped_is_sold_without_an_answer() -> None:
    """The connection ends, the books hold the prediction and its charge."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        with pytest.raises(aiohttp.ClientError):
            await buy(session, simulator)
        assert simulator.books.charged() == Decimal("0.04")

    run(steps, faults=Faults(dropped=1.0))


@pytest.mark.parametrize(("fault", "code"), [("failed", 1), ("moderated", 1039)])
def test_failures_give_the_money_back(fault: str, code: int) -> None:
    """HTTP 200 with status failed; nothing stays charged."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        answer = await buy(session, simulator)
        url = f"{simulator.base_url}/model/prediction/{answer['data']['id']}"
        status, polled = await ask(session, "GET", url)
        assert (status, polled["data"]["status"]) == (200, "failed")
        assert (polled["data"]["error_code"], bool(polled["data"]["error"])) == (code, True)
        assert simulator.books.charged() == 0

    run(steps, faults=Faults(**{fault: 1.0}))


def test_not_found_first_hides_two_polls() -> None:
    """404, 404, then the truth."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> list[int]:
        answer = await buy(session, simulator)
        url = f"{simulator.base_url}/model/prediction/{answer['data']['id']}"
        return [(await ask(session, "GET", url))[0] for _ in range(3)]

    assert run(steps, faults=Faults(not_found_first=1.0)) == [404, 404, 200]


async def media_url(session: aiohttp.ClientSession, simulator: Simulator, **fields: Any) -> str:
    answer = await buy(session, simulator, **fields)
    url = f"{simulator.base_url}/model/prediction/{answer['data']['id']}"
    return str((await ask(session, "GET", url))[1]["data"]["outputs"][0])


def test_cut_breaks_the_first_download_only() -> None:
    """Half a body, then a whole one."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        url = await media_url(session, simulator)
        with pytest.raises(aiohttp.ClientError):
            async with session.get(url) as response:
                await response.read()
        async with session.get(url) as response:
            assert (await response.read()).startswith(b"\x89PNG")

    run(steps, faults=Faults(cut=1.0))


def test_ranges_are_honoured_while_the_file_is_the_same() -> None:
    """206 with the rest; the whole for another ETag; 416 behind the end."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        url = await media_url(session, simulator)
        async with session.get(url) as response:
            whole, etag = await response.read(), response.headers["ETag"]
        headers = {"Range": "bytes=100-", "If-Range": etag}
        async with session.get(url, headers=headers) as response:
            assert (response.status, await response.read()) == (206, whole[100:])
            assert response.headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
        async with session.get(url, headers={**headers, "If-Range": '"other"'}) as response:
            assert (response.status, await response.read()) == (200, whole)
        async with session.get(url, headers={"Range": f"bytes={len(whole)}-"}) as response:
            assert response.status == 416

    run(steps)


def test_credentials_on_media_are_noticed() -> None:
    """The books count every media request that carries a key."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        url = await media_url(session, simulator)
        async with aiohttp.ClientSession() as bare, bare.get(url):
            assert simulator.books.media_credentials() == 0
        async with session.get(url):
            assert simulator.books.media_credentials() == 1

    run(steps)


def test_several_images_are_several_outputs_and_several_charges() -> None:
    """num_images: three different files, three times the price."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        url = await media_url(session, simulator, num_images=3)
        bodies = set()
        for index in range(3):
            async with session.get(url.replace("/0.png", f"/{index}.png")) as response:
                bodies.add(await response.read())
        assert len(bodies) == 3
        assert simulator.books.charged() == Decimal("0.12")

    run(steps)


def test_the_articles_weekly_list_costs_what_the_article_says() -> None:
    """0.06 an image, 0.022 and 0.03 a second."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> Decimal:
        await buy(session, simulator, model="google/imagen4-ultra/text-to-image")
        await buy(session, simulator, model=SEEDANCE, duration=10)
        await buy(session, simulator, model="google/veo3.1/text-to-video", duration=8)
        return simulator.books.charged()

    assert run(steps) == Decimal("0.52")


def test_the_books_outlive_the_process(tmp_path: Path) -> None:
    """Opened again, predictions are known, go on by the wall clock, and are counted."""

    async def first(session: aiohttp.ClientSession, simulator: Simulator) -> str:
        for _ in range(3):
            answer = await buy(session, simulator)
        return str(answer["data"]["id"])

    async def second(session: aiohttp.ClientSession, simulator: Simulator) -> str:
        url = f"{simulator.base_url}/model/prediction/{prediction}"
        return str((await ask(session, "GET", url))[1]["data"]["status"])

    slow = {"generation_s": (0.1, 0.1), "speed": 1.0, "books": tmp_path / "books"}
    prediction = run(first, **slow)
    books = Books(tmp_path / "books")
    assert (len(books.predictions()), books.peak_in_flight()) == (3, 3)
    books.close()
    assert run(second, **slow) in ("processing", "completed")
    later = Books(tmp_path / "books", clock=lambda: 4e9)
    assert later.charged() == Decimal("0.12")
    assert later.polls() == 1


def test_the_same_seed_makes_the_same_predictions() -> None:
    """Ids and outcomes are drawn from the seed."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> list[Any]:
        for _ in range(20):
            await buy(session, simulator)
        return [(p.id, p.outcome) for p in simulator.books.predictions()]

    faults = Faults(failed=0.5)
    assert run(steps, faults=faults) == run(steps, faults=faults)
    assert run(steps, faults=faults) != run(steps, faults=faults, seed=1)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1024, 1024)),
        ({"width": 2048, "height": 2048}, (2048, 2048)),
        ({"size": "640*480"}, (640, 480)),
        ({"size": "640x480"}, (640, 480)),
        ({"aspect_ratio": "16:9"}, (1365, 768)),
        ({"width": 99999, "height": 1}, (4096, 64)),
        ({"width": "wide"}, (1024, 1024)),
    ],
)
def test_pictures_have_the_asked_size(fields: dict[str, Any], size: tuple[int, int]) -> None:
    """By width and height, by size, or by ratio; nonsense gets the default."""
    body = {"model": FLUX, "prompt": "mug", **fields}
    assert picture_size(body) == size
    with Image.open(io.BytesIO(draw_picture(body, 0, 1))) as image:
        assert image.size == size


def test_chinese_is_drawn_and_what_no_font_has_is_marked() -> None:
    """No empty boxes: every Chinese character has its own glyph, an emoji becomes a mark."""
    assert drawable("白瓷杯 Mug") == "白瓷杯 Mug"
    assert drawable("杯🎬") == f"杯{MISSING}"

    def picture(prompt: str) -> bytes:
        return draw_picture({"model": FLUX, "prompt": prompt, "width": 200, "height": 200}, 0, 1)

    def ink(prompt: str) -> bytes:
        with Image.open(io.BytesIO(picture(prompt))) as image:
            return image.tobytes()

    assert len({ink(character) for character in "白瓷杯豪华科技"}) == 7
    assert picture("白瓷杯") == picture("白瓷杯")


@pytest.mark.parametrize("prompt", ["", " ", "字" * 5000, "x" * 3000, "a\nb\tc", "\u202e\x00"])
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    """Empty, endless, with control characters: always a picture."""
    body = {"model": FLUX, "prompt": prompt, "width": 120, "height": 90}
    with Image.open(io.BytesIO(draw_picture(body, 0, 1))) as image:
        image.load()


@pytest.mark.parametrize(
    ("fields", "size", "seconds"),
    [
        ({"duration": 3, "resolution": "480p"}, (854, 480), 3.0),
        ({"duration": 4.5, "resolution": "720p"}, (1280, 720), 4.5),
        ({"duration": -1, "resolution": "480p", "aspect_ratio": "9:16"}, (480, 852), 5.0),
        ({"resolution": "480p", "aspect_ratio": "1:1"}, (480, 480), 5.0),
        ({"duration": 1}, (1920, 1080), 1.0),
    ],
)
def test_clips_are_h264_of_the_asked_size_and_length(
    fields: dict[str, Any], size: tuple[int, int], seconds: float
) -> None:
    """Any player opens them: H.264, yuv420p, even sides, right duration; and they move."""
    body = {"model": SEEDANCE, "prompt": "蒸汽", **fields}
    assert clip_size(body) == size
    with av.open(io.BytesIO(draw_clip(body, 0, 1)), "r") as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height) == size
        assert container.duration == seconds * 1_000_000
        frames = [frame.to_image().tobytes() for frame in container.decode(video=0)]
    assert len(frames) == round(seconds * 2)
    assert len(set(frames)) == len(frames)


def test_fixed_bodies_are_of_the_asked_size() -> None:
    """For measuring: right first bytes, right length, nothing drawn."""

    async def steps(session: aiohttp.ClientSession, simulator: Simulator) -> None:
        async with session.get(await media_url(session, simulator)) as response:
            body = await response.read()
        assert (len(body), body[:4]) == (5000, b"\x89PNG")

    run(steps, body_bytes=5000)


@pytest.mark.parametrize("text", ["rain=0.1", "failed=much", "failed=2", "failed"])
def test_faults_that_are_none_are_named(text: str) -> None:
    """A typing error is told, with what there is."""
    with pytest.raises(UsageError, match="fault"):
        Faults.parse(text)
    assert Faults.parse(" failed=0.5, cut=1 ") == Faults(failed=0.5, cut=1.0)
