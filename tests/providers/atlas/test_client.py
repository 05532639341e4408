"""Atlas Cloud over real sockets on loopback: what leaves, what is lost, and who gets the key."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import tomllib
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from asyncpipe.errors import (
    KeyRefused,
    NotSent,
    PollFailed,
    PredictionGone,
    ProviderError,
    Rejected,
    SubmitUnknown,
    UsageError,
)
from asyncpipe.http import client as fates
from asyncpipe.http import client as http
from asyncpipe.http.client import HttpClient, Timeouts
from asyncpipe.http.hosts import proxy_for
from asyncpipe.jobs.job import Job, JobType
from asyncpipe.providers.atlas.client import AtlasCloud
from asyncpipe.providers.atlas.reader import ARTICLE
from asyncpipe.providers.base import Provider
from tests.support import ROOT

KEY = "apikey-0123456789abcdef"
JOB = Job(model="google/imagen4-ultra", prompt="一只猫", name="cat", type=JobType.IMAGE)
BOUGHT = b'{"code":200,"data":{"id":"p1","status":"processing"}}'
DONE = b'{"code":200,"data":{"id":"p1","status":"completed","outputs":["https://h/a.png"]}}'
UNAUTHORIZED = b'{"code":401,"msg":"unauthorized","request_id":"t","data":null}'

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


class Api:
    """A server that notes every request and answers what it is told."""

    def __init__(self, respond: Respond) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.sockets: list[object] = []
        self.respond = respond
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.sockets.append(request.transport)
        return await self.respond(request)


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[Api]:
    api = Api(respond)
    app = web.Application()
    app.router.add_route("*", r"/{path:[\s\S]*}", api.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


def always(body: bytes, status: int = 200, **headers: str) -> Respond:
    async def respond(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return respond


def by_path(answers: dict[str, tuple[int, bytes]]) -> Respond:
    async def respond(request: web.Request) -> web.StreamResponse:
        status, body = answers[request.path.rpartition("/api/v1")[2]]
        return web.Response(body=body, status=status)

    return respond


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A raw server; ``serve`` gets each connection, which is closed afterwards."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"),
        0,
    )
    return head + await reader.readexactly(length)


def whole(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def atlas(url: str, **timeouts: float) -> AtlasCloud:
    return AtlasCloud(KEY, base_url=url, timeouts=Timeouts(**timeouts))


def check_clean(error: BaseException) -> None:
    """No key in anything a log or a traceback could show, and no foreign exception on it."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error.__dict__)
    assert KEY not in shown


async def submit_error(provider: AtlasCloud) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.submit(JOB)
    check_clean(caught.value)
    return caught.value


async def poll_error(provider: AtlasCloud) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.poll("p1")
    check_clean(caught.value)
    return caught.value


def test_a_submit_is_one_post_with_the_body_the_key_and_a_name() -> None:
    """The body is the job's and nothing else; the endpoint follows the type."""

    async def main() -> None:
        async with serving(always(BOUGHT)) as api, atlas(api.url) as provider:
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

    run(main)


def test_the_user_agent_names_this_version() -> None:
    """The version sent is the version packaged."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"asyncpipe/{project['project']['version']}" == http.USER_AGENT


def test_a_poll_reads_the_prediction_and_keeps_its_id_and_route() -> None:
    """Whatever id the answer names, the prediction keeps the one it is known by."""

    async def main() -> None:
        async with serving(always(DONE)) as api, atlas(api.url) as provider:
            answer = await provider.poll("other", route="canonical")
        assert (answer.id, answer.route, answer.outputs) == (
            "other", "canonical", ("https://h/a.png",)
        )  # fmt: skip
        assert api.requests[0].path == "/api/v1/model/prediction/other"

    run(main)


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
        async with serving(always(DONE)) as api, atlas(api.url) as provider:
            if path is None:
                with pytest.raises(PredictionGone):
                    await provider.poll(name)
                assert api.requests == []
            else:
                await provider.poll(name)
                assert [request.raw_path for request in api.requests] == [path]

    run(main)


def test_a_connection_reset_after_the_submit_is_unknown_and_not_repeated() -> None:
    """Sent and lost: the POST went out once, and may have been bought."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))

    async def main() -> None:
        async with listening(serve) as port, atlas(f"http://127.0.0.1:{port}") as provider:
            assert type(await submit_error(provider)) is SubmitUnknown
            assert len(seen) == 1
            assert type(await poll_error(provider)) is PollFailed

    run(main)


