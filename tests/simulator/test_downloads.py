"""Faults of downloads: what arrives, how often, and that the file comes in the end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from asyncpipe.simulator import server
from asyncpipe.simulator.faults import Faults
from tests.support.simulator_client import KEY, PNG, Client, drain, run

BROKEN = ("cut", "empty_media", "html_media", "wrong_bytes", "slow")


async def is_whole(client: Client, url: str, expected: bytes = b"") -> bool:
    """Whether a download brings a picture, and the expected one if one is."""
    try:
        reply = await client.get(url)
    except aiohttp.ClientError:
        return False
    whole = reply.status == 200 and reply.body.startswith(PNG)
    return whole and expected in (b"", reply.body)


def test_cut_downloads_break_off_with_a_length_and_chunked() -> None:
    """Half of the body at most, then no more; the second download is whole."""

    async def steps(client: Client) -> None:
        lengths = set()
        for _ in range(12):
            url, read = await client.output(), list[bytes]()
            async with client.session.get(url) as response:
                lengths.add(response.content_length)
                with pytest.raises(aiohttp.ClientPayloadError):
                    await drain(response, read)
            whole = (await client.get(url)).body
            assert whole.startswith(b"".join(read))
            assert sum(map(len, read)) == len(whole) // 2
        assert lengths == {None, len(whole)}

    run(steps, faults=Faults(cut=1.0), body_bytes=20_000)


def test_a_cut_download_goes_on_where_it_broke_off() -> None:
    """The rest, for Range with the ETag of the half."""

    async def steps(client: Client) -> None:
        url, read = await client.output(), list[bytes]()
        async with client.session.get(url) as response:
            etag = response.headers["ETag"]
            with pytest.raises(aiohttp.ClientPayloadError):
                await drain(response, read)
        have = b"".join(read)
        headers = {"Range": f"bytes={len(have)}-", "If-Range": etag}
        rest = await client.get(url, headers=headers)
        assert (rest.status, have + rest.body) == (206, (await client.get(url)).body)

    run(steps, faults=Faults(cut=1.0), body_bytes=20_000)


@pytest.mark.parametrize(
    ("fault", "content_type", "begins", "size"),
    [
        ("empty_media", "image/png", b"", 0),
        ("html_media", "text/html; charset=utf-8", b"<!DOCTYPE html>", None),
        ("wrong_bytes", "image/png", b"\0\1\2\3", 4100),
    ],
)
def test_bodies_that_are_no_media(
    fault: str, content_type: str, begins: bytes, size: int | None
) -> None:
    """HTTP 200 with something else; the second download is the picture."""

    async def steps(client: Client) -> None:
        url = await client.output()
        reply = await client.get(url)
        assert (reply.status, reply.headers["Content-Type"]) == (200, content_type)
        assert reply.body.startswith(begins)
        assert size in (None, len(reply.body))
        assert await is_whole(client, url)

    run(steps, faults=Faults(**{fault: 1.0}))


def test_a_slow_download_trickles_and_breaks_off() -> None:
    """A few bytes a second for hang_s; the second one is quick."""

    async def steps(client: Client) -> None:
        url, read, started = await client.output(), list[bytes](), time.monotonic()
        async with client.session.get(url) as response:
            assert response.content_length == 20_000
            with pytest.raises(aiohttp.ClientPayloadError):
                await drain(response, read)
        took_s = time.monotonic() - started
        assert 0.9 <= took_s < 10
        assert 2 <= sum(map(len, read)) <= 8 * took_s + 8
        assert await is_whole(client, url)

    run(steps, faults=Faults(slow=1.0), hang_s=1.0, body_bytes=20_000)


def test_an_expired_url_is_told_anew_after_it_was_tried() -> None:
    """403 or 404 for as long as one asks there; another poll tells a URL that works."""

    async def steps(client: Client) -> set[int]:
        statuses = set()
        for _ in range(12):
            prediction = await client.buy()
            old = (await client.poll(prediction)).data["outputs"][0]
            assert (await client.poll(prediction)).data["outputs"] == [old]
            statuses |= {(await client.get(old)).status for _ in range(3)}
            (fresh,) = (await client.poll(prediction)).data["outputs"]
            assert (fresh != old, urlsplit(fresh).path) == (True, urlsplit(old).path)
            assert await is_whole(client, fresh)
            assert (await client.get(old)).status in (403, 404)
        return statuses

    assert run(steps, faults=Faults(expired=1.0)) == {403, 404}


def test_a_redirect_leads_to_another_host_and_port() -> None:
    """The second site counts keys and cookies that came along; without, it serves the picture."""

    async def steps(client: Client) -> None:
        url = await client.output()
        reply = await client.get(url)
        there = urlsplit(reply.headers["Location"])
        assert (reply.status, there.hostname, there.path) == (302, "localhost", urlsplit(url).path)
        assert there.port != urlsplit(url).port
        assert await is_whole(client, there.geturl())
        assert client.books.media_credentials() == 0
        await client.get(there.geturl(), headers=KEY)
        await client.get(there.geturl(), headers={"Cookie": "session=1"})
        assert client.books.media_credentials() == 2

    run(steps, faults=Faults(redirected=1.0))


def test_untyped_media_have_neither_type_nor_extension() -> None:
    """octet-stream with an attachment disposition, and the picture's own first bytes."""

    async def steps(client: Client) -> None:
        url = await client.output()
        assert urlsplit(url).path.endswith("/0")
        reply = await client.get(url)
        assert reply.headers["Content-Type"] == "application/octet-stream"
        assert reply.headers["Content-Disposition"] == "attachment"
        assert reply.body.startswith(PNG)

    run(steps, faults=Faults(untyped=1.0))


