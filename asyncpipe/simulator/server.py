"""The look-alike: an Atlas Cloud API on aiohttp.web with its own books."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from asyncpipe.simulator.books import BookedPrediction, Books
from asyncpipe.simulator.media import MediaMaker
from asyncpipe.simulator.prices import charge, outputs_asked
from asyncpipe.simulator.settings import SimulatorSettings

HIDDEN_POLLS = 2

_GENERATION_S = {"image": (8.0, 20.0), "video": (30.0, 90.0)}
_ENDPOINTS = {"generateImage": "image", "generateVideo": "video"}
_SUFFIX = {"image": "png", "video": "mp4"}


class Simulator:
    """Serve while entered; ``base_url`` and ``books`` say where and what was sold."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self._settings = settings or SimulatorSettings()
        self._random = random.Random(self._settings.seed)
        self._media = MediaMaker(body_bytes=self._settings.body_bytes)
        self._cut: set[tuple[str, int]] = set()
        self.base_url = ""

    async def __aenter__(self) -> Self:
        self._media.check()
        self.books = Books(self._settings.books)
        # A process that goes on with old books must not draw the same dice again.
        self._random.seed(f"{self._settings.seed}-{self.books.submits()}")
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
            await site.start()
        except BaseException:
            await self._runner.cleanup()
            self.books.close()
            raise
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{f'[{host}]' if ':' in host else host}:{port}/api/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()
        self._media.close()
        self.books.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._gateway], client_max_size=50 * 1024 * 1024)
        tail = "/get" if self._settings.wire == "article" else ""
        app.router.add_post("/api/v1/model/{endpoint:generateImage|generateVideo}", self._submit)
        app.router.add_get(f"/api/v1/model/prediction/{{id}}{tail}", self._poll)
        app.router.add_get("/media/{id}/{index:\\d+}.{suffix:png|mp4}", self._download)
        app.router.add_get("/books", self._summary)
        app.router.add_route("*", "/{rest:.*}", self._elsewhere)
        return app

    @web.middleware
    async def _gateway(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Refuse what Cloudflare and the gateway refuse, before any route is looked at."""
        if request.headers.get("User-Agent", "").startswith("Python-urllib"):
            return web.Response(status=403, text="error code: 1010", content_type="text/html")
        if request.path.startswith("/api/") and not self._key_fits(request):
            return _refusal(401, "unauthorized")
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["X-Request-ID"] = uuid.uuid4().hex
        return response

    def _key_fits(self, request: web.Request) -> bool:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        expected = self._settings.api_key
        return scheme == "Bearer" and bool(key) and (expected is None or key == expected)

    async def _elsewhere(self, request: web.Request) -> web.Response:
        return _refusal(401, "unauthorized")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.json_response(self.books.summary())

    # -- submit ---------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        try:
            body = json.loads(await request.read())
        except ValueError:
            return _refusal(400, "Invalid request parameters: not JSON")
        self.books.count("submits")
        faults = self._settings.faults
        if not isinstance(body, dict) or not body.get("model") or not body.get("prompt"):
            return _refusal(400, "Invalid request parameters: model and prompt are required")
        if self._random.random() < faults.rate_limited:
            return _refusal(429, "rate limit exceeded")
        prediction = self._sell(_ENDPOINTS[request.match_info["endpoint"]], body)
        if self._random.random() < faults.dropped:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(self._submit_answer(request, prediction))

    def _sell(self, kind: str, body: dict[str, Any]) -> BookedPrediction:
        low, high = self._settings.generation_s or _GENERATION_S[kind]
        now, number = time.time(), self.books.next_number()
        draw = random.Random(f"{self._settings.seed}-{number}")
        wait_s = draw.uniform(low, high) / self._settings.speed
        hidden = draw.random() < self._settings.faults.not_found_first
        prediction = BookedPrediction(
            number=number,
            id=f"{draw.getrandbits(128):032x}",
            type=kind,
            model=str(body["model"]),
            body=body,
            created_at=now,
            ready_at=now + wait_s,
            outcome=self._outcome(draw.random()),
            price=charge(body),
            outputs=outputs_asked(body),
            hidden_polls=HIDDEN_POLLS if hidden else 0,
        )
        self.books.sell(prediction)
        return prediction

    def _outcome(self, draw: float) -> str:
        faults = self._settings.faults
        if draw < faults.failed:
            return "failed"
        return "moderated" if draw < faults.failed + faults.moderated else "completed"

    def _submit_answer(self, request: web.Request, prediction: BookedPrediction) -> dict[str, Any]:
        if self._settings.wire == "article":
            return {"request_id": prediction.id}
        url = f"{_root(request)}/api/v1/model/prediction/{prediction.id}"
        return {
            "code": 200,
            "message": "",
            "data": {
                "id": prediction.id,
                "model": prediction.model,
                "status": "processing",
                "outputs": None,
                "urls": {"get": url},
                "has_nsfw_contents": None,
                "error": "",
            },
        }

    # -- poll -----------------------------------------------------------------------------------

    async def _poll(self, request: web.Request) -> web.Response:
        prediction = self.books.find(request.match_info["id"])
        if prediction is None:
            return _refusal(404, "prediction not found")
        self.books.note_poll(prediction.id)
        if prediction.polls < prediction.hidden_polls:
            return _refusal(404, "prediction not found")
        urls: list[str] = []
        status, error, code = "processing", "", 0
        if time.time() >= prediction.ready_at:
            status, error, code = _END[prediction.outcome]
            if prediction.outcome == "completed":
                urls = self._urls(request, prediction)
        if self._settings.wire == "article":
            return web.json_response(_article_answer(prediction, status, urls, error))
        return web.json_response(_canonical_answer(prediction, status, urls, error, code))

    def _urls(self, request: web.Request, prediction: BookedPrediction) -> list[str]:
        base, suffix = f"{_root(request)}/media/{prediction.id}", _SUFFIX[prediction.type]
        return [f"{base}/{index}.{suffix}" for index in range(prediction.outputs)]

    # -- download -------------------------------------------------------------------------------

    async def _download(self, request: web.Request) -> web.StreamResponse:
        if "Authorization" in request.headers or "Cookie" in request.headers:
            self.books.count("media_credentials")
        prediction, index = (
            self.books.find(request.match_info["id"]),
            int(request.match_info["index"]),
        )
        if prediction is None or index >= prediction.outputs or time.time() < prediction.ready_at:
            return web.Response(status=404)
        self.books.note_download(prediction.id)
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._media.thread, self._media.make, prediction, index)
        if self._breaks(prediction, index):
            return await _broken(request, body)
        return _ranged(request, body, prediction)

    def _breaks(self, prediction: BookedPrediction, index: int) -> bool:
        output = (prediction.id, index)
        draw = random.Random(f"cut-{self._settings.seed}-{output}").random()
        if draw >= self._settings.faults.cut or output in self._cut:
            return False
        self._cut.add(output)
        return True


_END: dict[str, tuple[str, str, int]] = {
    "completed": ("completed", "", 0),
    "failed": ("failed", "the model failed to generate: internal error", 1),
    "moderated": ("failed", "input refused: it violates the content policy", 1039),
}


def _root(request: web.Request) -> str:
    return f"{request.scheme}://{request.host}"


def _refusal(status: int, text: str) -> web.Response:
    body = {"code": status, "msg": text, "request_id": uuid.uuid4().hex, "data": None}
    return web.json_response(body, status=status)


def _canonical_answer(
    prediction: BookedPrediction, status: str, urls: list[str], error: str, code: int
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": prediction.id,
        "model": prediction.model,
        "status": status,
        "outputs": urls or None,
        "error": error,
    }
    if status == "completed":
        fields["has_nsfw_contents"] = [False] * len(urls)
        fields["metrics"] = {"predict_time": round(prediction.ready_at - prediction.created_at, 3)}
    if code:
        fields["error_code"] = code
    return {"code": 200, "message": "", "data": fields}


def _article_answer(
    prediction: BookedPrediction, status: str, urls: list[str], error: str
) -> dict[str, Any]:
    answer: dict[str, Any] = {"status": status}
    if urls:
        answer["output"] = {f"{prediction.type}_url": urls[0] if len(urls) == 1 else urls}
    if error:
        answer["error"] = error
    return answer


async def _broken(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response


def _ranged(request: web.Request, body: bytes, prediction: BookedPrediction) -> web.Response:
    """Answer with the whole body, or with the rest a client asks for if it still is the same."""
    etag = f'"{prediction.id}"'
    kind = "image/png" if prediction.type == "image" else "video/mp4"
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": kind}
    start = request.http_range.start
    if not start or start < 0 or request.headers.get("If-Range", etag) != etag:
        return web.Response(body=body, headers=headers)
    if start >= len(body):
        return web.Response(status=416, headers={"Content-Range": f"bytes */{len(body)}"})
    headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return web.Response(status=206, body=body[start:], headers=headers)