def test_an_answer_that_breaks_off_is_unknown() -> None:
    """Half an answer is no answer, even if its first half says 200."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(whole(BOUGHT)[:-5])
        await writer.drain()

    async def main() -> None:
        async with listening(serve) as port, atlas(f"http://127.0.0.1:{port}") as provider:
            assert type(await submit_error(provider)) is SubmitUnknown
            assert type(await poll_error(provider)) is PollFailed

    run(main)


def test_an_answer_that_is_not_http_is_unknown() -> None:
    """Garbage where the status line should be."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        await writer.drain()

    async def main() -> None:
        async with listening(serve) as port, atlas(f"http://127.0.0.1:{port}") as provider:
            assert type(await submit_error(provider)) is SubmitUnknown
            assert type(await poll_error(provider)) is PollFailed

    run(main)


def test_a_dead_reused_connection_costs_a_submit_its_answer_but_a_poll_nothing() -> None:
    """aiohttp repeats a GET on a reused connection that was reset, and never a POST."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(whole(DONE))
        await writer.drain()
        seen.append(await read_request(reader))

    async def main() -> None:
        async with listening(serve) as port, atlas(f"http://127.0.0.1:{port}") as provider:
            await provider.submit(JOB)
            assert type(await submit_error(provider)) is SubmitUnknown
            assert len(seen) == 2
            seen.clear()
            await provider.poll("p1")
            await provider.poll("p1")
            assert len(seen) == 3

    run(main)


def test_submits_reuse_a_connection_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes idle connections after seconds never costs a submit its answer."""

    async def main() -> None:
        async with serving(always(BOUGHT)) as api, atlas(api.url) as provider:
            await provider.submit(JOB)
            await provider.submit(JOB)
            later = time.monotonic() + 1.01
            monkeypatch.setattr("aiohttp.connector.monotonic", lambda: later)
            await provider.submit(JOB)
        first, second, third = api.sockets
        assert first is second
        assert third is not second

    run(main)


def test_no_answer_in_time_is_unknown() -> None:
    """A submit that hangs may be bought; a poll that hangs is polled again."""

    async def main() -> None:
        async with serving(hang) as api, atlas(api.url, submit_s=0.03, poll_s=0.03) as provider:
            error = await submit_error(provider)
            assert type(error) is SubmitUnknown
            assert "no answer came in time" in str(error)
            assert type(await poll_error(provider)) is PollFailed

    run(main)


def test_a_refused_connection_is_not_sent() -> None:
    """Nobody listens: surely nothing was bought."""

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise AssertionError

    async def main() -> None:
        async with listening(nothing) as port:
            pass
        async with atlas(f"http://127.0.0.1:{port}") as provider:
            error = await submit_error(provider)
            assert type(error) is NotSent
            assert "127.0.0.1 cannot be reached" in str(error)
            assert type(await poll_error(provider)) is PollFailed

    run(main)


def test_a_failed_tls_handshake_is_not_sent() -> None:
    """The peer does not speak TLS: the key and the job stayed here."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(5))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async def main() -> None:
        async with listening(serve) as port, atlas(f"https://127.0.0.1:{port}") as provider:
            assert type(await submit_error(provider)) is NotSent

    run(main)
    assert seen
    assert all(first[0] == 0x16 for first in seen)  # a TLS ClientHello, nothing readable


@pytest.mark.parametrize(
    ("answer", "timeouts"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 200 Connection established\r\n\r\nnot TLS", {}),
        (b"", {}),
        (None, {"connect_s": 0.03}),
        (None, {"submit_s": 0.03}),
    ],
)
def test_a_proxy_that_does_not_connect_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, answer: bytes | None, timeouts: dict[str, float]
) -> None:
    """Refused, hung up on or left waiting by the proxy: not sent, and the proxy saw no key."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        if answer is None:
            await asyncio.Event().wait()
        writer.write(answer or b"")
        await writer.drain()

    async def main() -> None:
        async with listening(serve) as port:
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{port}")
            async with atlas("https://api.atlas.invalid", **timeouts) as provider:
                error = await submit_error(provider)
                assert type(error) is NotSent
                assert "secret" not in str(error)

    run(main)
    assert len(seen) == 1
    assert seen[0].startswith(b"CONNECT api.atlas.invalid:443 ")
    assert KEY.encode() not in seen[0]


def test_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator is reached directly, whatever proxy the environment names."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")

    async def main() -> None:
        async with serving(always(BOUGHT)) as api, atlas(api.url) as provider:
            assert (await provider.submit(JOB)).id == "p1"

    run(main)


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By scheme, with NO_PROXY respected, with or without http:// before it."""
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    monkeypatch.setenv("no_proxy", "atlas.example")
    assert proxy_for("https://media.example/a.png") == "http://proxy.example:3128"
    assert proxy_for("https://api.atlas.example/x") is None
    assert proxy_for("http://media.example/a.png") is None
    assert proxy_for("https://[::1]:8/x") is None


