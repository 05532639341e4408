"""Small servers on loopback that share nothing with the simulator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from aiohttp import web

from asyncpipe.http.body import Body

Respond = Callable[[Any], Awaitable[web.StreamResponse]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


@asynccontextmanager
async def serving(
    respond: Respond, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Answer every request, proxies' too, by ``respond``; yields the origin."""
    server = web.Server(respond, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Api:
    """A server that notes every request and answers what it is told."""

    def __init__(self, respond: Respond) -> None:
        self.requests: list[web.BaseRequest] = []
        self.bodies: list[bytes] = []
        self.sockets: list[object] = []
        self.respond = respond
        self.url = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def lines(self) -> list[str]:
        """The request lines, as they came."""
        return [f"{each.method} {each.raw_path}" for each in self.requests]

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.sockets.append(request.transport)
        return await self.respond(request)


@asynccontextmanager
async def noting(respond: Respond) -> AsyncIterator[Api]:
    """Answer by ``respond`` and note what was asked."""
    api = Api(respond)
    async with serving(api.answer) as api.url:
        yield api


def always(body: bytes, status: int = 200, **headers: str) -> Respond:
    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers=headers)

    return respond


def by_path(answers: dict[str, tuple[int, bytes]]) -> Respond:
    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        status, body = answers[request.path.rpartition("/api/v1")[2]]
        return web.Response(body=body, status=status)

    return respond


async def hang(request: web.BaseRequest) -> web.StreamResponse:
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


# What no terminal, log or file may be made to obey.
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\b\x00\x7f\u2028"


class Evil:
    """A provider whose every word is hostile; each job meets another of its answers."""

    def __init__(self) -> None:
        self.submits = 0
        self.polls = 0

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            self.submits += 1
            return self.submit(self.submits % 8)
        return self.poll(request)

    def submit(self, kind: int) -> web.Response:
        data: dict[str, Any] = {"id": f"p{self.submits}{EVIL}", "status": "processing"}
        headers = {"X-Request-ID": "\u202e\x9b31m"}
        match kind:
            case 0:
                return web.json_response({"code": 400, "msg": EVIL + "m" * 2**20}, status=400)
            case 1:
                data |= {"status": "failed", "error": EVIL * 1000, "error_code": 10**30}
            case 2:
                return web.Response(body=EVIL.encode() * 1000, status=502, headers=headers)
            case 3:
                return web.Response(text=f"<html><title>{EVIL}</title>", status=403 + 100)
            case 4:
                data = {"id": {"id": EVIL}, "status": EVIL}
            case 5:
                return web.Response(status=307, headers={"Location": "http://x\u202e\x9b/"})
        return web.json_response({"code": 200, "data": data}, headers=headers)

    def poll(self, request: web.BaseRequest) -> web.Response:
        self.polls += 1
        if "p6" in request.raw_path or "p14" in request.raw_path:
            data: dict[str, Any] = {"status": EVIL, "error": EVIL}
        else:  # another URL each time: nobody waits before trying it
            urls = [f"javascript:{self.polls}", f"http://127.0.0.1:1/{EVIL}{self.polls}"]
            data = {"status": "completed", "outputs": [*urls, f"FTP://x/{EVIL}"]}
        return web.json_response({"code": 200, "msg": EVIL, "data": data})


Shape = Callable[[int, str], Any]  # (poll number, media URL) -> JSON