def test_a_server_without_ranges_sends_the_whole() -> None:
    """200 and all of it, whatever was asked for, and no promise of ranges."""

    async def steps(client: Client) -> None:
        reply = await client.get(await client.output(), headers={"Range": "bytes=100-"})
        assert (reply.status, len(reply.body)) == (200, 5000)
        assert "Accept-Ranges" not in reply.headers

    run(steps, faults=Faults(no_range=1.0), body_bytes=5000)


def test_lost_media_stay_lost() -> None:
    """404 for ever, and the prediction still says completed and keeps its money."""

    async def steps(client: Client) -> None:
        prediction = await client.buy()
        for _ in range(4):
            answer = (await client.poll(prediction)).data
            assert answer["status"] == "completed"
            assert (await client.get(answer["outputs"][0])).status == 404
        assert client.books.charged() > 0

    run(steps, faults=Faults(lost_media=1.0))


def test_an_endless_download_never_ends() -> None:
    """It begins like the picture and goes on until the client goes; the simulator closes then."""

    async def steps(client: Client) -> None:
        size, head = 0, b""
        async with client.session.get(await client.output()) as response:
            assert response.content_length is None
            async for chunk in response.content.iter_any():
                head, size = head or chunk, size + len(chunk)
                if size > 8 * 1024 * 1024:
                    break
        assert head.startswith(PNG)

    started = time.monotonic()
    run(steps, faults=Faults(endless=1.0))
    assert time.monotonic() - started < 20


def test_only_the_first_downloads_of_an_output_are_broken() -> None:
    """Every fault there is: one try at the expired URL and two broken downloads, no more."""

    async def steps(client: Client) -> None:
        prediction = await client.buy(num_images=2)
        for index in range(2):
            outcomes = []
            for _ in range(6):
                url = (await client.poll(prediction)).data["outputs"][index]
                reply = await client.get(url)
                if reply.status == 302:
                    url = reply.headers["Location"]
                outcomes.append(reply.status == 302 and await is_whole(client, url))
            assert outcomes == [False] * 3 + [True] * 3

    media = (*BROKEN, "expired", "redirected", "no_range")
    run(steps, faults=Faults(**dict.fromkeys(media, 1.0)), hang_s=0.05)


def test_every_kind_of_broken_download_has_its_turn() -> None:
    """Which two of the five an output gets is drawn for each."""

    async def steps(client: Client) -> set[str]:
        seen = set()
        for _ in range(20):
            url = await client.output()
            for _ in range(2):
                try:
                    reply = await client.get(url)
                except aiohttp.ClientError:
                    seen.add("broke off")
                else:
                    seen.add(reply.body[:4].decode("latin-1"))
        return seen

    faults = Faults(**dict.fromkeys(BROKEN, 1.0))
    assert run(steps, faults=faults, hang_s=0.05) == {"broke off", "", "<!DO", "\0\1\2\3"}


def test_downloads_are_counted_beyond_the_process(tmp_path: Path) -> None:
    """Broken before the kill, whole after it; an expired URL stays expired, its successor good."""
    faults = Faults(cut=1.0, expired=1.0)

    def life(prediction: str | None) -> tuple[str, list[bool]]:
        async def steps(client: Client) -> tuple[str, list[bool]]:
            known, outcomes = prediction or await client.buy(), []
            for _ in range(2):
                url = (await client.poll(known)).data["outputs"][0]
                outcomes.append(await is_whole(client, url))
            return known, outcomes

        found: tuple[str, list[bool]] = run(steps, faults=faults, books=tmp_path / "books")
        return found

    prediction, first = life(None)
    _, second = life(prediction)
    assert (first, second) == ([False, False], [True, True])


def test_slow_and_endless_downloads_do_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator closes while they run."""

    async def closing(client: Client) -> float:
        url = await client.output()

        begun = asyncio.Event()

        async def read() -> Any:
            async with client.session.get(url) as response:
                begun.set()
                await drain(response, deque(maxlen=1))  # an endless body is not kept

        reading = asyncio.create_task(read())
        await begun.wait()
        started = time.monotonic()
        await client.simulator.__aexit__(None, None, None)
        took_s = time.monotonic() - started
        with pytest.raises(aiohttp.ClientError):
            await reading
        return took_s

    monkeypatch.setattr(server, "SHUTDOWN_S", 60.0)  # so long would aiohttp wait
    assert run(closing, faults=Faults(slow=1.0), hang_s=600.0) < 30
    monkeypatch.undo()
    assert run(closing, faults=Faults(endless=1.0)) < 30
