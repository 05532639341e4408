"""Replicate over real sockets on loopback: what leaves, where to, and who gets the key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from asyncpipe.errors import PredictionGone, ProviderError, Rejected, SubmitUnknown, UsageError
from asyncpipe.jobs import Job, JobType, now
from asyncpipe.providers import (
    HasAccountId,
    HasCancel,
    HasHistory,
    Provider,
    Uploader,
    connect,
    has_key,
    key_variable,
    media_s_of,
    retention_of,
)
from asyncpipe.providers.replicate import Replicate
from tests.support.servers import PNG, Api, Respond, always, noting

KEY = "r8_0123456789abcdefABCDEF"
RUNS = {"id": "p1", "status": "starting", "output": None, "error": None}
TAKEN = orjson.dumps(RUNS)


def job(model: str = "google/imagen-4", **params: Any) -> Job:
    return Job(model=model, prompt="一只猫", type=JobType.IMAGE, params=params)


@asynccontextmanager
async def replicate(respond: Respond) -> AsyncIterator[tuple[Api, Replicate]]:
    async with noting(respond) as api, Replicate(KEY, base_url=api.url) as provider:
        yield api, provider


def test_a_submit_is_one_post_with_the_input_and_the_key() -> None:
    """It is not held open (no ``Prefer``), and says nothing that the job does not."""

    async def main() -> None:
        async with replicate(always(TAKEN, status=201)) as (api, provider):
            assert (await provider.submit(job(seed=7))).id == "p1"
            await provider.submit(job("a/b:" + "0f" * 32))
            await provider.submit(job("deployments/acme/mugs"))
        assert api.lines == [
            "POST /v1/models/google/imagen-4/predictions",
            "POST /v1/predictions",
            "POST /v1/deployments/acme/mugs/predictions",
        ]
        assert [orjson.loads(body) for body in api.bodies] == [
            {"input": {"prompt": "一只猫", "seed": 7}},
            {"version": "a/b:" + "0f" * 32, "input": {"prompt": "一只猫"}},
            {"input": {"prompt": "一只猫"}},
        ]
        assert api.requests[0].headers["Authorization"] == f"Bearer {KEY}"
        assert "Prefer" not in api.requests[0].headers

    asyncio.run(main())


def test_what_is_no_model_is_not_sent() -> None:
    async def main() -> None:
        async with replicate(always(TAKEN)) as (api, provider):
            with pytest.raises(Rejected, match="owner/name"):
                await provider.submit(job("google/imagen4-ultra/text-to-image"))
            assert api.lines == []

    asyncio.run(main())


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_submit_is_never_sent_again(status: int) -> None:
    """Whatever broke: what was sent may have been bought."""

    async def main() -> None:
        async with replicate(always(b"{}", status=status)) as (api, provider):
            with pytest.raises(SubmitUnknown):
                await provider.submit(job())
            assert len(api.lines) == 1

    asyncio.run(main())


def test_a_poll_a_cancel_and_a_question_for_the_account_have_their_paths() -> None:
    async def main() -> None:
        said = orjson.dumps({**RUNS, "id": "a/b", "username": "acme"})
        async with replicate(always(said)) as (api, provider):
            assert (await provider.poll("a/b")).id == "a/b"
            await provider.cancel("a/b")
            assert await provider.account_id() == "acme"
            for name in ("..", ""):
                with pytest.raises(PredictionGone):
                    await provider.poll(name)
        assert api.lines == [
            "GET /v1/predictions/a%2Fb",
            "POST /v1/predictions/a%2Fb/cancel",
            "GET /v1/account",
        ]

    asyncio.run(main())


def test_a_file_goes_as_content_and_comes_back_as_a_url(tmp_path: Path) -> None:
    path = tmp_path / "mug.png"
    path.write_bytes(PNG)
    told = orjson.dumps({"id": "f", "urls": {"get": "https://api.replicate.com/v1/files/f"}})

    async def main() -> None:
        async with replicate(always(told, status=201)) as (api, provider):
            assert await provider.upload(path) == "https://api.replicate.com/v1/files/f"
        assert api.lines == ["POST /v1/files"]
        assert b'name="content"; filename="input.png"' in api.bodies[0]
        assert PNG in api.bodies[0]

    asyncio.run(main())


def test_the_key_is_taken_out_of_whatever_comes_back() -> None:
    async def main() -> None:
        said = orjson.dumps({"detail": f"no account has {KEY}", "status": 401})
        async with replicate(always(said, status=401)) as (_, provider):
            with pytest.raises(ProviderError) as caught:
                await provider.submit(job())
        assert KEY not in str(caught.value)
        assert "[key]" in str(caught.value)

    asyncio.run(main())


def test_the_list_is_asked_for_by_its_own_path() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        following = None if request.query_string else "https://elsewhere.example/v9?cursor=c1"
        return web.json_response({"next": following, "previous": None, "results": []})

    async def main() -> None:
        async with replicate(answer) as (api, provider):
            assert [each async for each in provider.history(now(), now())] == []
        assert api.lines == ["GET /v1/predictions", "GET /v1/predictions?cursor=c1"]
        assert {each.headers["Authorization"] for each in api.requests} == {f"Bearer {KEY}"}

    asyncio.run(main())


def test_it_is_found_by_its_name_and_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_variable("replicate") == "REPLICATE_API_TOKEN"
    with pytest.raises(UsageError, match="REPLICATE_API_TOKEN"):
        connect("replicate")
    assert not has_key("replicate")
    monkeypatch.setenv("REPLICATE_API_TOKEN", KEY)
    assert has_key("replicate")
    provider = connect("replicate")
    assert (provider.name, provider.origin) == ("replicate", "https://api.replicate.com")
    assert isinstance(provider, Provider)
    assert KEY not in repr(provider)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("https://api.replicate.com", "/v1"),
        ("https://api.replicate.com/v1/", "/v1"),
        ("https://proxy.example/replicate", "/replicate/v1"),
    ],
)
def test_its_address_may_lack_its_version(given: str, base: str) -> None:
    assert Replicate(KEY, base_url=given)._base.path == base


def test_what_it_can_do_besides() -> None:
    """An hour after its end nothing is left of a prediction."""
    provider = Replicate(KEY)
    for capability in (Uploader, HasHistory, HasCancel, HasAccountId):
        assert isinstance(provider, capability)
    assert (media_s_of(provider), retention_of(provider)) == (3600.0, 3600.0)
