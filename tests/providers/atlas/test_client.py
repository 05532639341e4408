"""Atlas Cloud over real sockets on loopback: what leaves, what is lost, and who gets the key."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Callable

import orjson
import pytest
from aiohttp import web

from asyncpipe.errors import (
    KeyRefused,
    PollFailed,
    PredictionGone,
    ProviderError,
    Rejected,
    UsageError,
)
from asyncpipe.http import client as http
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.providers import known_prices
from asyncpipe.providers.atlas.client import AtlasCloud
from asyncpipe.providers.atlas.reader import ARTICLE
from asyncpipe.providers.base import Provider
from tests.support import ROOT
from tests.support.atlas import BOUGHT, DONE, JOB, KEY, UNAUTHORIZED, atlas, submit_error
from tests.support.servers import Respond, always, by_path, hang, noting


def test_a_submit_is_one_post_with_the_body_the_key_and_a_name() -> None:
    """The body is the job's and nothing else; the endpoint follows the type."""

    async def main() -> None:
        async with noting(always(BOUGHT)) as api, atlas(api.url) as provider:
            assert (await provider.submit(JOB)).id == "p1"
            await provider.submit(Job(model="m", prompt="p", type=JobType.VIDEO))
        assert [request.path for request in api.requests] == [
            "/api/v1/model/generateImage",
            "/api/v1/model/generateVideo",
        ]
        assert orjson.loads(api.bodies[0]) == {"model": "google/imagen4-ultra", "prompt": "一只猫"}
        headers = api.requests[0].headers
        assert headers["Authorization"] == f"Bearer {KEY}"
        assert headers["User-Agent"] == http.USER_AGENT
        assert headers["Content-Type"] == "application/json"

    asyncio.run(main())


