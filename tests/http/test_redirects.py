"""Redirects: each hop is judged before it is asked, and they end."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web

from asyncpipe.errors import DownloadError
from asyncpipe.http.redirects import as_given, follow
from tests.support.servers import Api, noting


def walk(locations: dict[str, str], *, refused: str = "", hops: int = 3) -> tuple[str, list[str]]:
    """Follow from /a; returns what the last answer (or the error) said, and what was asked."""

    async def respond(request: web.BaseRequest) -> web.Response:
        if request.path not in locations:
            return web.Response(text=f"at {request.path_qs}")
        target = locations[request.path]
        return web.Response(status=302, headers={"Location": target} if target else {})

    def way(url: str) -> str | None:
        if refused and refused in url:
            raise DownloadError(f"{refused} is refused")
        return None

    async def main() -> tuple[str, list[str]]:
        async with noting(respond) as api, aiohttp.ClientSession() as session:
            try:
                async with await follow(
                    session, f"{api.url}/a?sig=1", way=way, hops=hops, what="a thing"
                ) as answer:
                    said = await answer.text()
            except DownloadError as exc:
                said = str(exc).replace(api.url, "")
            return said, [request.path for request in api.requests]

    return asyncio.run(main())


def test_what_is_there_is_not_followed_further() -> None:
    assert walk({}) == ("at /a?sig=1", ["/a"])


def test_hops_are_followed_relative_to_where_they_were_told() -> None:
    """The query of the first, which may hold a signature, goes no further."""
    assert walk({"/a": "x/b", "/x/b": "c?d=1"}) == ("at /x/c?d=1", ["/a", "/x/b", "/x/c"])


def test_a_hop_that_is_refused_is_never_asked() -> None:
    """Not the first one only."""
    assert walk({"/a": "/b", "/b": "/private"}, refused="/private") == (
        "/private is refused", ["/a", "/b"]
    )  # fmt: skip
    assert walk({}, refused="/a") == ("/a is refused", [])


def test_circles_end() -> None:
    said, asked = walk({"/a": "/b?key=2", "/b": "/a"})
    assert asked == ["/a", "/b", "/a", "/b"]
    assert said == "a thing was redirected too often, at last to /a"


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("", "/a answers 302 and does not say where to"),
        ("ftp://x/y", "a thing was redirected to 'ftp://x/y'"),
        ("file:///etc/passwd", "a thing was redirected to 'file:///etc/passwd'"),
    ],
)
def test_a_redirect_to_nowhere_is_an_error(location: str, said: str) -> None:
    """It shows no query of ours."""
    assert walk({"/a": location}) == (said, ["/a"])


def test_a_head_that_does_not_come_is_given_up() -> None:
    """Also when it trickles: the whole of it has its time."""

    async def respond(request: web.BaseRequest) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> None:
        async with noting(respond) as api, aiohttp.ClientSession() as session:
            with pytest.raises(TimeoutError):
                await follow(
                    session, api.url, way=lambda _: None, hops=1, what="a thing", head_s=0.05
                )

    asyncio.run(main())


SIGNED = "/o%2Fb/it%27s%20%281%29%7Ev%2E2.png?X=AK%2F2%2Fs3&s=rX7%2FC2w%3D&t=a%2Bb&e=%7E&p=a+b"


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (SIGNED, SIGNED),
        ("/a%252Fb.png?q=%252F&r=", "/a%252Fb.png?q=%252F&r="),
        ("/a%2fb%3a.png?x=%e4%bd", "/a%2fb%3a.png?x=%e4%bd"),
        ("/a//b/../c/./d?x=1&&y", "/a//b/../c/./d?x=1&&y"),
        ("/a'b(c)*!~;=,@:$&.png?[k]=(v)'{}|", "/a'b(c)*!~;=,@:$&.png?[k]=(v)'{}|"),
        ("/100%.png?p=50%", "/100%.png?p=50%"),
        ("/图片 1.png?名=杯", "/%E5%9B%BE%E7%89%87%201.png?%E5%90%8D=%E6%9D%AF"),
        ("/a.png?x=1#part", "/a.png?x=1"),
        ("?x=%7E", "/?x=%7E"),
        ("", "/"),
    ],
)
def test_a_url_is_requested_byte_for_byte(given: str, sent: str) -> None:
    """Signatures are over the very bytes: only what may not stand in a request line is quoted."""

    apis: list[Api] = []

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        if request.raw_path == "/moved":
            return web.Response(status=302, headers={"Location": apis[0].url + given})
        return web.Response()

    async def main() -> list[str]:
        async with noting(respond) as api, aiohttp.ClientSession() as session:
            apis.append(api)
            for url in (api.url + given, f"{api.url}/moved"):
                async with await follow(session, url, way=lambda _: None, hops=1, what="a thing"):
                    pass
            return api.lines

    assert asyncio.run(main()) == [f"GET {sent}", "GET /moved", f"GET {sent}"]


def test_the_host_is_spelled_as_hosts_are() -> None:
    """Names of any script, and a port."""
    assert str(as_given("https://图片.example:8443/a%2Fb")) == (
        "https://xn--wcsw84d.example:8443/a%2Fb"
    )
