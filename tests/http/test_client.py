"""The wire: what is sent once, what is lost and how far, proxies, and turns in the pool."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from asyncpipe.errors import NotSent, PollFailed, Rejected, SubmitUnknown, UsageError
from asyncpipe.http import client as http
from asyncpipe.http.client import _POOL, MAY_SEND, HttpAnswer, HttpClient, Timeouts
from asyncpipe.http.hosts import proxy_for
from asyncpipe.testing import run_virtual
from tests.support.atlas import BOUGHT, DONE, JOB, KEY, atlas, poll_error, submit_error
from tests.support.servers import always, hang, listening, noting, read_request, whole


class Slow(HttpClient):
    """Every request takes ``takes_s``; counts those that are under way at once."""

    takes_s = 1.0
    under_way = peak = sent = 0

    async def _exchange(self, *arguments: Any, **options: Any) -> HttpAnswer:
        self.under_way += 1
        self.sent += 1
        self.peak = max(self.peak, self.under_way)
        await asyncio.sleep(self.takes_s)
        self.under_way -= 1
        return HttpAnswer(status=200, headers={}, body=b"{}")


def client(**options: Any) -> Slow:
    return Slow("http://127.0.0.1:1/api/v1", headers={}, **options)


def test_never_more_requests_than_connections() -> None:
    """A burst of polls waits outside the HTTP library; all are answered."""

    async def main() -> tuple[int, int]:
        async with client() as slow:
            await asyncio.gather(*(slow.get("/x") for _ in range(5 * _POOL)))
            return slow.peak, slow.sent

    assert run_virtual(main()) == (_POOL, 5 * _POOL)


def test_a_submit_that_gets_no_connection_in_time_was_not_sent() -> None:
    """It says so, costs nothing, and is not unknown."""

    async def main() -> list[Any]:
        async with client(timeouts=Timeouts(connect_s=15.0)) as slow:
            slow.takes_s = 20.0
            posts = [slow.post("/x", {}) for _ in range(_POOL + 3)]
            found = await asyncio.gather(*posts, return_exceptions=True)
            assert slow.sent == _POOL
            await slow.post("/x", {})  # and places are free again
            return [one for one in found if isinstance(one, BaseException)]

    refused = run_virtual(main())
    assert len(refused) == 3
    assert all(isinstance(one, NotSent) and "in time" in str(one) for one in refused)


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

    asyncio.run(main())


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

    asyncio.run(main())


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

    asyncio.run(main())


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

    asyncio.run(main())


def test_submits_reuse_a_connection_for_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that closes idle connections after seconds never costs a submit its answer."""

    async def main() -> None:
        async with noting(always(BOUGHT)) as api, atlas(api.url) as provider:
            await provider.submit(JOB)
            await provider.submit(JOB)
            later = time.monotonic() + 1.01
            monkeypatch.setattr("aiohttp.connector.monotonic", lambda: later)
            await provider.submit(JOB)
        first, second, third = api.sockets
        assert first is second
        assert third is not second

    asyncio.run(main())


def test_no_answer_in_time_is_unknown() -> None:
    """A submit that hangs may be bought; a poll that hangs is polled again."""

    async def main() -> None:
        async with noting(hang) as api, atlas(api.url, submit_s=0.03, poll_s=0.03) as provider:
            error = await submit_error(provider)
            assert type(error) is SubmitUnknown
            assert "no answer came in time" in str(error)
            assert type(await poll_error(provider)) is PollFailed

    asyncio.run(main())


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

    asyncio.run(main())


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

    asyncio.run(main())
    assert seen
    assert all(first[0] == 0x16 for first in seen)  # a TLS ClientHello, nothing readable


@pytest.mark.parametrize(
    ("answer", "timeouts"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", {}),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", {}),
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

    asyncio.run(main())
    assert len(seen) == 1
    assert seen[0].startswith(b"CONNECT api.atlas.invalid:443 ")
    assert KEY.encode() not in seen[0]


def test_loopback_needs_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator is reached directly, whatever proxy the environment names."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1")

    async def main() -> None:
        async with noting(always(BOUGHT)) as api, atlas(api.url) as provider:
            assert (await provider.submit(JOB)).id == "p1"

    asyncio.run(main())


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
        asyncio.run(main())
    assert "socks5h" in str(caught.value)
    assert "NO_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """The key goes to no other host; the message names it and the remedy."""

    async def main() -> None:
        async with noting(always(DONE)) as other:
            moved = always(b"", status, Location=f"{other.url}/api/v1/x")
            async with noting(moved) as api, atlas(api.url) as provider:
                error = await submit_error(provider)
                # After 302 and 303 nobody knows: they may be the answer to what was done.
                assert type(error) is (SubmitUnknown if status in (302, 303) else Rejected)
                assert status in (302, 303) or "redirects to 127.0.0.1" in str(error)
                assert type(await poll_error(provider)) is PollFailed
                assert len(api.requests) == 2
            assert other.requests == []

    asyncio.run(main())


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading stops at the limit, declared or not, and the outcome is typed."""
    monkeypatch.setattr(http, "LARGEST_ANSWER", 100_000)

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await response.write(b" " * 50_000)
        return response

    async def main() -> None:
        for respond in (endless, always(b" " * 100_001)):
            async with noting(respond) as api, atlas(api.url) as provider:
                assert "larger than" in str(await submit_error(provider))
                assert type(await submit_error(provider)) is SubmitUnknown
                assert type(await poll_error(provider)) is PollFailed

    asyncio.run(main())


def test_netrc_and_cookies_are_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A .netrc entry never replaces the key, and no cookie is kept or sent."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login wrong password wrong\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    async def main() -> None:
        respond = always(DONE, 200, **{"Set-Cookie": "session=1; Path=/"})
        async with noting(respond) as api, atlas(api.url) as provider:
            for _ in range(2):
                await provider.poll("p1")
                await provider.submit(JOB)
        for request in api.requests:
            assert request.headers["Authorization"] == f"Bearer {KEY}"
            assert "Cookie" not in request.headers

    asyncio.run(main())


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
    assert {kind.__name__ for kind in kinds} - set(http._MEANINGS) == set()
    for kind in kinds:
        connecting = issubclass(kind, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        if connecting:
            assert not http._MEANINGS[kind.__name__][0]


def test_an_unforeseen_exception_after_sending_is_unknown() -> None:
    """Whatever breaks once the request is on its way, the submit may have been bought."""
    for exc in (RuntimeError("x"), ValueError("x"), EOFError(), OSError(5, "x"), TimeoutError()):
        assert http.no_answer(exc, started=True).sent
        assert not http.no_answer(exc, started=False).sent


def test_timeouts_are_above_zero() -> None:
    """Zero is not "no limit"."""
    with pytest.raises(UsageError, match="poll_s"):
        Timeouts(poll_s=0)


def test_a_client_is_used_open_only() -> None:
    """Using a closed client is a mistake of the caller, said as such."""
    with pytest.raises(RuntimeError, match="not open"):
        asyncio.run(HttpClient("http://127.0.0.1:1", headers={}).get("/x"))


def test_no_byte_of_a_submit_leaves_once_it_must_not() -> None:
    """Asked when the body is: a head may be out by then, of which nothing is bought."""
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.read())

    async def main() -> None:
        async with listening(serve) as port, atlas(f"http://127.0.0.1:{port}") as provider:
            guard = MAY_SEND.set(lambda: False)
            error = await submit_error(provider)
            MAY_SEND.reset(guard)
            assert type(error) is NotSent
            assert "lease" in str(error)
        assert b"".join(bodies) == b""

    asyncio.run(main())