def test_a_socks_proxy_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be used, and going around it would be worse: said on entering."""
    monkeypatch.setenv("https_proxy", "socks5h://user:secret@127.0.0.1:1080")

    async def main() -> None:
        async with atlas("https://api.atlas.invalid"):
            raise AssertionError

    with pytest.raises(UsageError) as caught:
        run(main)
    assert "socks5h" in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """The key goes to no other host; the message names it and the remedy."""

    async def main() -> None:
        async with serving(always(DONE)) as other:
            moved = always(b"", status, Location=f"{other.url}/api/v1/x")
            async with serving(moved) as api, atlas(api.url) as provider:
                error = await submit_error(provider)
                assert type(error) is Rejected
                assert "redirects to 127.0.0.1" in str(error)
                assert type(await poll_error(provider)) is PollFailed
                assert len(api.requests) == 2
            assert other.requests == []

    run(main)


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops at the limit, declared or not, and the outcome is typed."""
    monkeypatch.setattr(http, "LARGEST_ANSWER", 100_000)

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 50_000)
        return response

    async def main() -> None:
        for respond in (endless, always(b" " * 100_001)):
            async with serving(respond) as api, atlas(api.url) as provider:
                assert "larger than" in str(await submit_error(provider))
                assert type(await submit_error(provider)) is SubmitUnknown
                assert type(await poll_error(provider)) is PollFailed

    run(main)


@pytest.mark.parametrize("spell", [str, str.upper, lambda key: key.replace("Z", "%5a")])
def test_a_header_that_repeats_the_key_is_not_kept(spell: Callable[[str], str]) -> None:
    """Beside a body that holds nothing of it, however it is spelled."""
    key = "Zk7qV9xPmW3tR8yLd2sHf6jNb5"

    async def main() -> None:
        respond = always(BOUGHT, 200, **{"X-Request-ID": f"t-{spell(key)}"})
        async with serving(respond) as api, AtlasCloud(key, base_url=api.url) as provider:
            assert (await provider.submit(JOB)).request_id == "t-[key]"

    run(main)


def test_netrc_and_cookies_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A .netrc entry never replaces the key, and no cookie is kept or sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login wrong password wrong\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    async def main() -> None:
        respond = always(DONE, 200, **{"Set-Cookie": "session=1; Path=/"})
        async with serving(respond) as api, atlas(api.url) as provider:
            for _ in range(2):
                await provider.poll("p1")
                await provider.submit(JOB)
        for request in api.requests:
            assert request.headers["Authorization"] == f"Bearer {KEY}"
            assert "Cookie" not in request.headers

    run(main)


def test_the_key_is_taken_out_of_answers() -> None:
    """An API that repeats the key in its error does not get it into our messages."""

    async def main() -> None:
        key = KEY.replace("apikey-", "key0")  # not of the form that is recognised anywhere
        text = f'{{"code":400,"msg":"bad header {key}"}}'.encode()
        async with serving(always(text, 400)) as api, AtlasCloud(key, base_url=api.url) as provider:
            error = await submit_error(provider)
        assert "bad header" in str(error)
        assert key not in str(error)

    run(main)


def test_a_body_json_cannot_hold_is_rejected_unsent() -> None:
    """Such a job is refused for good, before anything leaves."""

    async def main() -> None:
        async with serving(always(BOUGHT)) as api, atlas(api.url) as provider:
            with pytest.raises(Rejected):
                await provider.submit(Job(model="a", prompt="\ud800", type=JobType.IMAGE))
            with pytest.raises(Rejected):
                await provider.submit(
                    Job(model="a", prompt="p", type=JobType.IMAGE, params={"seed": object()})
                )
            assert api.requests == []

    run(main)


def exceptions_of_aiohttp() -> list[type[Exception]]:
    found = [getattr(aiohttp, name) for name in aiohttp.client_exceptions.__all__]
    found += vars(aiohttp.client_exceptions).values()
    return [
        kind
        for kind in found
        if inspect.isclass(kind)
        and issubclass(kind, Exception)
        and kind.__module__ == "aiohttp.client_exceptions"
    ]