class Foreign:
    """A provider in forty lines: numbers its predictions, is done at the third poll."""

    def __init__(self, submit: Callable[[str], Any], poll: Shape, path: str) -> None:
        self.picture = PNG
        self.submit_shape, self.poll_shape = submit, poll
        self.bodies: list[dict[str, Any]] = []
        self.polls: dict[str, int] = {}
        self.wrong_paths = 0
        self.authorized_media = 0
        self.paths: list[str] = []
        self.path = path  # of polls, with {id} in it

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        before, _, behind = self.path.partition("{id}")
        path = request.path
        if path.startswith("/public/"):  # whose account it is, it does not say
            return web.json_response({"code": 404, "msg": "not found", "data": None}, status=404)
        self.paths.append(path)
        name = path.removeprefix(before).removesuffix(behind)
        match request.method:
            case "POST" if path == "/api/v1/model/calculate":
                return web.Response(status=404, text="<h1>404</h1>", content_type="text/html")
            case "POST" if path.startswith("/api/v1/model/"):
                return await self.submit(request)
            case "GET" if f"{before}{name}{behind}" == path and "/" not in name:
                return self.poll(request, name)
            case "GET" if path.startswith("/media/"):
                return self.media(request)
        self.wrong_paths += 1
        return web.json_response({"code": 401, "msg": "unauthorized", "data": None}, status=401)

    async def submit(self, request: web.BaseRequest) -> web.Response:
        assert request.headers["Authorization"] == "Bearer apikey-x"
        self.bodies.append(await request.json())
        return web.json_response(self.submit_shape(f"p-{len(self.bodies)}"))

    def poll(self, request: web.BaseRequest, name: str) -> web.Response:
        self.polls[name] = self.polls.get(name, 0) + 1
        url = f"http://{request.host}/media/{name}"
        return web.json_response(self.poll_shape(self.polls[name], url))

    def media(self, request: web.BaseRequest) -> web.Response:
        self.authorized_media += "Authorization" in request.headers
        return web.Response(body=self.picture, content_type="application/octet-stream")


def canonical(poll: int, url: str) -> Any:
    done = {"status": "completed", "outputs": [url], "metrics": {"predict_time": 9.5}}
    return {"code": 200, "data": done if poll > 2 else {"status": "processing", "outputs": None}}


def article(poll: int, url: str) -> Any:
    if poll > 2:
        return {"status": "completed", "output": {"image_url": url}}
    return {"status": "processing"}


def shouting(poll: int, url: str) -> Any:
    words = {1: "QUEUED", 2: "Starting"}
    outputs = [{"url": url}] if poll > 2 else []
    return {"code": "200", "data": {"status": words.get(poll, "Succeeded"), "outputs": outputs}}


CANONICAL = "/api/v1/model/prediction/{id}"
ARTICLE = "/api/v1/model/prediction/{id}/get"
DIALECTS: dict[str, tuple[Callable[[str], Any], Shape, str]] = {
    "documented": (lambda i: {"code": 200, "data": {"id": i}}, canonical, CANONICAL),
    "article": (lambda i: {"request_id": i}, article, ARTICLE),
    "request_id, canonical polls": (lambda i: {"request_id": i}, canonical, CANONICAL),
    "predictionId, shouting": (lambda i: {"predictionId": i}, shouting, CANONICAL),
    "nested, string code": (
        lambda i: {"code": "200", "data": {"data": {"id": i, "status": "created"}}},
        shouting,
        CANONICAL,
    ),
    "with a get url": (
        lambda i: {
            "code": 200,
            "message": "",
            "data": {
                "id": i,
                "status": "processing",
                "outputs": None,
                "urls": {"get": f"https://api.atlascloud.ai/api/v1/model/prediction/{i}"},
                "has_nsfw_contents": None,
                "error": "",
            },
        },
        canonical,
        CANONICAL,
    ),
}


REFUSALS = {"refused": 400, "unauthorized": 401, "limited": 429, "broken": 502, "redirect": 307}