def test_the_user_agent_names_this_version() -> None:
    """The version sent is the version packaged."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"asyncpipe/{project['project']['version']}" == http.USER_AGENT


def test_a_poll_reads_the_prediction_and_keeps_its_id_and_route() -> None:
    """Whatever id the answer names, the prediction keeps the one it is known by."""

    async def main() -> None:
        async with noting(always(DONE)) as api, atlas(api.url) as provider:
            answer = await provider.poll("other", route="canonical")
        assert (answer.id, answer.route, answer.outputs) == (
            "other", "canonical", ("https://h/a.png",)
        )  # fmt: skip
        assert api.requests[0].path == "/api/v1/model/prediction/other"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a/b", "/api/v1/model/prediction/a%2Fb"),
        ("../../x", None),
        ("..", None),
        (".", None),
        ("", None),
        ("a\\..\\b", None),
        ("%2e%2e", "/api/v1/model/prediction/%252e%252e"),
        ("a?b#c", "/api/v1/model/prediction/a%3Fb%23c"),
        ("a\r\nX: y", "/api/v1/model/prediction/a%0D%0AX%3A%20y"),
        ("预", "/api/v1/model/prediction/%E9%A2%84"),
        ("\ud800", "/api/v1/model/prediction/%3F"),
    ],
)
def test_an_id_reaches_its_own_path_only(name: str, path: str | None) -> None:
    """Ids are one encoded segment; what servers would resolve is never sent."""

    async def main() -> None:
        async with noting(always(DONE)) as api, atlas(api.url) as provider:
            if path is None:
                with pytest.raises(PredictionGone):
                    await provider.poll(name)
                assert api.requests == []
            else:
                await provider.poll(name)
                assert [request.raw_path for request in api.requests] == [path]

    asyncio.run(main())


@pytest.mark.parametrize("spell", [str, str.upper, lambda key: key.replace("Z", "%5a")])
def test_a_header_that_repeats_the_key_is_not_kept(spell: Callable[[str], str]) -> None:
    """Beside a body that holds nothing of it, however it is spelled."""
    key = "Zk7qV9xPmW3tR8yLd2sHf6jNb5"

    async def main() -> None:
        respond = always(BOUGHT, 200, **{"X-Request-ID": f"t-{spell(key)}"})
        async with noting(respond) as api, AtlasCloud(key, base_url=api.url) as provider:
            assert (await provider.submit(JOB)).request_id == "t-[key]"

    asyncio.run(main())


def test_the_key_is_taken_out_of_answers() -> None:
    """An API that repeats the key in its error does not get it into our messages."""

    async def main() -> None:
        key = KEY.replace("apikey-", "key0")  # not of the form that is recognised anywhere
        text = f'{{"code":400,"msg":"bad header {key}"}}'.encode()
        async with noting(always(text, 400)) as api, AtlasCloud(key, base_url=api.url) as provider:
            error = await submit_error(provider)
        assert "bad header" in str(error)
        assert key not in str(error)

    asyncio.run(main())


def test_a_body_json_cannot_hold_is_rejected_unsent() -> None:
    """Such a job is refused for good, before anything leaves."""

    async def main() -> None:
        async with noting(always(BOUGHT)) as api, atlas(api.url) as provider:
            with pytest.raises(Rejected):
                await provider.submit(Job(model="a", prompt="\ud800", type=JobType.IMAGE))
            with pytest.raises(Rejected):
                await provider.submit(
                    Job(model="a", prompt="p", type=JobType.IMAGE, params={"seed": object()})
                )
            assert api.requests == []

    asyncio.run(main())


def test_cancelling_is_not_an_answer() -> None:
    """Cancellation passes through as it is."""

    async def main() -> None:
        arrived = asyncio.Event()

        async def respond(request: web.BaseRequest) -> web.StreamResponse:
            arrived.set()
            return await hang(request)

        async with noting(respond) as api, atlas(api.url) as provider:
            submitting = asyncio.ensure_future(provider.submit(JOB))
            await arrived.wait()
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting

    asyncio.run(main())


def test_entered_twice_the_last_exit_closes_and_it_opens_again() -> None:
    """One provider may serve two pipelines, and a later event loop."""

    async def main() -> None:
        async with noting(always(BOUGHT)) as api:
            provider = atlas(api.url)
            for _ in range(2):
                async with provider:
                    async with provider:
                        await provider.submit(JOB)
                    await provider.submit(JOB)
                with pytest.raises(RuntimeError, match="async with"):
                    await provider.submit(JOB)

    asyncio.run(main())


GONE = (404, b'{"code":404,"msg":"not found"}')
REFUSED = (401, UNAUTHORIZED)
ANSWERED = (200, DONE)


def article_paths(article: tuple[int, bytes], canonical: tuple[int, bytes]) -> Respond:
    return by_path({"/model/prediction/p1/get": article, "/model/prediction/p1": canonical})


@pytest.mark.parametrize("status", [400, 401, 404, 405, 410])
def test_the_articles_route_falls_back_to_the_canonical_path(status: int) -> None:
    """In the same poll; the path that answered is asked first from then on."""

    async def main() -> None:
        respond = article_paths((status, b""), ANSWERED)
        async with noting(respond) as api, atlas(api.url) as provider:
            assert (await provider.poll("p1", route=ARTICLE)).outputs
            await provider.poll("p1", route=ARTICLE)
        paths = [request.path.removeprefix("/api/v1/model/prediction") for request in api.requests]
        assert paths == ["/p1/get", "/p1", "/p1"]

    asyncio.run(main())


def test_the_articles_path_alone_is_enough() -> None:
    """Where it answers, the canonical path is not asked."""

    async def main() -> None:
        async with noting(article_paths(ANSWERED, REFUSED)) as api, atlas(api.url) as provider:
            assert (await provider.poll("p1", route=ARTICLE)).route == ARTICLE
            assert len(api.requests) == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    ("article", "canonical", "kind"),
    [
        (REFUSED, REFUSED, PollFailed),
        (REFUSED, GONE, PredictionGone),
        (GONE, REFUSED, PredictionGone),
        (GONE, (502, b""), PollFailed),
        ((502, b""), ANSWERED, PollFailed),
        ((405, b""), REFUSED, PollFailed),
    ],
)
def test_a_401_while_probing_does_not_stop_the_run(
    article: tuple[int, bytes], canonical: tuple[int, bytes], kind: type[ProviderError]
) -> None:
    """The API answers 401 to paths it does not have, so it says nothing about the key."""

    async def main() -> None:
        async with noting(article_paths(article, canonical)) as api, atlas(api.url) as provider:
            with pytest.raises(kind) as caught:
                await provider.poll("p1", route=ARTICLE)
            assert type(caught.value) is kind

    asyncio.run(main())


def test_a_401_where_a_path_has_answered_is_about_the_key() -> None:
    """So it is on the canonical route, at once."""

    async def main() -> None:
        async with noting(article_paths(ANSWERED, REFUSED)) as api, atlas(api.url) as provider:
            await provider.poll("p1", route=ARTICLE)
            api.respond = article_paths(REFUSED, REFUSED)
            with pytest.raises(KeyRefused):
                await provider.poll("p1", route=ARTICLE)
            with pytest.raises(KeyRefused):
                await provider.poll("p1")

    asyncio.run(main())


def test_the_key_comes_from_the_argument_or_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, official variable, article's variable; spaces around do not count."""

    async def sent(provider: AtlasCloud) -> str:
        async with noting(always(BOUGHT)) as api:
            provider._http._base_url = f"{api.url}/api/v1"
            async with provider:
                await provider.submit(JOB)
            return api.requests[0].headers["Authorization"]

    monkeypatch.setenv("ATLAS_CLOUD_API_KEY", "article\n")
    assert asyncio.run(sent(AtlasCloud())) == "Bearer article"
    monkeypatch.setenv("ATLASCLOUD_API_KEY", " official ")
    assert asyncio.run(sent(AtlasCloud())) == "Bearer official"
    assert asyncio.run(sent(AtlasCloud("argument"))) == "Bearer argument"