def test_every_exception_of_aiohttp_is_mapped() -> None:
    """A new one is decided on by name, and only what precedes sending is unsent."""
    kinds = exceptions_of_aiohttp()
    assert len(kinds) > 20
    assert {kind.__name__ for kind in kinds} - set(fates._FATES) == set()
    for kind in kinds:
        connecting = issubclass(kind, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if connecting:
            assert not fates._FATES[kind.__name__][0]


def test_an_unforeseen_exception_after_sending_is_unknown() -> None:
    """Whatever breaks once the request is on its way, the submit may have been bought."""
    for exc in (RuntimeError("x"), ValueError("x"), EOFError(), OSError(5, "x"), TimeoutError()):
        assert fates.lost(exc, started=True).sent
        assert not fates.lost(exc, started=False).sent


def test_cancelling_is_not_an_answer() -> None:
    """Cancellation passes through as it is."""

    async def main() -> None:
        arrived = asyncio.Event()

        async def respond(request: web.Request) -> web.StreamResponse:
            arrived.set()
            return await hang(request)

        async with serving(respond) as api, atlas(api.url) as provider:
            submitting = asyncio.ensure_future(provider.submit(JOB))
            await arrived.wait()
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting

    run(main)


def test_entered_twice_the_last_exit_closes_and_it_opens_again() -> None:
    """One provider may serve two pipelines, and a later event loop."""

    async def main() -> None:
        async with serving(always(BOUGHT)) as api:
            provider = atlas(api.url)
            for _ in range(2):
                async with provider:
                    async with provider:
                        await provider.submit(JOB)
                    await provider.submit(JOB)
                with pytest.raises(RuntimeError, match="async with"):
                    await provider.submit(JOB)

    run(main)


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
        async with serving(respond) as api, atlas(api.url) as provider:
            assert (await provider.poll("p1", route=ARTICLE)).outputs
            await provider.poll("p1", route=ARTICLE)
        paths = [request.path.removeprefix("/api/v1/model/prediction") for request in api.requests]
        assert paths == ["/p1/get", "/p1", "/p1"]

    run(main)


def test_the_articles_path_alone_is_enough() -> None:
    """Where it answers, the canonical path is not asked."""

    async def main() -> None:
        async with serving(article_paths(ANSWERED, REFUSED)) as api, atlas(api.url) as provider:
            assert (await provider.poll("p1", route=ARTICLE)).route == ARTICLE
            assert len(api.requests) == 1

    run(main)


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
        async with serving(article_paths(article, canonical)) as api, atlas(api.url) as provider:
            with pytest.raises(kind) as caught:
                await provider.poll("p1", route=ARTICLE)
            assert type(caught.value) is kind

    run(main)


def test_a_401_where_a_path_has_answered_is_about_the_key() -> None:
    """So it is on the canonical route, at once."""

    async def main() -> None:
        async with serving(article_paths(ANSWERED, REFUSED)) as api, atlas(api.url) as provider:
            await provider.poll("p1", route=ARTICLE)
            api.respond = article_paths(REFUSED, REFUSED)
            with pytest.raises(KeyRefused):
                await provider.poll("p1", route=ARTICLE)
            with pytest.raises(KeyRefused):
                await provider.poll("p1")

    run(main)


def test_the_key_comes_from_the_argument_or_two_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argument, official variable, article's variable; spaces around do not count."""

    async def sent(provider: AtlasCloud) -> str:
        async with serving(always(BOUGHT)) as api:
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


def test_a_simulator_gets_no_real_key_and_is_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its folder never counts as done for a real run, and the environment is not read for it."""
    monkeypatch.setenv("ATLASCLOUD_API_KEY", KEY)
    monkeypatch.setenv("ATLASCLOUD_BASE_URL", "https://gate.example")

    async def main() -> None:
        async with serving(always(BOUGHT)) as api:
            async with AtlasCloud(base_url=api.url, simulated=True) as provider:
                assert (provider.origin, provider.simulated) == ("simulator", True)
                await provider.submit(JOB)
            assert KEY not in api.requests[0].headers["Authorization"]

    run(main)
    for base_url in (None, "https://api.atlascloud.ai"):
        with pytest.raises(UsageError):
            AtlasCloud(base_url=base_url, simulated=True)


def test_it_is_a_provider() -> None:
    """The protocol holds, by type and by name."""
    provider: Provider = AtlasCloud(KEY)
    assert provider.name == "atlas"
    assert not provider.simulated


def test_timeouts_are_above_zero() -> None:
    """Zero is not "no limit"."""
    with pytest.raises(UsageError, match="poll_s"):
        Timeouts(poll_s=0)


def test_a_client_is_used_open_only() -> None:
    """Using a closed client is a mistake of the caller, said as such."""
    with pytest.raises(RuntimeError, match="not open"):
        asyncio.run(HttpClient("http://127.0.0.1:1", headers={}).get("/x"))