class Echo:
    """A provider that repeats the key in every field and header it has; and a media host."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.url = ""
        self.elsewhere = ""
        self.requests: list[web.BaseRequest] = []
        self.polls = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if request.path.startswith("/media"):
            return web.Response(body=PNG)
        key = request.headers.get("Authorization", "").removeprefix("Bearer ")
        body = self.submit(key) if request.method == "POST" else self.poll(key)
        status, document = body
        headers = {
            "X-Request-ID": f"trace {key}",
            "Location": f"{self.elsewhere}/{quote(key, safe='')}?k={quote(key)}",
            "Set-Cookie": f"k={quote(key, safe='')}",
            "Retry-After": "0",
            "X-Key": key,
        }
        # Half of the answers spell the key the way PHP and Go do.
        text = json.dumps(document).replace("/", "\\/").replace("<", "\\u003c")
        text = text if len(self.requests) % 2 else json.dumps(document)
        return web.Response(
            text=text, status=status, headers=headers, content_type="application/json"
        )

    def words(self, key: str) -> dict[str, Any]:
        return {
            "msg": f"bad header: Bearer {key}", "message": key, "request_id": key, "error": key,
            "detail": key, key: key, "urls": {"get": f"{self.elsewhere}/{quote(key)}"},
        }  # fmt: skip

    def submit(self, key: str) -> tuple[int, Any]:
        words = self.words(key)
        if self.kind in REFUSALS:
            return REFUSALS[self.kind], {"code": REFUSALS[self.kind], **words}
        data = {
            "failed": {"id": "p", "status": "failed", **words},
            "named": {"id": f"p-{key}", "status": key},
        }.get(self.kind, {"id": f"p{len(self.requests)}", "status": "processing", **words})
        return 200, {"code": 200, **words, "data": data}

    def poll(self, key: str) -> tuple[int, Any]:
        self.polls += 1
        words = self.words(key)
        if self.kind == "polls":
            return 500, {"code": 500, **words}
        if self.kind == "named":
            return 404, {"code": 404, **words}
        if self.kind == "odd":
            return 200, {"code": 200, "data": {**words, "error": None, "status": f"odd {key}"}}
        token = quote(key, safe="") if self.polls % 2 else key
        url = f"{self.url}/media/{self.polls}.png?token={token}&plain={key}"
        return 200, {"code": 200, "data": {**words, "status": "completed", "outputs": [url]}}


@asynccontextmanager
async def echoing(kind: str) -> AsyncIterator[tuple[Echo, list[web.BaseRequest]]]:
    """An echo, and what reached the other host it points to."""
    reached: list[web.BaseRequest] = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        reached.append(request)
        return web.Response(text="{}")

    echo = Echo(kind)
    async with serving(echo) as url, serving(elsewhere) as other:
        echo.url, echo.elsewhere = url, other
        yield echo, reached


Odd = Callable[[web.BaseRequest, "Origin"], Awaitable[web.StreamResponse]]


class Watched(Body):
    """A body whose server can see how much of it was read: what is in a buffer at a cut is lost."""

    latest: ClassVar[Watched | None] = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        Watched.latest, self._first = self, self.have

    @classmethod
    async def received(cls, size: int) -> None:
        """Wait until the latest body has been read so far, a second at most."""
        for _ in range(500):
            await asyncio.sleep(0.002)
            if cls.latest and cls.latest.have - cls.latest._first >= size:
                break


@dataclass
class Origin:
    """A media server that serves ``body`` by the rules, and breaks off where ``cuts`` say.

    ``cuts``: bytes sent per request before the connection is cut; none left: nothing is cut.
    ``port``: chosen when it is first served, the same when it is served again.
    ``odd``: answers that take the place of the rules', by number of the request from 0.
    """

    body: bytes
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"v1"'})
    cuts: list[int] = field(default_factory=list)
    odd: dict[int, Odd] = field(default_factory=dict)
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    sent: int = 0
    port: int = 0
    stall: asyncio.Event | None = None

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        Watched.latest, number = None, len(self.asked)
        self.asked.append((request.headers.get("Range"), request.headers.get("If-Range")))
        self.paths.append(request.path_qs)
        if number in self.odd:
            return await self.odd[number](request, self)
        return await self.by_the_rules(request)

    async def by_the_rules(self, request: web.BaseRequest) -> web.StreamResponse:
        start = request.http_range.start or 0
        known = (self.headers.get("ETag"), self.headers.get("Last-Modified"))
        headers = dict(self.headers)
        status = 200
        if start and request.headers.get("If-Range") in known:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        else:
            start = 0
        return await self.send(request, status, headers, self.body[start:])

    async def send(
        self, request: web.BaseRequest, status: int, headers: dict[str, str], body: bytes
    ) -> web.StreamResponse:
        length = {} if "Transfer-Encoding" in headers else {"Content-Length": str(len(body))}
        headers = {k: v for k, v in headers.items() if k != "Transfer-Encoding"}
        response = web.StreamResponse(status=status, headers=headers | length)
        await response.prepare(request)
        cut = self.cuts.pop(0) if self.cuts else None
        await response.write(body[:cut])
        self.sent += len(body[:cut])
        if self.stall is not None:
            await self.stall.wait()
        if cut is not None:
            await Watched.received(len(body[:cut]))
            if request.transport is not None:
                request.transport.close()
        return response

    def url(self, tail: str = "x/out?sig=1") -> str:
        return f"http://127.0.0.1:{self.port}/{tail}"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with serving(self.serve, port=self.port) as url:
            self.port = int(url.rpartition(":")[2])
            yield