def test_a_missing_key_names_the_ways_on() -> None:
    """Both variables and the simulator."""
    with pytest.raises(UsageError) as caught:
        AtlasCloud()
    for way in ("ATLASCLOUD_API_KEY", "ATLAS_CLOUD_API_KEY", "--simulate"):
        assert way in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "two\nlines", "two\r\nX-Header: 1", "ключ", "k\x00"])
def test_an_impossible_key_is_refused_without_showing_it(key: str) -> None:
    """Nothing is sent, and nothing of the key is in the message."""
    with pytest.raises(UsageError) as caught:
        AtlasCloud(key)
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    ("base_url", "origin", "path"),
    [
        (None, "https://api.atlascloud.ai", "/api/v1"),
        ("https://API.AtlasCloud.ai", "https://api.atlascloud.ai", "/api/v1"),
        (" https://api.atlascloud.ai/api/v1/ ", "https://api.atlascloud.ai", "/api/v1"),
        ("https://api.atlascloud.ai:443/api", "https://api.atlascloud.ai", "/api/v1"),
        ("https://gate.example:8443/atlas", "https://gate.example:8443", "/atlas/api/v1"),
        ("http://127.8.8.8:80", "http://127.8.8.8", "/api/v1"),
        ("http://localhost:8080/api/v1", "http://localhost:8080", "/api/v1"),
        ("http://[::1]:8080", "http://[::1]:8080", "/api/v1"),
    ],
)
def test_the_base_url_is_taken_with_and_without_its_path(
    base_url: str | None, origin: str, path: str
) -> None:
    """And the origin, which a folder belongs to, is one spelling."""
    provider = AtlasCloud(KEY, base_url=base_url)
    assert provider.origin == origin
    assert provider._http._base_url == origin + path
    assert repr(provider) == f"AtlasCloud({origin})"


@pytest.mark.parametrize(
    "base_url",
    [
        "api.atlascloud.ai", "http://api.atlascloud.ai", "ftp://127.0.0.1", "https://",
        "https://user:secret@api.atlascloud.ai", "https://secret@api.atlascloud.ai",
        "http://127.0.0.1.example.com", "https://h:99999", "https://[::", "https://h/?x=secret",
        "https://h/#x", "https://h/a b",
    ],
)  # fmt: skip
def test_a_base_url_that_would_expose_the_key_is_refused(base_url: str) -> None:
    """Only https, or loopback; no user or password; nothing of them in the message."""
    with pytest.raises(UsageError) as caught:
        AtlasCloud(KEY, base_url=base_url)
    assert "secret" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_base_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument wins."""
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", "https://gate.example")
    assert AtlasCloud(KEY).origin == "https://gate.example"
    assert AtlasCloud(KEY, base_url="https://h").origin == "https://h"


@pytest.mark.parametrize(
    ("base_url", "known"),
    [
        (None, True),
        ("https://API.AtlasCloud.ai:443/api", True),
        ("https://gate.example/atlas", False),
        ("https://api.atlascloud.ai.example", False),
        ("https://api.atlascloud.ai:8443", False),
        ("http://127.0.0.1:8080", True),  # stands in for it
    ],
)
def test_the_built_in_prices_hold_at_its_own_address_only(
    base_url: str | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others charge otherwise; whether asked of the provider or before there is one."""
    monkeypatch.delenv("ATLASCLOUD_BASE_URL", raising=False)
    assert (AtlasCloud(KEY, base_url=base_url).price_book is not None) is known
    assert (known_prices(base_url=base_url) is not None) is known
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", "https://gate.example")
    assert (AtlasCloud(KEY).price_book, known_prices()) == (None, None)
    # The simulator charges by them.
    assert AtlasCloud(base_url="http://127.0.0.1:8080", simulated=True).price_book is not None
    assert known_prices(simulated=True) is not None


def test_a_simulator_gets_no_real_key_and_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its folder never counts as done for a real run, and the environment is not read for it."""
    monkeypatch.setenv("ATLASCLOUD_API_KEY", KEY)
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", "https://gate.example")

    async def main() -> None:
        async with noting(always(BOUGHT)) as api:
            async with AtlasCloud(base_url=api.url, simulated=True) as provider:
                assert (provider.origin, provider.simulated) == ("simulator", True)
                await provider.submit(JOB)
            assert KEY not in api.requests[0].headers["Authorization"]

    asyncio.run(main())
    for base_url in (None, "https://api.atlascloud.ai"):
        with pytest.raises(UsageError):
            AtlasCloud(base_url=base_url, simulated=True)


def test_it_is_a_provider() -> None:
    """The protocol holds, by type and by name."""
    provider: Provider = AtlasCloud(KEY)
    assert provider.name == "atlas"
    assert not provider.simulated
